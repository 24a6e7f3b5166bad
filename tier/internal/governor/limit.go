package governor

import (
	"math"
	"time"
)

// limit is the adaptive part of the cap: the fraction of a member's share that is in force. It only ever lowers the
// cap. Its methods return the next state and change nothing.
//
// The formula is that of Gradient2Limit in Netflix's concurrency-limits
// (https://github.com/Netflix/concurrency-limits, Apache-2.0). The limit is multiplied by tolerance * long-term
// latency / present latency, clamped to 0.5 to 1. The square root of the limit is added as room to grow, and the
// result is smoothed. weir's formula differs in four ways:
//
//   - It starts at the ceiling, which the operator has vouched for, and not at the bottom. A warm cache loads little;
//     a limit that climbs only under load would be low when the cache is lost.
//   - It moves only while the cap is what holds loads back (at least half of the permits in use), so that idle time
//     neither raises nor lowers it.
//   - Failed loads lower it, as slow loads do.
//   - The long term is 30 s, not a number of samples. When an origin stays slow, that becomes its normal latency, and
//     it gets its permits back.
type limit struct {
	fraction float64 // of the share; 0 means 1
	long     float64 // long-term load time, ns
	from     int64   // start of the sample window
	sum      float64 // sum of the load times in the window, ns
	n, bad   int     // loads in the window, and those that failed
	most     int     // most permits in use in the window
}

const (
	limitTolerance = 2   // how many times slower than the long-term mean loads may be
	limitSmoothing = 0.2 // weight of one step
	limitSamples   = 10  // the minimum for a step
	limitWindow    = int64(100 * time.Millisecond)
	limitMemory    = int64(30 * time.Second) // of the long term
)

// permits returns how many loads of share may run, with floor as the least fraction.
func (l limit) permits(share int, floor float64) int {
	f := l.fraction
	if f == 0 {
		f = 1
	}
	if share <= 0 {
		return 0
	}
	return min(max(int(math.Ceil(max(f, floor)*float64(share)-1e-9)), 1), share)
}

// ended returns the state after a load that took cost, while used permits of share were in use, its own included.
func (l limit) ended(floor float64, share, used int, cost time.Duration, failed bool, now int64) limit {
	if l.fraction == 0 {
		l.fraction = 1
	}
	if l.n == 0 {
		l.from = now
	}
	l.n++
	l.sum += float64(cost)
	l.most = max(l.most, used)
	if failed {
		l.bad++
	}
	if l.n < limitSamples || now-l.from < limitWindow {
		return l
	}
	short, bad := l.sum/float64(l.n), float64(l.bad)/float64(l.n)
	age := min(float64(now-l.from)/float64(limitMemory), 0.5)
	busy := 2*l.most >= l.permits(share, floor)
	l.n, l.bad, l.sum, l.most = 0, 0, 0, 0
	if l.long == 0 {
		l.long = short
	}
	if busy && share > 0 {
		old := l.fraction * float64(share)
		gradient := max(0.5, min(1, limitTolerance*l.long/max(short, 1))) * (1 - bad/2)
		next := old*gradient + math.Sqrt(old)*(1-bad)
		l.fraction = min(max((old+limitSmoothing*(next-old))/float64(share), floor), 1)
	}
	l.long += (short - l.long) * age
	if l.long > 2*short {
		l.long *= 0.95
	}
	return l
}
