package clock_test

import (
	"math"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/tier/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSystemTellsForHowLongItWasSuspended checks that the system reports about the same suspension each time, while time goes by.
func TestSystemTellsForHowLongItWasSuspended(t *testing.T) {
	least, most := int64(1<<62), int64(0)
	for began := time.Now(); int64(time.Since(began)) < 5*clock.SleptLeast; { // some readings while the thread has to wait for a processor
		if slept, ok := clock.Suspended(); ok {
			least, most = min(least, slept), max(most, slept)
		}
	}
	if known := most >= least; known != (runtime.GOOS == "linux") || known && (least < -clock.SleptLeast || most-least > clock.SleptLeast/5) {
		t.Errorf("from %v to %v", time.Duration(least), time.Duration(most))
	}
}

// Tick adds what the machine was suspended for since the clock was made, and Now reads on in between.
func TestTick(t *testing.T) {
	const ms = int64(time.Millisecond)
	at, slept, known := time.Unix(1000, 0), 500*ms, true
	c := clock.NewWith(func() time.Time { return at }, func() (int64, bool) { return slept, known })
	unknownFirst := clock.NewWith(func() time.Time { return at }, func() (int64, bool) { return slept, known && slept > 500*ms })
	for i, x := range []struct {
		ran, slept        int64 // in ms since the step before
		known             bool
		want, wantUnknown int64 // in ms
	}{
		{0, 0, true, 0, 0},           // an earlier suspension does not count
		{7, 0, true, 7, 7},           // no suspension
		{1, 9, true, 8, 8},           // too short to count
		{1, 1, true, 19, 9},          // 10 in all are long enough; the other clock knows since 9
		{1, 5, false, 20, 10},        // unknown now
		{0, 0, true, 20, 10},         // 5 more are too few
		{0, 5, true, 30, 21},         // 20 in all, 11 for the other clock
		{0, -20, true, 30, 21},       // never backwards
		{10, 1020, true, 1040, 1031}, // a long one
	} {
		at, slept, known = at.Add(time.Duration(x.ran*ms)), slept+x.slept*ms, x.known
		c.Tick()
		unknownFirst.Tick()
		if a, b := c.Now(), unknownFirst.Now(); a != x.want*ms || b != x.wantUnknown*ms {
			t.Errorf("step %d: %v and %v, want %d and %d ms", i, time.Duration(a), time.Duration(b), x.want, x.wantUnknown)
		}
	}
}

// A clock of package time counts the suspensions as well.
func TestTickOfPackageTime(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		slept := time.Duration(0)
		c := clock.NewWith(nil, func() (int64, bool) { return int64(slept), true })
		time.Sleep(time.Second)
		slept = time.Hour
		before := c.Now()
		c.Tick()
		if after := c.Now(); before != int64(time.Second) || after != int64(time.Hour+time.Second) {
			t.Errorf("%v, then %v", time.Duration(before), time.Duration(after))
		}
	})
}

func TestLater(t *testing.T) {
	for _, x := range []struct {
		at   int64
		d    time.Duration
		want int64
	}{
		{5, 7, 12}, {5, -7, -2}, {5, 0, 5}, {math.MinInt64, 1, math.MinInt64 + 1}, {math.MaxInt64 - 7, 7, math.MaxInt64}, {math.MaxInt64 - 6, 7, math.MaxInt64}, {math.MaxInt64, -1, math.MaxInt64 - 1},
	} {
		if got := clock.Later(x.at, x.d); got != x.want {
			t.Errorf("%d and %d: %d, want %d", x.at, x.d, got, x.want)
		}
	}
}

// BenchmarkClock compares a reading of the clock, which counts suspended time, with one that does not.
func BenchmarkClock(b *testing.B) {
	c, base := clock.New(nil), time.Now()
	b.Run("counts suspension", func(b *testing.B) {
		for b.Loop() {
			_ = c.Now()
		}
	})
	b.Run("does not", func(b *testing.B) {
		for b.Loop() {
			_ = int64(time.Since(base))
		}
	})
}
