package peer

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// TestRetired checks that a later incarnation that announces its leave retires the earlier ones. Those may be dead or
// alive, so what each of them does next decides.
func TestRetired(t *testing.T) {
	now := time.Now()
	early, late := gossiped("b", 10, 2, nil), gossiped("b", 20, 3, nil)
	goodbye := gossiped("b", 20, 3, func(id *identity) { id.leaving = true })
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
			r.NotifyMsg(gossiped("b", 10, 2, func(id *identity) { id.leaving = true }).Meta)
			r.NotifyMsg(early.Meta)
		}, "c", 2}, // it may have loads until it is gone
		{"it leaves itself, and has gone", func(r *table) {
			r.NotifyMsg(gossiped("b", 10, 2, func(id *identity) { id.leaving = true }).Meta)
			r.NotifyLeave(early)
		}, "c", 1},
		{"it starts once more", func(r *table) { r.NotifyJoin(gossiped("b", 30, 4, nil)) }, "bc", 3}, // the earlier one may still have loads
	} {
		r := sampleRoster()
		r.hold = time.Minute
		r.NotifyJoin(early)
		r.NotifyJoin(late)
		r.look(now)
		flaps := len(r.flaps)
		r.NotifyMsg(goodbye.Meta)
		r.NotifyLeave(late)
		c.then(r)
		s := r.look(now)
		names := ""
		for _, m := range s.members {
			names += m.Name[:1]
		}
		if names != c.view || s.share.members != c.divisor {
			t.Errorf("%s: the view has %s, want %s; it divides by %d, want %d", c.name, names, c.view, s.share.members, c.divisor)
		}
		if len(r.flaps) != flaps {
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
	r.NotifyMsg(gossiped("b", 10, 2, func(id *identity) { id.leaving = true }).Meta)
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
		n := gossiped("d", 100+i, 4, func(id *identity) { id.leaving = true })
		r.NotifyJoin(n)
		r.NotifyLeave(n)
	}
	if len(r.departed) != maxDeparted {
		t.Errorf("it remembers %d", len(r.departed))
	}
}

// TestSecondOfANameLeaves checks that when a second node with a used name leaves gracefully, the first one is back in all
// views at once, the cap was never divided by fewer, and all nodes log what happened.
func TestSecondOfANameLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, logs, first := newMemNet(), new(logBook), new(logBook)
		seeds := []string{"10.0.0.1:7946", "10.0.0.2:7946"}
		n1 := simulated(t, world, 1, Config{Join: seeds, MinMembers: 1, Logger: first.logger()})
		n2 := simulated(t, world, 2, Config{Join: seeds, MinMembers: 1, Logger: logs.logger()})
		n3 := simulated(t, world, 3, Config{Join: seeds, MinMembers: 1})
		awaitNames(t, "n1 n2 n3", n1, n2, n3)
		pause(t.Context(), 3*time.Second)
		double := simulated(t, world, 4, Config{Name: "n1", Join: seeds, MinMembers: 1})
		awaitNames(t, "n1 n2 n3", double)
		pause(t.Context(), 3*time.Second)
		if reason := n1.unready(); !strings.Contains(reason, "has taken this node's name") {
			t.Errorf("the first one is ready, or for another reason not: %q", reason)
		}
		least, left := 3, make(chan struct{})
		go func() {
			defer close(left)
			if err := double.Leave(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		for range 500 {
			pause(t.Context(), 10*time.Millisecond)
			for _, n := range []*Node{n1, n2, n3} {
				members, _ := n.Divisor()
				least = min(least, members)
			}
		}
		<-left
		for _, n := range []*Node{n1, n2, n3} {
			m, ok := n.View().Member("n1")
			if !ok || m.Addr != n1.Addr() || n.View().Len() != 3 {
				t.Errorf("%s sees n1 at %q, and %s", n.Name(), m.Addr, viewNames(n.View()))
			}
			if reason := n.unready(); reason != "" {
				t.Errorf("%s is not ready: %s", n.Name(), reason)
			}
		}
		if least < 3 {
			t.Errorf("for a while caps were divided by %d", least)
		}
		for log, event := range map[*logBook]string{logs: "event=member_contradicts", first: "event=name_released"} {
			if !strings.Contains(log.String(), event) {
				t.Errorf("no %s in the log:\n%s", event, log)
			}
		}
	})
}

