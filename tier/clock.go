package tier

import (
	"math"
	"sync/atomic"
	"time"
)

// A clock counts nanoseconds since it was made. Every time inside a cache is such a
// number; wall-clock time is never compared or sent.
//
// It counts while the machine is suspended, as a laptop or a virtual machine of which a snapshot is taken: copies age
// meanwhile, and their hard expiry holds after the machine has resumed. Go's monotonic clock stands still then. Where the
// system has a clock that does not, on Linux, the difference of the two is read at each tick, and added from then on: so for
// at most sweepEvery after a resume the clock is late. Elsewhere it is late by the time that the machine was suspended.
type clock struct {
	base  time.Time
	fn    func() time.Time     // nil: package time
	slept *atomic.Int64        // ns that the machine was suspended, as far as ticks have seen; it never falls
	ahead func() (int64, bool) // for how long the machine was suspended since it was started, ns; false: that is not known
	first int64                // that, when it was first known
	known bool                 // first counts
}

// sleptLeast is the shortest suspension that counts, in ns: the system's clocks are not read at the same moment.
const sleptLeast = int64(10 * time.Millisecond)

func newClock(fn func() time.Time) clock { return newClockOf(fn, suspended) }

func newClockOf(fn func() time.Time, ahead func() (int64, bool)) clock {
	c := clock{fn: fn, slept: new(atomic.Int64), ahead: ahead}
	if c.base = time.Now(); fn != nil {
		c.base = fn()
	}
	c.first, c.known = ahead()
	return c
}

// now is on the path of every near hit: time.Since reads only the monotonic clock.
func (c *clock) now() int64 {
	if c.fn == nil {
		return int64(time.Since(c.base)) + c.slept.Load()
	}
	return int64(c.fn().Sub(c.base)) + c.slept.Load()
}

// tick looks whether the machine was suspended. One goroutine calls it.
func (c *clock) tick() {
	ahead, ok := c.ahead()
	switch {
	case !ok:
	case !c.known:
		c.first, c.known = ahead, true
	case ahead-c.first >= c.slept.Load()+sleptLeast:
		c.slept.Store(ahead - c.first)
	}
}

// later is d after at, where the end of time is not passed: deadlines may be far away.
func later(at int64, d time.Duration) int64 {
	if d > 0 && at > math.MaxInt64-int64(d) {
		return math.MaxInt64
	}
	return at + int64(d)
}
