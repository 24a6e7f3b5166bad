package roster

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossiped returns a member as memberlist reports it.
func gossiped(name string, incarnation uint64, host byte, change func(*Identity)) *memberlist.Node {
	id := sample()
	id.Name, id.Incarnation = name, incarnation
	if change != nil {
		change(&id)
	}
	return &memberlist.Node{Name: id.GossipName(), Addr: net.IPv4(10, 0, 0, host), Port: 7946, Meta: id.Append(nil)}
}

func sampleRoster() *table {
	id := sample()
	return newTable(id, "10.0.0.1:7946", 1, MaxMembers)
}

func seen(s sight) string {
	var out []string
	for _, m := range s.members {
		out = append(out, fmt.Sprintf("%s@%s", m.Name, strings.TrimSuffix(m.Addr, ":7946")))
	}
	return strings.Join(out, " ")
}

func TestNewestIncarnationWins(t *testing.T) {
	older, newer := gossiped("b", 10, 2, nil), gossiped("b", 11, 3, nil)
	for _, order := range [][]*memberlist.Node{{older, newer}, {newer, older}} {
		r := sampleRoster()
		for _, n := range order {
			r.NotifyJoin(n)
		}
		s := r.look(time.Now())
		if got := seen(s); got != "b@10.0.0.3 catalog-1@10.0.0.1" {
			t.Errorf("the view has %s", got)
		}
		if len(s.notices) != 1 || len(r.look(time.Now()).notices) != 0 {
			t.Errorf("want one line in the log, have %v", s.notices)
		}
		r.NotifyLeave(older) // noticed late
		if s := r.look(time.Now()); len(r.losses.lost) != 0 || s.share.Members != 2 {
			t.Errorf("an earlier start counts as lost: %v", r.losses.lost)
		}
	}
}

// TestLaterStartIsLost checks that a second process with a name keeps its share when it is lost, whatever becomes of the
// first one.
func TestLaterStartIsLost(t *testing.T) {
	first, second := gossiped("b", 10, 2, nil), gossiped("b", 11, 3, nil)
	for name, c := range map[string]struct {
		then func(r *table)
		want int // members that the caps are divided among: this one, the second, and the first if it counts
	}{
		"the first lives":      {func(*table) {}, 3},
		"the first is updated": {func(r *table) { r.NotifyUpdate(first) }, 3},
		"the first is lost":    {func(r *table) { r.NotifyLeave(first) }, 3},
		"the first leaves": {func(r *table) {
			r.NotifyUpdate(gossiped("b", 10, 2, func(id *Identity) { id.leaving = true }))
			r.NotifyLeave(first)
		}, 2},
		"the second is back and leaves": {func(r *table) {
			r.NotifyJoin(gossiped("b", 11, 3, func(id *Identity) { id.leaving = true }))
			r.NotifyLeave(second)
		}, 2},
		"a third starts":       {func(r *table) { r.NotifyJoin(gossiped("b", 12, 4, nil)) }, 3},
		"another member tells": {func(r *table) { r.MergeRemoteState(r.LocalState(true), true) }, 3},
	} {
		r := sampleRoster()
		r.NotifyJoin(first)
		r.NotifyJoin(second)
		r.look(time.Now())
		r.NotifyLeave(second)
		if c.then(r); r.look(time.Now()).share.Members != c.want {
			t.Errorf("%s: it divides by %d, want %d; lost: %v", name, r.look(time.Now()).share.Members, c.want, r.losses.lost)
		}
		other := sampleRoster() // a member that joins learns of it
		other.NotifyJoin(first)
		if other.MergeRemoteState(r.LocalState(true), true); name == "the first lives" && other.look(time.Now()).share.Members != c.want {
			t.Errorf("%s: a joining member divides by %d, want %d", name, other.look(time.Now()).share.Members, c.want)
		}
	}
}

