package roster_test

import (
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// TestRetired checks that a later incarnation that announces its leave retires the earlier ones. Those may be dead or
// alive, so what each of them does next decides.
func TestRetired(t *testing.T) {
	early, late := gossiped("b", 10, 2, nil), gossiped("b", 20, 3, nil)
	for _, c := range []struct {
		name    string
		then    func(r *node)
		view    string
		divisor int
	}{
		{"nothing is known of it", func(*node) {}, "c", 2},
		{"it is dead", func(r *node) { r.NotifyLeave(early) }, "c", 1},
		{"it answers a probe", func(r *node) { r.NotifyPingComplete(early, time.Millisecond, nil) }, "bc", 2},
		{"it says that it is alive", func(r *node) { r.NotifyMsg(early.Meta) }, "bc", 2},
		{"gossip has another word from it", func(r *node) { r.NotifyUpdate(early) }, "bc", 2},
		{"it answers, and dies", func(r *node) { r.NotifyMsg(early.Meta); r.NotifyLeave(early) }, "c", 2},
		{"it leaves itself", func(r *node) {
			r.NotifyMsg(early.Meta)
			r.NotifyMsg(leaving(early).Meta)
			r.NotifyMsg(early.Meta)
		}, "c", 2}, // it may have loads until it is gone
		{"it leaves itself, and has gone", func(r *node) {
			r.NotifyMsg(leaving(early).Meta)
			r.NotifyLeave(early)
		}, "c", 1},
		{"it starts once more", func(r *node) { r.NotifyJoin(gossiped("b", 30, 4, nil)) }, "bc", 3}, // the earlier one may still have loads
	} {
		bubble(t, func(t *testing.T) {
			r := with(t, 0)
			r.NotifyJoin(early)
			r.NotifyJoin(late)
			r.Refresh()
			r.NotifyMsg(leaving(late).Meta)
			r.NotifyLeave(late)
			c.then(r)
			r.Refresh()
			names := ""
			for _, m := range r.View().Members() {
				names += m.Name[:1]
			}
			if n := r.divisor(); names != c.view || n != c.divisor {
				t.Errorf("%s: the view has %s, want %s; it divides by %d, want %d", c.name, names, c.view, n, c.divisor)
			}
			if s := r.resting(); s != "" {
				t.Errorf("%s: %q rests", c.name, s)
			}
		})
	}
}

// TestDepartedStaysAway checks that an incarnation that left gracefully never comes back, whatever packets still say of it.
// One that crashed may come back, and a later incarnation does.
func TestDepartedStaysAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		left, crashed := gossiped("b", 10, 2, nil), gossiped("c", 10, 3, nil)
		r.NotifyJoin(left)
		r.NotifyJoin(crashed)
		r.NotifyMsg(leaving(left).Meta)
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
		for i := range uint64(maxDeparted) { // the memory is bounded
			n := leaving(gossiped("d", 100+i, 4, nil))
			r.NotifyJoin(n)
			r.NotifyLeave(n)
			if err := r.NotifyAlive(left); (err == nil) != (i == maxDeparted-1) {
				t.Fatalf("after %d others have left: %v", i+1, err)
			}
		}
	})
}
