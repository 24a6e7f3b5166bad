package tier

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// class says how urgent a fill is; the lower the more urgent.
type class uint8

const (
	classMiss    class = iota // somebody waits and there is no copy
	classStale                // there is a stale copy
	classRefresh              // the copy is still fresh
	classes
)

// governor stands between flights and the origin. It holds the loads of this node to
// its share of the cluster-wide cap.
type governor struct {
	share func() int // this node's permits now; called without mu held
	queue int        // how many may wait

	mu      sync.Mutex // guards the rest
	used    int        // permits held
	peak    int        // the most that were held at once
	waiting int        // over all queues
	queues  [classes]list.List
}

// ticket is one flight's claim on a permit.
type ticket struct {
	class class         // guarded by governor.mu
	elem  *list.Element // guarded by governor.mu; nil: not waiting
	ready chan struct{} // closed when the permit is granted
}

func newGovernor(share func() int, queue int) *governor {
	g := &governor{share: share, queue: queue}
	for i := range g.queues {
		g.queues[i].Init()
	}
	return g
}

// acquire waits for a permit until ctx ends. The error is an *OverloadedError, or
// ctx's cause if that was cancelled.
func (g *governor) acquire(ctx context.Context, t *ticket) error {
	share := g.share()
	g.mu.Lock()
	switch {
	case share <= 0:
		g.mu.Unlock()
		return &OverloadedError{
			Reason:     "this member has no share of Origin.Concurrency: it is below the number of members",
			RetryAfter: time.Second,
		}
	case g.used < share && g.urgent(t.class) == 0:
		g.take()
		g.mu.Unlock()
		return nil
	case g.waiting >= g.queue:
		g.mu.Unlock()
		return &OverloadedError{Reason: "the queue for the origin is full", RetryAfter: time.Second}
	}
	t.ready = make(chan struct{})
	t.elem = g.queues[t.class].PushBack(t)
	g.waiting++
	g.mu.Unlock()

	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.elem == nil { // granted meanwhile
		return nil
	}
	g.queues[t.class].Remove(t.elem)
	t.elem = nil
	g.waiting--
	if err := context.Cause(ctx); err != context.DeadlineExceeded {
		return err
	}
	return &OverloadedError{Reason: "no permit to read the origin came in time", RetryAfter: time.Second}
}

// urgent counts who waits with class c or a more urgent one. The caller holds mu.
func (g *governor) urgent(c class) (n int) {
	for i := range c + 1 {
		n += g.queues[i].Len()
	}
	return n
}

// take counts one more permit held. The caller holds mu.
func (g *governor) take() {
	g.used++
	g.peak = max(g.peak, g.used)
}

// promote makes a waiting ticket as urgent as c.
func (g *governor) promote(t *ticket, c class) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c >= t.class {
		return
	}
	if t.elem != nil {
		g.queues[t.class].Remove(t.elem)
		t.elem = g.queues[c].PushBack(t)
	}
	t.class = c
}

// release gives a permit back once its load has truly returned.
func (g *governor) release() {
	share := g.share()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used--
	g.grant(share)
}

// kick grants what a share that has grown allows.
func (g *governor) kick() {
	share := g.share()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.grant(share)
}

// grant gives free permits to the most urgent, oldest first. The caller holds mu.
func (g *governor) grant(share int) {
	for i := range g.queues {
		for q := &g.queues[i]; g.used < share && q.Len() > 0; {
			t := q.Remove(q.Front()).(*ticket)
			t.elem = nil
			g.waiting--
			g.take()
			close(t.ready)
		}
	}
}

func (g *governor) snapshot() GovernorStats {
	share := g.share()
	g.mu.Lock()
	defer g.mu.Unlock()
	return GovernorStats{Share: share, InUse: g.used, Peak: g.peak, Waiting: g.waiting}
}
