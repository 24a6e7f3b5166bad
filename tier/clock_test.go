package tier

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// A copy ages while the machine is suspended: what is past its hard expiry then is not served after it has resumed.
func TestCopiesAgeWhileTheMachineIsSuspended(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var slept atomic.Int64
		o := slow(0)
		cfg := plain(ByKey(o.load))
		cfg.NearBytes = MinBytes
		cfg.Freshness.NearTTL = time.Hour
		cfg.Freshness.TTL = time.Hour
		cfg.suspended = func() (int64, bool) { return int64(7*time.Hour) + slept.Load(), true } // the machine has slept before
		c := open(t, cfg)
		get(t, c, "k", "k#1")
		c.near.c.Wait()
		_ = pause(background, 10*time.Second)
		slept.Store(int64(time.Minute))
		_ = pause(background, 2*sweepEvery)
		a, err := c.Read(background, "k", ReadOptions{MaxAge: AnyAge})
		if err != nil || a.Source != SourceNear || a.Age != time.Minute+10*time.Second+2*sweepEvery {
			t.Errorf("%+v, %v", a, err)
		}
		slept.Store(int64(2 * time.Hour))
		_ = pause(background, 2*sweepEvery)
		if a, err := c.Read(background, "k", ReadOptions{MaxAge: AnyAge, NoFill: true}); !errors.Is(err, ErrNotCached) {
			t.Errorf("%+v, %v", a, err)
		}
		get(t, c, "k", "k#2")
		slept.Store(0) // the clocks are read one after the other, so this may be less: nothing grows younger
		now := c.clock.now()
		_ = pause(background, 2*sweepEvery)
		if d := c.clock.now() - now; d != int64(2*sweepEvery) {
			t.Errorf("the clock went on by %v", time.Duration(d))
		}
		slept.Store(int64(2*time.Hour) + sleptLeast/2) // what reading the clocks may take
		_ = pause(background, 2*sweepEvery)
		if d := c.clock.now() - now; d != int64(4*sweepEvery) {
			t.Errorf("the clock went on by %v", time.Duration(d))
		}
	})
}

// Where the system says for how long it was suspended, it says about the same again.
func TestSystemTellsForHowLongItWasSuspended(t *testing.T) {
	least, most := int64(1<<62), int64(0)
	for range 1000 { // some of them while the thread has to wait for a processor
		if slept, ok := suspended(); ok {
			least, most = min(least, slept), max(most, slept)
		}
	}
	if known := most >= least; known != (runtime.GOOS == "linux") || known && (least < -sleptLeast || most-least > sleptLeast/5) {
		t.Errorf("from %v to %v", time.Duration(least), time.Duration(most))
	}
}

// BenchmarkClock compares a reading of the clock, which counts suspended time, with one that does not.
func BenchmarkClock(b *testing.B) {
	c := newClock(nil)
	b.Run("counts suspension", func(b *testing.B) {
		for b.Loop() {
			_ = c.now()
		}
	})
	b.Run("does not", func(b *testing.B) {
		for b.Loop() {
			_ = int64(time.Since(c.base))
		}
	})
}
