package roster_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/peer/netsim"
)

// TestLeave checks that a node that leaves is out of all views when AnnounceLeave returns, and known to nobody after Leave.
func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := netsim.New(1)
		a := in(t, world, "a", 1)
		b := in(t, world, "b", 2, seeds("10.0.0.1:7946"))
		b.join()
		c := in(t, world, "c", 3, seeds("10.0.0.1:7946"))
		c.join()
		pause(2 * time.Second)
		if !c.AnnounceLeave() {
			t.Error("there is nobody to tell")
		}
		for _, n := range []*node{a, b, c} {
			if got := n.view(); got != "a@10.0.0.1 b@10.0.0.2" || n.reachable("c") == 0 || !n.HasAddr(netip.MustParseAddr("10.0.0.3")) {
				t.Errorf("the view has %s; start %d of the leaving one may be called", got, n.reachable("c"))
			}
			if n != c && n.divisor() != 3 {
				t.Errorf("it divides by %d although the leaving one may have loads", n.divisor())
			}
		}
		c.Leave()
		pause(time.Second)
		for _, n := range []*node{a, b} {
			if got := len(n.Members()); got != 2 || n.Lost("c") || n.divisor() != 2 || n.HasAddr(netip.MustParseAddr("10.0.0.3")) {
				t.Errorf("it knows %d members and divides by %d; lost: %v", got, n.divisor(), n.Lost("c"))
			}
		}
		for _, n := range []*node{a, b, c} {
			if n.lines("not confirmed")+n.lines("did not reach")+n.lines("level=WARN")+n.lines("level=ERROR") != 0 {
				t.Errorf("nothing is wrong, and the log has %s", n.log)
			}
		}
	})
}

// TestLeaveAlone checks that a node that leaves a cluster of one keeps its view, and has nobody to tell, as after Shutdown.
func TestLeaveAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		changed := r.ViewChanged()
		if r.AnnounceLeave() || r.View().Len() != 1 || r.Changes() != 0 || r.lines("level=ERROR") != 0 {
			t.Errorf("a view of %d members after %d changes; the log has %s", r.View().Len(), r.Changes(), r.log)
		}
		select {
		case <-changed:
			t.Error("the view has changed")
		default:
		}
		world := netsim.New(1)
		a, b := in(t, world, "a", 1), in(t, world, "b", 2, seeds("10.0.0.1:7946"))
		b.join()
		b.Shutdown()
		if b.AnnounceLeave() || a.view() != "a@10.0.0.1 b@10.0.0.2" {
			t.Errorf("after Shutdown; the other one has %s", a.view())
		}
	})
}

// TestNameIsContradicted checks that a node tells the others that it is alive once a later node of its name has gone,
// because they may take the word of that one for its own, and that it does not once it leaves itself.
func TestNameIsContradicted(t *testing.T) {
	const line = "another node with this node's name has left"
	double := gossiped("catalog-1", 1<<40, 9, nil)
	for _, c := range []struct {
		name string
		then func(r *node)
		want int // lines in the log, and messages
	}{
		{"the later one is gone", func(r *node) { r.NotifyJoin(double); r.NotifyLeave(double) }, 1},
		{"an earlier one is gone", func(r *node) {
			n := gossiped("catalog-1", 10, 9, nil)
			r.NotifyJoin(n)
			r.NotifyLeave(n)
		}, 0},
		{"another one is gone", func(r *node) { n := gossiped("x", 1<<40, 9, nil); r.NotifyJoin(n); r.NotifyLeave(n) }, 0},
		{"the later one says that it leaves", func(r *node) { r.NotifyJoin(double); r.NotifyMsg(leaving(double).Meta) }, 1},
		{"one that is not known yet says so", func(r *node) { r.NotifyMsg(leaving(double).Meta) }, 1},
		{"it joins", func(r *node) { r.NotifyMsg(double.Meta) }, 0},
		{"this node itself", func(r *node) { r.NotifyMsg(leaving(gossiped("catalog-1", 0x1234, 1, nil)).Meta) }, 0},
		{"this node leaves", func(r *node) { r.AnnounceLeave(); pause(time.Second); r.sent(""); r.NotifyMsg(leaving(double).Meta) }, 0},
	} {
		bubble(t, func(t *testing.T) {
			r := with(t, 1)
			c.then(r)
			lines := r.lines(line)
			pause(time.Second)
			if told := r.sent("\tcatalog-1"); lines != c.want || (told != nil) != (c.want > 0) {
				t.Errorf("%s: the others are told %q; the log has %s", c.name, told, r.log)
			}
			if got := r.view(); c.want > 0 && got != "b@10.0.0.2 catalog-1@10.0.0.1" {
				t.Errorf("%s: the view has %s", c.name, got)
			}
		})
	}
}

// TestNewsOfTheView checks what the log says of members that are new in the view, and when most of them are lost.
func TestNewsOfTheView(t *testing.T) {
	const joined, cut, back = "a member has joined", "most members are lost", "most members are back"
	bubble(t, func(t *testing.T) {
		r := with(t, 5)
		want := func(what string, j, c, b int) {
			t.Helper()
			if got := [3]int{r.lines(joined), r.lines(cut), r.lines(back)}; got != [3]int{j, c, b} {
				t.Errorf("%s: %v, want %v; the log has %s", what, got, [3]int{j, c, b}, r.log)
			}
		}
		want("five others", 5, 0, 0)
		r.NotifyUpdate(gossiped("b", 10, 2, func(id *roster.Identity) { id.Zone = "east" }))
		want("one has a zone", 5, 0, 0)
		r.NotifyJoin(gossiped("b", 11, 2, nil))
		r.NotifyLeave(gossiped("b", 10, 2, nil))
		want("one has started again", 6, 0, 0)
		for i, name := range []string{"c", "d", "e"} {
			r.NotifyLeave(gossiped(name, 10, byte(3+i), nil))
		}
		want("three of six are lost", 6, 0, 0)
		r.NotifyLeave(gossiped("f", 10, 6, nil))
		want("four of six are lost", 6, 1, 0)
		r.NotifyLeave(gossiped("b", 11, 2, nil))
		want("five of six are lost", 6, 1, 0)
		for i, name := range []string{"c", "d"} {
			r.NotifyJoin(gossiped(name, 10, byte(3+i), nil))
			r.Refresh()
		}
		want("two are back", 8, 1, 1)
	})
}
