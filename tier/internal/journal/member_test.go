package journal_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/journal"
)

// A member of a view that nobody has told the journal of is known when it is asked for.
func TestMemberOfANewView(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.see("n1")
		s.meet()
		s.see("n1", "n2")
		if m := s.Member("n2"); m == nil || m.Name() != "n2" || m != s.Member("n2") || s.Member("n3") != nil || s.Member("n0") != nil {
			t.Errorf("n2 is %v, n3 is %v", m, s.Member("n3"))
		}
		s.expect("it has come into the view", 0, "n2", "exchange")
	}, "n1", "n2")
}

// A member that has left the view is remembered for a minute, for requests to that start of its node.
func TestDeparted(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.meet()
		node := func(incarnation uint64) ring.Member {
			return ring.Member{Name: "n2", Addr: "n2:1", Incarnation: incarnation}
		}
		first := s.Departed(node(1))
		if s.Departed(node(1)) != first {
			t.Error("the same start of the node is another member")
		}
		second := s.Departed(node(2))
		if second == first || s.Departed(node(2)) != second {
			t.Error("another start of the node is the same member")
		}
		s.Departed(ring.Member{Name: "n3", Addr: "n3:1"})
		if s.pass(time.Minute); s.Member("n2") != nil {
			t.Error("it is a member of the view")
		}
		if s.Tick(); s.Departed(node(2)) != second {
			t.Error("forgotten too early")
		}
		s.pass(1)
		if s.Tick(); s.Departed(node(2)) == second {
			t.Error("not forgotten")
		}
	}, "n1")
}

// If another cache has answered under a member's name, the next thing is an exchange with it, if it is in the view.
func TestForget(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.meet()
		m := s.Member("n1")
		w := m.Watermark()
		s.Forget(m, nil)
		s.expect("not its watermark any more", time.Minute, "n1", "")
		s.Forget(m, w)
		if s.expect("forgotten", 0, "n1", "exchange"); m.Watermark() == nil || m.Watermark() == w {
			t.Errorf("the watermark is %v", m.Watermark())
		}
		s.mu.Lock()
		s.actors["n2"] = &actor{incarnation: 102}
		s.mu.Unlock()
		departed := s.Departed(ring.Member{Name: "n2", Addr: "n2:1"})
		if err := s.Exchange(t.Context(), departed); err != nil {
			t.Error(err)
		}
		s.Forget(departed, departed.Watermark())
		s.expect("it has left the view", time.Second, "n2", "exchange")
	}, "n1")
}

// Three members are enough to relay something, and the one that it is for is not one of them.
func TestRelays(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		for _, c := range []struct {
			sees []string
			to   string
			want int
		}{
			{[]string{"n1"}, "n1", 0}, {[]string{"n1", "n2", "n3"}, "n2", 2}, {[]string{"n1", "n2", "n3"}, "n4", 3},
			{[]string{"n1", "n2", "n3", "n4", "n5"}, "n5", 3}, {[]string{"n1", "n2", "n3", "n4", "n5"}, "n6", 3},
		} {
			s.see(c.sees...)
			s.meet()
			through := s.Relays(c.to)
			for _, m := range through {
				if m.Name == c.to || m.Addr == "" {
					t.Errorf("to %s through %+v", c.to, m)
				}
			}
			if len(through) != c.want {
				t.Errorf("of %v, to %s: through %v, want %d", c.sees, c.to, through, c.want)
			}
		}
	}, "n1", "n2", "n3", "n4", "n5")
}

// A member that only others see counts for each wait until no member has named it for 15 seconds, whatever this node's
// view is meanwhile. A wait that it has not confirmed then names it.
func TestMemberOutsideIsForgotten(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.see("n1")
		s.meet()
		s.set("n1", func(a *actor) { a.sees = []string{"n0", "n1", "n3"} })
		s.set("n3", func(a *actor) { a.lost = true })
		s.begin(nil, "a")
		s.pass(10 * time.Second)
		s.begin(nil, "b") // n1 names n3 again
		s.pass(0)
		s.see("n1", "n2")
		s.set("n1", func(a *actor) { a.sees = nil })
		s.ViewChanged()
		w := journal.NewWait()
		s.begin(w, "c")
		failed := make(chan error, 1)
		go func() { failed <- s.Wait(context.Background(), w) }()
		s.pass(15 * time.Second)
		if s.Tick(); s.Member("n3") == nil {
			t.Error("forgotten too early")
		}
		s.pass(1)
		if s.Tick(); s.Member("n3") != nil {
			t.Error("not forgotten")
		}
		err := <-failed
		if u, ok := errors.AsType[*journal.Unconfirmed](err); !ok || !slices.Equal(u.Members, []string{"n3"}) || !errors.Is(err, journal.ErrGone) {
			t.Errorf("the wait ends with %v", err)
		}
		s.pass(time.Second)
		s.Tick()
		if s.expect("forgotten", time.Minute, "n3", ""); s.Member("n1") == nil || s.Member("n2") == nil {
			t.Error("others are forgotten as well")
		}
		s.set("n3", func(a *actor) { a.lost = false })
		s.begin(nil, "d")
		if s.pass(0); s.WaitAll(t.Context()) != nil {
			t.Error("a member that is forgotten still counts")
		}
	}, "n1", "n2", "n3")
}

// A member that leaves and comes back has an exchange. A wait that began before it left names it.
func TestMemberThatLeaves(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.meet()
		s.set("n1", func(a *actor) { a.lost = true })
		w := journal.NewWait()
		s.begin(w, "a")
		s.pass(0)
		s.see("n2")
		s.ViewChanged()
		err := s.Wait(t.Context(), w)
		if u, ok := errors.AsType[*journal.Unconfirmed](err); !ok || fmt.Sprint(u.Members) != "[n1]" || !errors.Is(err, journal.ErrGone) || !errors.Is(err, errDown) {
			t.Errorf("the wait ends with %v", err)
		}
		s.pass(time.Second)
		s.expect("it has left", time.Minute, "n1", "")
		s.set("n1", func(a *actor) { a.lost = false })
		s.see("n1", "n2")
		s.ViewChanged()
		s.expect("it has come back", 0, "n1", "exchange, [1]")
		if s.Begin(t.Context(), nil, 0, journal.Part{Scope: codec.ScopeAll, Names: []string{""}}); s.WaitAll(t.Context()) != nil {
			t.Error("a wait that began after it came back fails")
		}
	}, "n1", "n2")
}
