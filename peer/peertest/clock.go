package peertest

import (
	"sync"
	"time"
)

// A Clock is the time that one node's cache sees: tier.Config.Now. It may run faster or slower than others, and jump ahead.
// It never goes back. It is safe for concurrent use.
type Clock struct {
	mu    sync.Mutex // guards the rest
	since time.Time  // when rate was set
	shown time.Time  // the reading of the clock at since
	rate  float64
}

// NewClock returns an accurate clock.
func NewClock() *Clock {
	now := time.Now()
	return &Clock{since: now, shown: now, rate: 1}
}

// Now returns the reading of the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now(time.Now())
}

// now is Now at a given moment. The caller holds mu.
func (c *Clock) now(at time.Time) time.Time {
	return c.shown.Add(time.Duration(float64(at.Sub(c.since)) * c.rate))
}

// SetRate makes the clock run at rate seconds per second from now on.
func (c *Clock) SetRate(rate float64) { c.set(rate, 0) }

// Jump sets the clock ahead by d.
func (c *Clock) Jump(d time.Duration) { c.set(0, d) }

// set advances the clock by d and, if rate is above 0, changes its rate.
func (c *Clock) set(rate float64, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.since, c.shown = now, c.now(now).Add(max(d, 0))
	if rate > 0 {
		c.rate = rate
	}
}