func TestNameTaken(t *testing.T) {
	r := sampleRoster()
	r.NotifyJoin(gossiped("catalog-1", 1<<40, 2, nil))
	s := r.look(time.Now())
	if !s.superseded || seen(s) != "catalog-1@10.0.0.2" || len(s.notices) != 1 || s.notices[0].level != slog.LevelError {
		t.Errorf("superseded %v, the view has %s, the log %v", s.superseded, seen(s), s.notices)
	}
}

// TestEarlierStartHasAShare checks that two processes with one name that both load each have a share. An earlier
// incarnation at the address of the later one has ended.
func TestEarlierStartHasAShare(t *testing.T) {
	for name, c := range map[string]struct {
		first, second *memberlist.Node
		want          Share
		doubled       bool // this node is catalog-1, started at 0x1234
	}{
		"its own, taken":              {gossiped("catalog-1", 1<<40, 2, nil), nil, Share{2, 0}, false},
		"its own, earlier":            {gossiped("catalog-1", 5, 2, nil), nil, Share{2, 1}, true},
		"its own, at its address":     {gossiped("catalog-1", 5, 1, nil), nil, Share{1, 0}, false},
		"another's":                   {gossiped("b", 5, 2, nil), gossiped("b", 200, 3, nil), Share{3, 2}, false},
		"another's, at one address":   {gossiped("b", 5, 2, nil), gossiped("b", 200, 2, nil), Share{2, 1}, false},
		"another's, the other leaves": {gossiped("b", 5, 2, nil), gossiped("b", 200, 3, func(id *Identity) { id.leaving = true }), Share{3, 2}, false},
	} {
		r := sampleRoster()
		r.NotifyJoin(c.first)
		if c.second != nil {
			r.NotifyJoin(c.second)
		}
		if s := r.look(time.Now()); s.share != c.want || s.doubled != c.doubled {
			t.Errorf("%s: share %+v, doubled %v", name, s.share, s.doubled)
		}
	}
}

func TestRefusedMembers(t *testing.T) {
	for name, change := range map[string]func(*Identity){
		"cluster":   func(id *Identity) { id.Cluster = "other" },
		"protocol":  func(id *Identity) { id.Protocol++ },
		"version":   func(id *Identity) { id.RingVersion++ },
		"placement": func(id *Identity) { id.Placement++ },
	} {
		r := sampleRoster()
		n := gossiped("b", 10, 2, change)
		r.NotifyJoin(n)
		r.NotifyUpdate(n)
		s := r.look(time.Now())
		if len(s.members) != 1 || len(s.notices) != 1 {
			t.Errorf("%s: the view has %s, the log %v", name, seen(s), s.notices)
		}
		r.NotifyLeave(n)
		if len(r.losses.lost) != 0 {
			t.Errorf("%s: it counts as lost", name)
		}
	}
	r := sampleRoster()
	liar := gossiped("b", 10, 2, nil)
	liar.Name = "c/b"
	r.NotifyJoin(liar)
	r.NotifyJoin(&memberlist.Node{Name: "d/1", Meta: []byte("garbage")})
	if s := r.look(time.Now()); len(s.members) != 1 {
		t.Errorf("the view has %s", seen(s))
	}
}

func TestLostMembersAreBounded(t *testing.T) {
	r := sampleRoster()
	// One member crashes repeatedly and comes back under a new name each time.
	for i := range 100 {
		n := gossiped(fmt.Sprintf("pod-%d", i), 10, byte(i+2), nil)
		r.NotifyJoin(n)
		r.look(time.Now())
		r.NotifyLeave(n)
	}
	if s := r.look(time.Now()); s.share.Members != 3 { // this one, and as many lost ones as were ever live
		t.Errorf("it divides by %d", s.share.Members)
	}
}

