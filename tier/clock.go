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
	ahead func() (int64, bool) // by how much the system's clock that counts through suspension is ahead of the one that does not, ns; false: it has none
	first int64                // that, when the clock was made
}

// sleptLeast is how much the two clocks must differ, in ns: reading them takes time too.
const sleptLeast = int64(10 * time.Millisecond)

func newClock(fn func() time.Time) clock { return newClockOf(fn, suspended) }

func newClockOf(fn func() time.Time, ahead func() (int64, bool)) clock {
	c := clock{fn: fn, slept: new(atomic.Int64), ahead: ahead}
	if c.base = time.Now(); fn != nil {
		c.base = fn()
	}
	c.first, _ = ahead()
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
	if ahead, ok := c.ahead(); ok && ahead-c.first >= c.slept.Load()+sleptLeast {
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
