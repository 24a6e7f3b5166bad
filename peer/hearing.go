package peer

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// A node that does not get to its own sockets hears nothing of anybody: it has no processor, it was stopped, or ten thousand goroutines
// wait before its readers do. That looks like the death of all the others, at the moment at which the origin can bear it least. The
// evidence is local: the node's own timers come late too. And a peer that does not get to its sockets is silent as a dead one is, but its
// machine still acknowledges what it is sent (acks.go). So silence counts only while this node was able to listen, and opens a breaker only
// if there are no acknowledgements:
//
//	event on a link that owes answers                     what the silence counts
//	a byte has come                                       nothing any more
//	a tick, and no timer of this node was late            one tick more
//	the same, but the last tick that the breaker          as much as before; calls that have waited for half of their
//	waits for, while the peer's machine acknowledges      time are told to turn elsewhere
//	the same, after so many that they come to deafMost    one tick more: a stopped peer must not be waited for for ever
//	a tick while the node is hard of hearing              as much as before
//	the same, deafMost after the silence began, or        one tick more: a dead peer must not be waited for for ever
//	starvedMost while the peer's machine acknowledges
//
// A node is hard of hearing from a timer that came late until hearingAfter later: what came meanwhile still waits to be read.
const (
	// lateAfter is by how much a timer must come late. The garbage collector and a busy processor cost less.
	lateAfter = 50 * time.Millisecond
	// hearingAfter is how long after a late timer the node takes to have heard what came before.
	hearingAfter = 250 * time.Millisecond
	// listenEvery is how often the node looks whether its timers come late, also while no call waits.
	listenEvery = 100 * time.Millisecond
	// deafMost is for how long at the most silence does not count.
	deafMost = 4 * time.Second
	// starvedMost is the same while the peer's machine acknowledges.
	starvedMost = 30 * time.Second
)

// A silence is what has not been heard on a link. Its methods are pure.
type silence struct {
	ticks  int       // counted
	spared int       // not counted, although this node could listen
	since  time.Time // of the first tick without a byte
}

// needsAck reports whether the next tick depends on whether the peer's machine acknowledges.
func (s silence) needsAck(now time.Time, able bool) bool {
	if able {
		return s.ticks == silentAfter-1
	}
	return !s.since.IsZero() && now.Sub(s.since) >= deafMost
}

// more returns the silence after another tick without a byte, and whether that tick counts. able: this node was able to listen. acked: the
// peer's machine acknowledges; it is false unless needsAck.
func (s silence) more(now time.Time, able, acked bool) (next silence, counted bool) {
	if s.since.IsZero() {
		s.since = now
	}
	switch since := now.Sub(s.since); {
	case able && acked:
		s.spared++
		counted = time.Duration(s.spared)*linkTick >= deafMost
	case able:
		counted = true
	case acked:
		counted = since >= starvedMost
	default:
		counted = since >= deafMost
	}
	if counted {
		s.ticks++
	}
	return s, counted
}

// hearing is whether this node is able to listen, for all its links: the evidence of one timer holds for all. It is safe for concurrent
// use.
type hearing struct {
	base  time.Time
	until atomic.Int64 // hard of hearing until then, ns since base
	lates atomic.Int64 // timers that came late
}

// watch looks whether timers come late, until ctx ends.
func (h *hearing) watch(ctx context.Context) {
	t := time.NewTicker(listenEvery)
	defer t.Stop()
	for last := time.Now(); ; {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		h.fired(last.Add(listenEvery), now)
		last = now
	}
}

// fired notes that a timer has fired at now that was due.
func (h *hearing) fired(due, now time.Time) {
	if now.Sub(due) < lateAfter {
		return
	}
	h.lates.Add(1)
	until := int64(now.Sub(h.base) + hearingAfter)
	for old := h.until.Load(); old < until && !h.until.CompareAndSwap(old, until); old = h.until.Load() {
	}
}

// able reports whether the node was able to listen until now.
func (h *hearing) able(now time.Time) bool { return int64(now.Sub(h.base)) >= h.until.Load() }

// ableFor is for how long the node has been able to listen.
func (h *hearing) ableFor(now time.Time) time.Duration {
	until := h.until.Load()
	if until == 0 { // always
		return math.MaxInt64
	}
	return max(now.Sub(h.base)-time.Duration(until), 0)
}
