package roster_test

import (
	"fmt"
	"testing"

	"github.com/hashicorp/memberlist"

	"github.com/weircache/weir/peer/internal/roster"
)

func TestNewestIncarnationWins(t *testing.T) {
	const warning = "two live members have one name"
	older, newer := gossiped("b", 10, 2, nil), gossiped("b", 11, 3, nil)
	for _, order := range [][]*memberlist.Node{{older, newer}, {newer, older}} {
		bubble(t, func(t *testing.T) {
			r := start(t)
			for _, n := range order {
				r.NotifyJoin(n)
			}
			if got := r.view(); got != "b@10.0.0.3 catalog-1@10.0.0.1" {
				t.Errorf("the view has %s", got)
			}
			if n := r.lines(warning); n != 1 || r.lines(warning) != 1 {
				t.Errorf("want one line in the log, have %s", r.log)
			}
			r.NotifyLeave(older) // noticed late
			if n := r.divisor(); len(r.lost()) != 0 || n != 2 {
				t.Errorf("an earlier start counts as lost: %v; it divides by %d", r.lost(), n)
			}
		})
	}
}

// TestLaterStartIsLost checks that a second process with a name keeps its share when it is lost, whatever becomes of the
// first one.
func TestLaterStartIsLost(t *testing.T) {
	first, second := gossiped("b", 10, 2, nil), gossiped("b", 11, 3, nil)
	for name, c := range map[string]struct {
		then func(r *node)
		want int // members that the caps are divided among: this one, the second, and the first if it counts
	}{
		"the first lives":      {func(*node) {}, 3},
		"the first is updated": {func(r *node) { r.NotifyUpdate(first) }, 3},
		"the first is lost":    {func(r *node) { r.NotifyLeave(first) }, 3},
		"the first leaves": {func(r *node) {
			r.NotifyUpdate(leaving(first))
			r.NotifyLeave(first)
		}, 2},
		"the second is back and leaves": {func(r *node) {
			r.NotifyJoin(leaving(second))
			r.NotifyLeave(second)
		}, 2},
		"a third starts":       {func(r *node) { r.NotifyJoin(gossiped("b", 12, 4, nil)) }, 3},
		"another member tells": {func(r *node) { r.MergeRemoteState(r.LocalState(true), true) }, 3},
	} {
		bubble(t, func(t *testing.T) {
			r := start(t)
			r.NotifyJoin(first)
			r.NotifyJoin(second)
			r.Refresh()
			r.NotifyLeave(second)
			c.then(r)
			if n := r.divisor(); n != c.want {
				t.Errorf("%s: it divides by %d, want %d; lost: %v", name, n, c.want, r.lost())
			}
			other := start(t) // a member that joins learns of it
			other.NotifyJoin(first)
			other.MergeRemoteState(r.LocalState(true), true)
			if n := other.divisor(); name == "the first lives" && n != c.want {
				t.Errorf("%s: a joining member divides by %d, want %d", name, n, c.want)
			}
		})
	}
}

func TestNameTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		r.NotifyJoin(gossiped("catalog-1", 1<<40, 2, nil))
		if got := r.view(); !r.Superseded() || got != "catalog-1@10.0.0.2" || r.lines("level=ERROR") != 1 {
			t.Errorf("superseded %v, the view has %s, the log %s", r.Superseded(), got, r.log)
		}
	})
}

// TestEarlierStartHasAShare checks that two processes with one name that both load each have a share. An earlier
// incarnation at the address of the later one has ended.
func TestEarlierStartHasAShare(t *testing.T) {
	for name, c := range map[string]struct {
		first, second *memberlist.Node
		members, rank int
		earlier       bool // an earlier start of this node, catalog-1 started at 0x1234, may be alive
	}{
		"its own, taken":              {gossiped("catalog-1", 1<<40, 2, nil), nil, 2, 0, false},
		"its own, earlier":            {gossiped("catalog-1", 5, 2, nil), nil, 2, 1, true},
		"its own, at its address":     {gossiped("catalog-1", 5, 1, nil), nil, 1, 0, false},
		"another's":                   {gossiped("b", 5, 2, nil), gossiped("b", 200, 3, nil), 3, 2, false},
		"another's, at one address":   {gossiped("b", 5, 2, nil), gossiped("b", 200, 2, nil), 2, 1, false},
		"another's, the other leaves": {gossiped("b", 5, 2, nil), leaving(gossiped("b", 200, 3, nil)), 3, 2, false},
	} {
		bubble(t, func(t *testing.T) {
			r := start(t)
			r.NotifyJoin(c.first)
			if c.second != nil {
				r.NotifyJoin(c.second)
			}
			r.divisor()
			if got, want := r.Share(), (roster.Share{Members: c.members, Rank: c.rank}); got != want || r.EarlierStart() != c.earlier {
				t.Errorf("%s: share %+v, want %+v; an earlier start: %v", name, got, want, r.EarlierStart())
			}
		})
	}
}

