package clock

import (
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSystemTellsForHowLongItWasSuspended checks that the system reports about the same suspension each time.
func TestSystemTellsForHowLongItWasSuspended(t *testing.T) {
	least, most := int64(1<<62), int64(0)
	for range 1000 { // some of them while the thread has to wait for a processor
		if slept, ok := Suspended(); ok {
			least, most = min(least, slept), max(most, slept)
		}
	}
	if known := most >= least; known != (runtime.GOOS == "linux") || known && (least < -SleptLeast || most-least > SleptLeast/5) {
		t.Errorf("from %v to %v", time.Duration(least), time.Duration(most))
	}
}

// BenchmarkClock compares a reading of the clock, which counts suspended time, with one that does not.
func BenchmarkClock(b *testing.B) {
	c := New(nil)
	b.Run("counts suspension", func(b *testing.B) {
		for b.Loop() {
			_ = c.Now()
		}
	})
	b.Run("does not", func(b *testing.B) {
		for b.Loop() {
			_ = int64(time.Since(c.base))
		}
	})
}
