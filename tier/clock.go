package tier

import (
	"math"
	"time"
)

// A clock counts nanoseconds since it was made. Every time inside a cache is such a
// number; wall-clock time is never compared or sent.
type clock struct {
	base time.Time
	fn   func() time.Time // nil: package time
}

func newClock(fn func() time.Time) clock {
	if fn == nil {
		return clock{base: time.Now()}
	}
	return clock{base: fn(), fn: fn}
}

// now is on the path of every near hit: time.Since reads only the monotonic clock.
func (c *clock) now() int64 {
	if c.fn == nil {
		return int64(time.Since(c.base))
	}
	return int64(c.fn().Sub(c.base))
}

// later is d after at, where the end of time is not passed: deadlines may be far away.
func later(at int64, d time.Duration) int64 {
	if d > 0 && at > math.MaxInt64-int64(d) {
		return math.MaxInt64
	}
	return at + int64(d)
}
