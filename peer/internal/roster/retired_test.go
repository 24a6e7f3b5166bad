package roster

import (
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// TestRetired checks that a later incarnation that announces its leave retires the earlier ones. Those may be dead or
// alive, so what each of them does next decides.
func TestRetired(t *testing.T) {
	now := time.Now()
	early, late := gossiped("b", 10, 2, nil), gossiped("b", 20, 3, nil)
	goodbye := gossiped("b", 20, 3, func(id *Identity) { id.leaving = true })
	for _, c := range []struct {
		name    string
		then    func(r *table)
		view    string
		divisor int
	}{
		{"nothing is known of it", func(*table) {}, "c", 2},
		{"it is dead", func(r *table) { r.NotifyLeave(early) }, "c", 1},
		{"it answers a probe", func(r *table) { r.NotifyPingComplete(early, time.Millisecond, nil) }, "bc", 2},
		{"it says that it is alive", func(r *table) { r.NotifyMsg(early.Meta) }, "bc", 2},
		{"gossip has another word from it", func(r *table) { r.NotifyUpdate(early) }, "bc", 2},
		{"it answers, and dies", func(r *table) { r.NotifyMsg(early.Meta); r.NotifyLeave(early) }, "c", 2},
		{"it leaves itself", func(r *table) {
			r.NotifyMsg(early.Meta)
			r.NotifyMsg(gossiped("b", 10, 2, func(id *Identity) { id.leaving = true }).Meta)
			r.NotifyMsg(early.Meta)
		}, "c", 2}, // it may have loads until it is gone
		{"it leaves itself, and has gone", func(r *table) {
			r.NotifyMsg(gossiped("b", 10, 2, func(id *Identity) { id.leaving = true }).Meta)
			r.NotifyLeave(early)
		}, "c", 1},
		{"it starts once more", func(r *table) { r.NotifyJoin(gossiped("b", 30, 4, nil)) }, "bc", 3}, // the earlier one may still have loads
	} {
		r := sampleRoster()
		r.flaps.half = time.Minute
		r.NotifyJoin(early)
		r.NotifyJoin(late)
		r.look(now)
		flaps := len(r.flaps.of)
		r.NotifyMsg(goodbye.Meta)
		r.NotifyLeave(late)
		c.then(r)
		s := r.look(now)
		names := ""
		for _, m := range s.members {
			names += m.Name[:1]
		}
		if names != c.view || s.share.Members != c.divisor {
			t.Errorf("%s: the view has %s, want %s; it divides by %d, want %d", c.name, names, c.view, s.share.Members, c.divisor)
		}
		if len(r.flaps.of) != flaps {
			t.Errorf("%s: it flaps", c.name)
		}
	}
}

// TestDepartedStaysAway checks that an incarnation that left gracefully never comes back, whatever packets still say of it.
// One that crashed may come back, and a later incarnation does.
func TestDepartedStaysAway(t *testing.T) {
	r := sampleRoster()
	left, crashed := gossiped("b", 10, 2, nil), gossiped("c", 10, 3, nil)
	r.NotifyJoin(left)
	r.NotifyJoin(crashed)
	r.NotifyMsg(gossiped("b", 10, 2, func(id *Identity) { id.leaving = true }).Meta)
	r.NotifyLeave(left)
	r.NotifyLeave(crashed)
	if err := r.NotifyAlive(left); err == nil {
		t.Error("a start that has left is back")
	}
	for _, n := range []*memberlist.Node{crashed, gossiped("b", 11, 2, nil)} {
		if err := r.NotifyAlive(n); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		}
	}
	for i := range uint64(2 * maxDeparted) {
		n := gossiped("d", 100+i, 4, func(id *Identity) { id.leaving = true })
		r.NotifyJoin(n)
		r.NotifyLeave(n)
	}
	if len(r.departed) != maxDeparted {
		t.Errorf("it remembers %d", len(r.departed))
	}
}
