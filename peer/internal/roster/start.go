package roster

import (
	"time"

	"github.com/weircache/weir/ring"
)

// A startID identifies one incarnation of a name.
type startID struct {
	name        string
	incarnation uint64
}

// startOf returns which start of its name a member is.
func startOf(m ring.Member) startID { return startID{m.Name, m.Incarnation} }

// A standing is what is known of a start that gossip names:
//
//	state    what led there                                       in the view   counts in Share
//	live     gossip says that it is alive                         the newest    yes; an earlier start only at another address
//	doubted  gossip says that it is dead, see verdict.go          as before     as before
//	leaving  it has said so itself; it never takes that back      no            yes, likewise
//	retired  a later start has said that it leaves                no            yes
//	gone     gossip says that it is dead, or has left             no            yes, as lost, if it was live and no later start is
//
// In most cases an earlier start is dead: the process crashed, started again and left before gossip had noticed the crash.
// But it may also be another living process that has the same name by mistake. So what a later start says of itself only
// retires an earlier one. Any sign of life of the earlier one, its own message or its answer to a probe, takes that back: it
// contradicts.
//
// The methods are the transitions, and pure.
type standing struct {
	leaving bool
	retired bool
	ended   time.Time // since when there is evidence that its process has ended; zero: no evidence, see ended.go
	doubted time.Time // since when gossip says that it is dead without this node believing it; zero: not doubted
}

// A fate is what becomes of a start's record.
type fate int

const (
	stays    fate = iota
	leaves        // it is gone, gracefully
	vanishes      // it is lost
)

// departing reports whether the start owns nothing any more, because it, or a later start of its name, leaves.
func (s standing) departing() bool { return s.leaving || s.retired }

// heard returns the standing after gossip has another message from the start, which says whether it leaves.
func (s standing) heard(leaving bool) standing { return standing{leaving: s.leaving || leaving} }

// spoke returns the standing after the start has sent a message to this node directly.
func (s standing) spoke() standing {
	s.retired = false
	return s
}

// probed returns the standing after the start has answered a probe.
func (s standing) probed() standing {
	s.retired, s.ended = false, time.Time{}
	return s
}

// leaves returns the standing after the start has said that it leaves.
func (s standing) leaves() standing {
	s.leaving = true
	return s
}

// retires returns the standing after a later start of the name has said that it leaves.
func (s standing) retires() standing {
	s.retired = true
	return s
}

// proven returns the standing after evidence that the process ended no later than when.
func (s standing) proven(when time.Time) standing {
	if s.ended.IsZero() {
		s.ended = when
	}
	return s
}

// dead returns the standing, and what becomes of the record, after gossip has declared the start dead. able is how long this
// node has been able to listen.
func (s standing) dead(now time.Time, able time.Duration) (standing, fate) {
	switch lost, _ := verdict(now, now, able); {
	case s.departing():
		return s, leaves
	case lost:
		return s, vanishes
	}
	s.doubted = now
	return s, stays
}

// decide returns what becomes of the record of a doubted start as time passes. If the record stays, that may change after
// again; 0 says that the start is not doubted.
func (s standing) decide(now time.Time, able time.Duration) (f fate, again time.Duration) {
	if s.doubted.IsZero() {
		return stays, 0
	}
	lost, again := verdict(s.doubted, now, able)
	switch {
	case s.departing():
		return leaves, 0
	case lost || !s.ended.IsZero():
		return vanishes, 0
	}
	return stays, again
}
