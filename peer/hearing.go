package peer

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// A node that cannot serve its own sockets hears nothing from anyone: it has no processor time, it was stopped, or ten
// thousand goroutines wait ahead of its readers. That looks like the death of all the others, at the moment at which the
// origin can bear it least. The evidence is local: the node's own timers come late as well. A peer that cannot serve its
// sockets is as silent as a dead one, but its machine still acknowledges what it is sent (acks.go). So silence counts only
// while this node was able to listen, and it opens a breaker only if nothing is acknowledged:
//
//	event on a link that owes answers                     effect on the silence count
//	a byte has arrived                                    reset to zero
//	a tick, and no timer of this node was late            one tick more
//	the same, but the last tick that the breaker          unchanged; calls that have waited for half of their time
//	waits for, while the peer's machine acknowledges      are told to turn elsewhere
//	the same, after deafMost worth of such ticks          one tick more: a node must not wait forever for a stopped peer
//	a tick while the node is hard of hearing              unchanged
//	the same, deafMost after the silence began, or        one tick more: a node must not wait forever for a dead peer
//	starvedMost while the peer's machine acknowledges
//
// A node is hard of hearing from a late timer until hearingAfter later, because what arrived meanwhile still waits to be
// read.
const (
	// lateAfter is how late a timer must come to count as late. The garbage collector and a busy processor cost less.
	lateAfter = 50 * time.Millisecond
	// hearingAfter is how long after a late timer the node is assumed to have read what arrived before.
	hearingAfter = 250 * time.Millisecond
	// listenEvery is how often the node checks whether its timers come late, even while no call waits.
	listenEvery = 100 * time.Millisecond
	// deafMost is the longest time for which silence does not count.
	deafMost = 4 * time.Second
	// starvedMost is the same limit while the peer's machine acknowledges.
	starvedMost = 30 * time.Second
)

// A silence tracks how long a link has been silent. Its methods are pure.
type silence struct {
	ticks  int       // counted
	spared int       // not counted, although this node could listen
	since  time.Time // of the first tick without a byte
}

// needsAck reports whether the next tick depends on the acknowledgements of the peer's machine.
func (s silence) needsAck(now time.Time, able bool) bool {
	if able {
		return s.ticks == silentAfter-1
	}
	return !s.since.IsZero() && now.Sub(s.since) >= deafMost
}

// more returns the silence after another tick without a byte, and whether that tick counts. able says that this node was
// able to listen. acked says that the peer's machine acknowledges; it is false unless needsAck.
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

// hearing tells whether this node is able to listen. It serves all links, because the evidence of one timer holds for all.
// It is safe for concurrent use.
type hearing struct {
	base  time.Time
	until atomic.Int64 // hard of hearing until then, ns since base
	lates atomic.Int64 // timers that came late
}

// watch checks whether timers come late, until ctx ends.
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

// fired records that a timer that was due at due has fired at now.
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

// ableFor returns how long the node has been able to listen.
func (h *hearing) ableFor(now time.Time) time.Duration {
	until := h.until.Load()
	if until == 0 { // always
		return math.MaxInt64
	}
	return max(now.Sub(h.base)-time.Duration(until), 0)
}