// TestViewsThatDiffer checks that a member whose answers show another view for long is reported, and that the node is not
// ready if most members do.
func TestViewsThatDiffer(t *testing.T) {
	view, err := ring.New([]ring.Member{{Name: "a", Addr: "10.0.0.1:1"}, {Name: "b", Addr: "10.0.0.2:1"}, {Name: "c", Addr: "10.0.0.3:1"}, {Name: "d", Addr: "10.0.0.4:1"}}, ring.Config{Partitions: 7})
	if err != nil {
		t.Fatal(err)
	}
	var d differences
	now := time.Now()
	step := func(after time.Duration, long string, news, most bool) {
		t.Helper()
		now = now.Add(after)
		names, isNews, again := d.look(view, now)
		if fmt.Sprint(names) != long || isNews != news || (d.mostly() != nil) != most || (d.count.Load() > 0) != (again > 0) {
			t.Errorf("%v (news %v, most %v, again after %v), want %v (news %v, most %v)", names, isNews, d.mostly(), again, long, news, most)
		}
	}
	step(0, "[]", false, false)
	for _, name := range []string{"b", "c", "gone"} {
		if !d.note(name, false, now) || d.note(name, false, now) {
			t.Error("it is not the first one, or the first one twice")
		}
	}
	step(differLong-1, "[]", false, false)
	d.note("b", false, now)
	step(1, "[]", false, false) // the last answer of b came less than differLong after its first
	d.note("b", false, now)
	step(0, "[b]", true, false)
	step(0, "[b]", false, false)
	d.note("c", false, now)
	step(0, "[b c]", true, true)
	d.note("c", true, now)
	step(0, "[b]", true, false)
	step(differFor+1, "[]", true, false) // no answer from it
	step(0, "[]", false, false)

	three, err := view.Next(view.Members()[:3])
	if err != nil {
		t.Fatal(err)
	}
	var half differences
	half.note("b", false, now)
	half.note("b", false, now.Add(differLong))
	if long, _, _ := half.look(three, now.Add(differLong)); len(long) != 1 || half.mostly() != nil {
		t.Errorf("%v differs, which is half of the others; most: %v", long, half.mostly())
	}
}

// TestNothingIsLeftOfTheDeparted checks that departed members leave no record and no goroutine behind, whatever their names
// and whatever calls still name them.
func TestNothingIsLeftOfTheDeparted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		seeds := []string{"10.0.0.1:7946"}
		n1 := simulated(t, world, 1, Config{Join: seeds})
		n2 := simulated(t, world, 2, Config{Join: seeds})
		awaitNames(t, "n1 n2", n1, n2)
		old := []ring.Member{{}} // a member known only by name from others has no address
		ask := func(m ring.Member) error {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			req := codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 1, Key: []byte("k")}
			var resp codec.Response
			defer resp.Release()
			return n1.Call(ctx, m, &req, &resp)
		}
		settle := func() int {
			for _, m := range old {
				if err := ask(m); err == nil {
					t.Errorf("%s answers", m.Name)
				}
				if slices.ContainsFunc(n1.data.stats(), func(p PeerStats) bool { return p.Name == m.Name }) {
					t.Errorf("a late call has made a record of %s", m.Name)
				}
			}
			pause(t.Context(), 2*time.Minute)
			synctest.Wait()
			return runtime.NumGoroutine()
		}
		before := settle()
		for i := range 12 {
			m := simulated(t, world, 10+i, Config{Name: fmt.Sprintf("pod-%d", i), Join: seeds})
			for _, n := range []*Node{n1, n2} {
				await(t, n, m.Name(), func(v *ring.View) bool { return v.Index(m.Name()) >= 0 })
			}
			is, _ := n1.View().Member(m.Name())
			old = append(old, is)
			if err := ask(is); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				_ = m.Leave(t.Context())
			} else {
				_ = m.Close()
			}
			_ = ask(is) // while it is leaving
			awaitNames(t, "n1 n2", n1, n2)
		}
		after := settle()
		for _, n := range []*Node{n1, n2} {
			if known := n.Members(); len(known) != 2 {
				t.Errorf("%s remembers %+v", n.Name(), known)
			}
			if peers := n.data.stats(); len(peers) > 1 {
				t.Errorf("%s has records of %d members", n.Name(), len(peers))
			}
		}
		if after > before {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", after, before, buf[:runtime.Stack(buf, true)])
		}
	})
}
