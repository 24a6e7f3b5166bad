package tier

import "time"

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
