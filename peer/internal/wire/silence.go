package wire

import "time"

// Silence of a peer that owes answers counts only while this node is able to listen (package hearing), and it opens a
// breaker only if the peer's machine acknowledges nothing. A peer that cannot serve its sockets is as silent as a dead one,
// but its machine still acknowledges what it is sent (acks.go):
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
const (
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

// afterTick returns the silence after another tick without a byte, and whether that tick counts. able says that this node
// was able to listen. acked says that the peer's machine acknowledges; it is false unless needsAck.
func (s silence) afterTick(now time.Time, able, acked bool) (next silence, counted bool) {
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
