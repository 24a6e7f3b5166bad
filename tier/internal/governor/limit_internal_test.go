package governor

import (
	"math"
	"testing"
	"time"
)

// stepped feeds l with n loads that took cost, bad of which failed. The last one ends after span, which begins at 0.
func stepped(l limit, share, used, n, bad int, cost, span time.Duration) limit {
	for i := range n {
		now := int64(0)
		if i == n-1 {
			now = int64(span)
		}
		l = l.ended(0.25, share, used, cost, i < bad, now)
	}
	return l
}

// One step of the limit matches the formula calculated by hand: 0.2 of the way to share * gradient * (1 - bad/2) +
// sqrt(share) * (1 - bad).
func TestLimitStep(t *testing.T) {
	const ms = time.Millisecond
	for name, x := range map[string]struct {
		long            time.Duration
		share, used     int
		n, bad          int
		cost, span      time.Duration
		fraction, longs float64 // longs is the long-term load time afterwards, ms
	}{
		"as fast as ever":           {10 * ms, 100, 100, 10, 0, 10 * ms, 100 * ms, 1, 10},
		"twice as slow":             {10 * ms, 100, 100, 10, 0, 20 * ms, 300 * ms, 1, 10.1},
		"two and a half times":      {10 * ms, 100, 100, 10, 0, 25 * ms, 300 * ms, 0.98, 10.15},
		"four times":                {10 * ms, 100, 100, 10, 0, 40 * ms, 300 * ms, 0.92, 10.3},
		"forty times":               {10 * ms, 100, 100, 10, 0, 400 * ms, 300 * ms, 0.92, 13.9},
		"half of the loads fail":    {10 * ms, 100, 100, 10, 5, 10 * ms, 100 * ms, 0.96, 10},
		"all fail":                  {10 * ms, 100, 100, 10, 10, 10 * ms, 100 * ms, 0.9, 10},
		"the first step":            {0, 100, 100, 10, 5, 40 * ms, 100 * ms, 0.96, 40},
		"half of the permits used":  {10 * ms, 100, 50, 10, 10, 10 * ms, 100 * ms, 0.9, 10},
		"less than half used":       {10 * ms, 100, 49, 10, 10, 10 * ms, 100 * ms, 1, 10},
		"nine loads":                {10 * ms, 100, 100, 9, 9, 10 * ms, 200 * ms, 1, 10},
		"in less than the window":   {10 * ms, 100, 100, 50, 50, 10 * ms, 100*ms - 1, 1, 10},
		"no share":                  {10 * ms, 0, 1, 10, 10, 10 * ms, 100 * ms, 1, 10},
		"after a long pause":        {10 * ms, 100, 49, 10, 0, 20 * ms, time.Hour, 1, 15},
		"faster than half the time": {100 * ms, 100, 49, 10, 0, 10 * ms, 300 * ms, 1, 99.1 * 0.95},
	} {
		l := stepped(limit{long: float64(x.long)}, x.share, x.used, x.n, x.bad, x.cost, x.span)
		if !(math.Abs(l.fraction-x.fraction) < 1e-9 && math.Abs(l.long/float64(ms)-x.longs) < 1e-6) { // catches NaN as well
			t.Errorf("%s: fraction %v, long-term %v ms; want %v, %v ms", name, l.fraction, l.long/float64(ms), x.fraction, x.longs)
		}
		if done := x.n >= limitSamples && x.span >= 100*ms; (l.n == 0) != done || done && (l.bad != 0 || l.sum != 0 || l.most != 0) {
			t.Errorf("%s: %+v: the samples of a step count in it alone", name, l)
		}
	}
	low := stepped(limit{fraction: 0.26, long: float64(10 * ms)}, 100, 26, 10, 10, 10*ms, 100*ms)
	if low.fraction != 0.25 {
		t.Errorf("below the floor: %v", low.fraction)
	}
	low = stepped(limit{fraction: 0.5, long: float64(10 * ms)}, 100, 50, 10, 0, 10*ms, 100*ms)
	if want := (50 + 0.2*math.Sqrt(50)) / 100; math.Abs(low.fraction-want) > 1e-9 {
		t.Errorf("it grows to %v, want %v", low.fraction, want)
	}
	// A window begins with its first load.
	l := stepped(limit{}, 100, 100, 10, 0, 10*ms, 100*ms)
	l = l.ended(0.25, 100, 100, 10*ms, false, int64(time.Hour))
	if l.from != int64(time.Hour) || l.n != 1 {
		t.Errorf("%+v: a window that began before its first load", l)
	}
}

func TestLimitPermits(t *testing.T) {
	for _, x := range []struct {
		fraction    float64
		share, want int
	}{{0, 10, 10}, {1, 10, 10}, {0.5, 10, 5}, {0.51, 10, 6}, {0.1, 10, 3}, {0.1, 1, 1}, {0.5, 0, 0}, {0.5, -3, 0}, {1, 7, 7}, {2, 7, 7}} {
		if got := (limit{fraction: x.fraction}).permits(x.share, 0.25); got != x.want {
			t.Errorf("%v of %d: %d permits, want %d", x.fraction, x.share, got, x.want)
		}
	}
}