func TestRefusedMembers(t *testing.T) {
	for name, change := range map[string]func(*roster.Identity){
		"cluster":   func(id *roster.Identity) { id.Cluster = "other" },
		"protocol":  func(id *roster.Identity) { id.Protocol++ },
		"version":   func(id *roster.Identity) { id.RingVersion++ },
		"placement": func(id *roster.Identity) { id.Placement++ },
	} {
		bubble(t, func(t *testing.T) {
			r := start(t)
			n := gossiped("b", 10, 2, change)
			r.NotifyJoin(n)
			r.NotifyUpdate(n)
			if got := r.view(); r.View().Len() != 1 || r.lines("a member is kept out of the view") != 1 {
				t.Errorf("%s: the view has %s, the log %s", name, got, r.log)
			}
			r.NotifyLeave(n)
			if lost := r.lost(); len(lost) != 0 {
				t.Errorf("%s: it counts as lost", name)
			}
		})
	}
	bubble(t, func(t *testing.T) {
		r := start(t)
		liar := gossiped("b", 10, 2, nil)
		liar.Name = "c/b"
		r.NotifyJoin(liar)
		r.NotifyJoin(&memberlist.Node{Name: "d/1", Meta: []byte("garbage")})
		if got := r.view(); r.View().Len() != 1 {
			t.Errorf("the view has %s", got)
		}
	})
}

func TestLostMembersAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		// One member crashes repeatedly and comes back under a new name each time.
		for i := range 100 {
			n := gossiped(fmt.Sprintf("pod-%d", i), 10, byte(i+2), nil)
			r.NotifyJoin(n)
			r.Refresh()
			r.NotifyLeave(n)
		}
		if n := r.divisor(); n != 3 { // this one, and as many lost ones as were ever live
			t.Errorf("it divides by %d", n)
		}
	})
}

func TestLostMemberWhoseAddressIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		n := gossiped("b", 10, 2, nil)
		r.NotifyJoin(n)
		r.Refresh()
		r.NotifyLeave(n)
		r.NotifyJoin(gossiped("c", 11, 2, nil))
		if n := r.divisor(); n != 3 {
			t.Errorf("it divides by %d while the origin may still work for it", n)
		}
		pause(endedGrace + settleTime) // it looks again without being told to
		if n := r.Share().Members; n != 2 {
			t.Errorf("it divides by %d", n)
		}
	})
}

// TestEarlierStartProvesNoEnd checks that a start that gossip has at the address of a lost one proves nothing if it is not
// the later one of the two: then it has ended itself, and gossip has not noticed yet.
func TestEarlierStartProvesNoEnd(t *testing.T) {
	for _, n := range []*memberlist.Node{gossiped("b", 10, 2, nil), gossiped("c", 10, 2, nil), gossiped("c", 11, 2, nil)} {
		bubble(t, func(t *testing.T) {
			r := start(t)
			r.NotifyJoin(n)
			r.Refresh()
			later := gossiped("b", 11, 2, nil)
			r.NotifyJoin(later)
			r.Refresh()
			r.NotifyLeave(later)
			if got := r.unproven(); got != "b" {
				t.Errorf("%s was there before; may be alive: %q", n.Name, got)
			}
			r.NotifyJoin(gossiped("d", 12, 2, nil))
			if got := r.unproven(); got != "" {
				t.Errorf("a later one is there; may be alive: %q", got)
			}
		})
	}
}

func TestAnnouncements(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		n := gossiped("b", 10, 2, nil)
		r.NotifyMsg(n.Meta)
		if members := r.divisor(); members != 2 || r.View().Len() != 1 {
			t.Errorf("an announced member: it divides by %d, the view has %s", members, r.view())
		}
		pause(2 * expectTime) // it looks again without being told to
		if members := r.Share().Members; members != 1 {
			t.Errorf("an announced member that never came: it divides by %d", members)
		}
		r.NotifyJoin(n)
		r.NotifyMsg(leaving(n).Meta)
		r.NotifyUpdate(n) // an older message arrives late
		if got := r.view(); r.View().Len() != 1 || r.reachable("b") != 10 {
			t.Errorf("a leaving member: the view has %s, start %d of it may be called", got, r.reachable("b"))
		}
		r.NotifyLeave(n)
		if members := r.divisor(); members != 1 || r.reachable("b") != 0 {
			t.Errorf("a member that left: it divides by %d", members)
		}
		r.NotifyMsg([]byte("garbage"))
		r.NotifyMsg(nil)
	})
}

func TestLostMembersAreHandedOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := start(t), start(t, named("z", 9))
		n := gossiped("b", 10, 2, nil)
		a.NotifyJoin(n)
		a.Refresh()
		a.NotifyLeave(n)
		state := a.LocalState(true)
		b.MergeRemoteState(state, false)
		if len(b.lost()) != 0 {
			t.Error("taken over without a join")
		}
		b.MergeRemoteState(state, true)
		if n := b.divisor(); n != 2 {
			t.Errorf("it divides by %d", n)
		}
		other := start(t, named("y", 8))
		for cut := range state {
			other.MergeRemoteState(state[:cut], true)
		}
		many := []byte{1}
		for i := range 1000 {
			many = append(many, fmt.Sprintf("\x04%04d", i)...)
		}
		b.MergeRemoteState(many, true)
		lost := 0
		for _, m := range b.Members() { // before it has looked at them
			if m.State == roster.Lost {
				lost++
			}
		}
		if lost != 2 { // as many as it has seen at once, and as it knows now
			t.Errorf("%d lost members were taken over", lost)
		}
	})
}
