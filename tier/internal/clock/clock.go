package clock

import (
	"math"
	"sync/atomic"
	"time"
)

// A Clock counts nanoseconds since it was made. Its methods are safe for concurrent use, except Tick.
//
// It includes the time during which the machine is suspended, such as a laptop, or a virtual machine that is
// snapshotted: copies age meanwhile, and a hard expiry holds after the machine resumes. Go's monotonic clock stops during
// a suspension. Where the system has a clock that continues, as Linux does, Tick reads the difference between the two and adds it
// to all later readings. A Clock is therefore late after a resume until the next Tick. On other systems
// it is late by the duration of the suspension.
type Clock struct {
	base  time.Time
	fn    func() time.Time     // nil: package time
	slept *atomic.Int64        // total suspension in ns that Tick has seen; it never decreases
	ahead func() (int64, bool) // total suspension in ns since the machine started; false: unknown
	first int64                // the first known result of ahead; only Tick uses it
	known bool                 // first is set; only Tick uses it
}

// SleptLeast is the shortest suspension that counts, in ns. Shorter differences can come from reading the system's two clocks one
// after the other.
const SleptLeast = int64(10 * time.Millisecond)

// New returns a clock that reads fn, or package time if fn is nil.
func New(fn func() time.Time) Clock { return NewWith(fn, Suspended) }

// NewWith is New with another source for the total suspension in ns since the machine started; false means that it is unknown.
func NewWith(fn func() time.Time, ahead func() (int64, bool)) Clock {
	c := Clock{fn: fn, slept: new(atomic.Int64), ahead: ahead}
	if c.base = time.Now(); fn != nil {
		c.base = fn()
	}
	c.first, c.known = ahead()
	return c
}

// Now returns the time. Every near hit calls it, so it reads only the monotonic clock.
func (c *Clock) Now() int64 {
	if c.fn == nil {
		return int64(time.Since(c.base)) + c.slept.Load()
	}
	return int64(c.fn().Sub(c.base)) + c.slept.Load()
}

// Tick checks whether the machine was suspended. Only one goroutine may call it.
func (c *Clock) Tick() {
	ahead, ok := c.ahead()
	switch {
	case !ok:
	case !c.known:
		c.first, c.known = ahead, true
	case ahead-c.first >= c.slept.Load()+SleptLeast:
		c.slept.Store(ahead - c.first)
	}
}

// Later returns at+d, or the largest time if that overflows.
func Later(at int64, d time.Duration) int64 {
	if sum := at + int64(d); d < 0 || sum >= at {
		return sum
	}
	return math.MaxInt64
}
