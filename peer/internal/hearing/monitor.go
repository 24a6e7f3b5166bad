package hearing

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

const (
	// lateAfter is how late a timer must come to count as late.
	lateAfter = 50 * time.Millisecond
	// watchEvery is how often Watch checks whether its timers come late.
	watchEvery = 100 * time.Millisecond
)

// CatchUp is how long after a late timer the node is assumed to have read what arrived before.
const CatchUp = 250 * time.Millisecond

// A Monitor tells whether this node is able to listen.
type Monitor struct {
	base  time.Time
	until atomic.Int64 // hard of hearing until then, ns since base; 0: never was
	lates atomic.Int64 // timers that came late
}

// New returns a Monitor of a node that starts at now and is able to listen.
func New(now time.Time) *Monitor { return &Monitor{base: now} }

// Watch checks whether timers come late, until ctx ends.
func (m *Monitor) Watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for last := time.Now(); ; {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		m.Fired(last.Add(watchEvery), now)
		last = now
	}
}

// Fired records that a timer that was due at due has fired at now.
func (m *Monitor) Fired(due, now time.Time) {
	if now.Sub(due) < lateAfter {
		return
	}
	m.lates.Add(1)
	until := int64(now.Sub(m.base) + CatchUp)
	for old := m.until.Load(); old < until && !m.until.CompareAndSwap(old, until); old = m.until.Load() {
	}
}

// Able reports whether the node was able to listen until now.
func (m *Monitor) Able(now time.Time) bool { return int64(now.Sub(m.base)) >= m.until.Load() }

// AbleFor returns for how long the node has been able to listen. If it always was, that is the longest duration there
// is.
func (m *Monitor) AbleFor(now time.Time) time.Duration {
	until := m.until.Load()
	if until == 0 {
		return math.MaxInt64
	}
	return max(now.Sub(m.base)-time.Duration(until), 0)
}

// Late returns how many timers have come late.
func (m *Monitor) Late() int64 { return m.lates.Load() }
