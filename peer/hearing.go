package peer

import (
	"sync/atomic"
	"time"
)

// A node that does not get to its own sockets hears nothing of anybody: it has no processor, it was stopped, or ten thousand goroutines
// wait before its readers do. That looks like the death of all the others, at the moment at which the origin can bear it least. The
// evidence is local: the node's own timers come late too. And a peer that does not get to its sockets is silent as a dead one is, but its
// machine still acknowledges what it is sent (acks.go). So silence counts only while this node was able to listen, and opens a breaker only
// if there are no acknowledgements:
//
//	event on a link that owes answers              what the silence counts
//	a byte has come                                nothing any more
//	a tick, and no timer of this node was late     one tick more
//	a tick while the node is hard of hearing       as much as before
//	a tick before the last that the breaker waits for,   as much as before; calls that have waited for half of their
//	while the peer's machine acknowledges                time are told to turn elsewhere
//	the same, for deafMost already                 one tick more: a dead peer must not be waited for for ever
//
// A node is hard of hearing from a timer that came late until hearingAfter later: what came meanwhile still waits to be read.
const (
	// lateAfter is by how much a timer must come late. The garbage collector and a busy processor cost less.
	lateAfter = 50 * time.Millisecond
	// hearingAfter is how long after a late timer the node takes to have heard what came before.
	hearingAfter = 250 * time.Millisecond
	// deafMost is for how long at the most silence does not count.
	deafMost = 4 * time.Second
)

// A silence is what has not been heard on a link. Its methods are pure.
type silence struct {
	ticks int       // counted
	since time.Time // of the first tick without a byte
}

// more is after another tick without a byte. counted reports whether it counts.
func (s silence) more(now time.Time, able bool) (next silence, counted bool) {
	if s.since.IsZero() {
		s.since = now
	}
	if counted = able || now.Sub(s.since) >= deafMost; counted {
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