func TestLostMemberWhoseAddressIsTaken(t *testing.T) {
	r := sampleRoster()
	n := gossiped("b", 10, 2, nil)
	r.NotifyJoin(n)
	r.look(time.Now())
	r.NotifyLeave(n)
	now := time.Now()
	r.NotifyJoin(gossiped("c", 11, 2, nil))
	if s := r.look(now); s.share.Members != 3 || s.expire > endedGrace {
		t.Errorf("it divides by %d while the origin may still work for it, and looks again after %v", s.share.Members, s.expire)
	}
	if s := r.look(now.Add(endedGrace)); s.share.Members != 2 {
		t.Errorf("it divides by %d", s.share.Members)
	}
}

func TestAnnouncements(t *testing.T) {
	now := time.Now()
	r := sampleRoster()
	n := gossiped("b", 10, 2, nil)
	r.NotifyMsg(n.Meta)
	s := r.look(now)
	if s.share.Members != 2 || len(s.members) != 1 || s.expire <= 0 {
		t.Errorf("an announced member: it divides by %d, the view has %s", s.share.Members, seen(s))
	}
	if s := r.look(now.Add(2 * expectTime)); s.share.Members != 1 {
		t.Errorf("an announced member that never came: it divides by %d", s.share.Members)
	}
	r.NotifyJoin(n)
	leaving := gossiped("b", 10, 2, func(id *Identity) { id.leaving = true })
	r.NotifyMsg(leaving.Meta)
	r.NotifyUpdate(n) // an older message arrives late
	if s := r.look(now); len(s.members) != 1 || s.reachable["b"] != 10 {
		t.Errorf("a leaving member: the view has %s, reachable are %v", seen(s), s.reachable)
	}
	r.NotifyLeave(n)
	if s := r.look(now); s.share.Members != 1 || s.reachable["b"] != 0 {
		t.Errorf("a member that left: it divides by %d", s.share.Members)
	}
	r.NotifyMsg([]byte("garbage"))
	r.NotifyMsg(nil)
}

func TestLostMembersAreHandedOn(t *testing.T) {
	a, b := sampleRoster(), newTable(func() Identity { id := sample(); id.Name = "z"; return id }(), "10.0.0.9:7946", 1, MaxMembers)
	n := gossiped("b", 10, 2, nil)
	a.NotifyJoin(n)
	a.look(time.Now())
	a.NotifyLeave(n)
	state := a.LocalState(true)
	b.MergeRemoteState(state, false)
	if len(b.losses.lost) != 0 {
		t.Error("taken over without a join")
	}
	b.MergeRemoteState(state, true)
	if s := b.look(time.Now()); s.share.Members != 2 {
		t.Errorf("it divides by %d", s.share.Members)
	}
	for cut := range state {
		sampleRoster().MergeRemoteState(state[:cut], true)
	}
	many := []byte{lostFormat}
	for i := range 1000 {
		many = append(many, fmt.Sprintf("\x04%04d", i)...)
	}
	b.MergeRemoteState(many, true)
	if len(b.losses.lost) > 8 {
		t.Errorf("%d lost members were taken over", len(b.losses.lost))
	}
}

func TestSettling(t *testing.T) {
	now := time.Unix(1000, 0)
	one, three := Share{1, 0}, Share{3, 2}
	s := settling{applied: three, target: three}
	step := func(after time.Duration, target, want Share) {
		t.Helper()
		now = now.Add(after)
		if got, _ := s.observe(target, now); got != want {
			t.Errorf("%v instead of %v", got, want)
		}
	}
	step(0, one, three)                    // a higher share waits
	step(settleTime-1, one, three)         // and still waits
	step(0, Share{2, 0}, three)            // a change restarts the time
	step(settleTime-1, Share{2, 0}, three) //
	step(1, Share{2, 0}, Share{2, 0})      // and then it takes effect
	step(0, Share{5, 4}, Share{5, 4})      // a lower share takes effect at once
	step(0, Share{5, 0}, Share{5, 4})      // an earlier rank waits as well
	step(0, Share{6, 0}, Share{6, 4})      //
	step(settleTime, Share{6, 0}, Share{6, 0})
}
