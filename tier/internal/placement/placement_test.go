package placement_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// start says when the members of a view have started.
type start bool

const (
	sameAge     start = false
	eldestFirst start = true
)

func viewOf(t *testing.T, s start, names ...string) *ring.View {
	t.Helper()
	var members []ring.Member
	for i, name := range names {
		m := ring.Member{Name: name, Addr: name + ":1"}
		if s == eldestFirst {
			m.Incarnation = uint64(i + 1)
		}
		members = append(members, m)
	}
	return newView(t, members)
}

func inZones(t *testing.T, zones map[string]string) *ring.View {
	t.Helper()
	var members []ring.Member
	for _, name := range slices.Sorted(maps.Keys(zones)) {
		members = append(members, ring.Member{Name: name, Addr: name + ":1", Zone: zones[name]})
	}
	return newView(t, members)
}

func newView(t *testing.T, members []ring.Member) *ring.View {
	t.Helper()
	v, err := ring.New(members, ring.Config{Partitions: 61})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// ownedKey returns the nth key that the named member owns.
func ownedKey(v *ring.View, owner string, nth int) string {
	for i := 0; ; i++ {
		if k := fmt.Sprintf("k%d", i); v.Owner(k).Name == owner {
			if nth--; nth < 0 {
				return k
			}
		}
	}
}

// countOlder returns for how many keys there is an older owner to ask.
func countOlder(h *placement.History) (n int) {
	for i := range 1000 {
		if h.Older(ring.Hash(fmt.Sprint(i)), 1).Found() {
			n++
		}
	}
	return n
}

// Members that have started together have no keys of one another. The member that had a key before all of them is
// asked, in whatever order they came into the views. If a key has moved twice, the owner before the previous one is
// asked as well.
func TestOwnerBeforeTheNewcomers(t *testing.T) {
	const long = 10 * uint64(2*time.Minute)
	at := func(started map[string]uint64) *ring.View {
		var members []ring.Member
		for name, incarnation := range started {
			members = append(members, ring.Member{Name: name, Addr: "10.0.0.1:1", Incarnation: incarnation})
		}
		v, err := ring.New(members, ring.Config{Partitions: 97})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before := at(map[string]uint64{"n0": 1, "n1": 2})
	with := map[string]uint64{"n0": 1, "n1": 2, "n2": long, "n3": long + 5}
	for _, self := range []string{"n2", "n3"} {
		for name, views := range map[string][]*ring.View{
			"both at once": {at(with)},
			"one by one":   {at(map[string]uint64{"n0": 1, "n1": 2, self: with[self]}), at(with)},
		} {
			h := placement.History{Self: self}
			for i, v := range views {
				h.Observe(v, int64(i))
			}
			now := views[len(views)-1]
			for p := range now.Partitions() {
				if now.OwnerOf(p).Name != self {
					continue
				}
				key := fmt.Sprint(p)
				for i := 0; now.Partition(key) != p; i++ {
					key = fmt.Sprint(p, " ", i)
				}
				first, older := h.Previous(key, ring.Hash(key), 2), h.Older(ring.Hash(key), 2)
				if had := before.OwnerOf(p).Name; (!first.Found() || first.To.Name != had) && (!older.Found() || older.To.Name != had) {
					t.Errorf("%s, %s: partition %d was %s's; it asks %q, then %q", self, name, p, had, first.To.Name, older.To.Name)
				}
			}
		}
	}
	h := placement.History{Self: "n2"}
	h.Observe(at(map[string]uint64{"n2": 5, "n3": 6, "n4": 7}), 0) // all of them have just started
	if n := countOlder(&h); n != 0 {
		t.Errorf("nobody was there before, but %d keys have an older owner", n)
	}
	h = placement.History{Self: "n2"}
	h.Observe(at(map[string]uint64{"n0": 1, "n1": 2, "n2": long}), 0)
	if n := countOlder(&h); n != 0 {
		t.Errorf("one member more is asked for %d keys although a single one has come", n)
	}
}

// A restarted member has lost its copies and is not asked. Nor does the eldest member ask one that started later.
func TestPreviousOwnerRestarted(t *testing.T) {
	var h placement.History
	h.Self = "n0"
	v := viewOf(t, eldestFirst, "n1", "n0")
	h.Observe(v, 0)
	key, other := ownedKey(v, "n0", 0), ownedKey(v, "n1", 0)
	if p := h.Previous(key, ring.Hash(key), 1); !p.Found() || p.To.Name != "n1" {
		t.Error("the new member does not ask the member that was there")
	}
	alone := viewOf(t, eldestFirst, "n0")
	h.Observe(alone, 2)
	if p := h.Previous(other, ring.Hash(other), 3); !p.Found() || p.To.Name != "n1" || p.InView {
		t.Error("the member that has gone is not asked")
	}
	h.Observe(v, 4)
	h.Observe(alone, 5)
	again := viewOf(t, eldestFirst, "n0", "n1") // n1 has another incarnation
	h.Observe(again, 6)
	gone := viewOf(t, eldestFirst, "n0")
	h.Observe(gone, 7)
	if p := h.Previous(other, ring.Hash(other), 8); !p.Found() || p.To.Incarnation != 2 || p.InView {
		t.Errorf("%+v", p)
	}
	if p := h.Previous(other, ring.Hash(other), 8+int64(time.Hour)); p.Found() {
		t.Error("asked for ever")
	}
	h.Observe(again, 9)
	resting := newView(t, []ring.Member{{Name: "n0", Addr: "n0:1", Incarnation: 1}, {Name: "n1", Addr: "n1:1", Incarnation: 2, Resting: true}})
	h.Observe(resting, 10)
	if p := h.Previous(other, ring.Hash(other), 11); !p.Found() || p.To.Incarnation != 2 || !p.InView {
		t.Errorf("a member that rests is not asked: %+v", p)
	}
	restarted := newView(t, []ring.Member{{Name: "n0", Addr: "n0:1", Incarnation: 1}, {Name: "n1", Addr: "n1:1", Incarnation: 3, Resting: true}})
	h.Observe(restarted, 12)
	if p := h.Previous(other, ring.Hash(other), 13); p.Found() || !p.Lost {
		t.Errorf("a member that has restarted is asked: %+v", p)
	}
	h = placement.History{Self: "n0"}
	h.Observe(v, 0) // n1 was there first
	h.Observe(newView(t, []ring.Member{{Name: "n0", Addr: "n0:1", Incarnation: 2}, {Name: "n1", Addr: "n1:1", Incarnation: 3}}), 1)
	if p := h.Previous(key, ring.Hash(key), 2); p.Found() || !p.Lost {
		t.Errorf("a member that was there first and has restarted is asked: %+v", p)
	}
	h = placement.History{Self: "n0"}
	h.Observe(again, 0)
	if p := h.Previous(key, ring.Hash(key), 1); p.Found() {
		t.Error("the eldest asks")
	}
}

// The stand-in owner is remembered for a minute, for partitions that a lost member owned and that are this node's
// now.
func TestStandInRemembered(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		h := placement.History{Self: "n0"}
		old := inZones(t, map[string]string{"n0": "a", "n1": "a", "n2": "b", "n3": "b"})
		now := inZones(t, map[string]string{"n0": "a", "n2": "b", "n3": "b"})
		back := inZones(t, map[string]string{"n0": "a", "n1": "a", "n2": "b", "n3": "b", "n4": "a"})
		h.Observe(old, 1)
		h.Observe(now, 2)
		asked := 0
		var byN2 []string // keys for which n2 was the stand-in owner
		for p := range old.Partitions() {
			key := ""
			for i := 0; key == "" || old.Partition(key) != p; i++ {
				key = fmt.Sprintf("k%d", i)
			}
			want := ""
			if next, _ := old.Successor(key); old.Owner(key).Name == "n1" && now.Owner(key).Name == "n0" && next.Name != "n0" {
				want = next.Name
				asked++
				if want == "n2" {
					byN2 = append(byN2, key)
				}
			}
			if s := h.StandIn(ring.Hash(key), 3); s.To.Name != want || want != "" && !s.InView {
				t.Errorf("%s: %+v, want %q", key, s, want)
			}
			if s := h.StandIn(ring.Hash(key), 3+store.StandInFor); s.Found() {
				t.Errorf("%s: asked for ever: %+v", key, s)
			}
		}
		if asked == 0 || len(byN2) == 0 {
			t.Error("nobody is asked: this test shows nothing")
		}
		h.Observe(inZones(t, map[string]string{"n0": "a", "n3": "b"}), 4)
		for _, key := range byN2 {
			if s := h.StandIn(ring.Hash(key), 5); s.Found() {
				t.Errorf("a stand-in owner that is also lost is asked: %+v", s)
			}
		}
		n4 := placement.History{Self: "n4"}
		n4.Observe(now, 1)
		n4.Observe(back, 2) // it takes partitions from members that are still there
		moved := 0
		for i := range 500 {
			key := fmt.Sprintf("k%d", i)
			p := n4.Previous(key, ring.Hash(key), 3)
			if p.Found() {
				moved++
			}
			if s := n4.StandIn(ring.Hash(key), 3); s.Found() {
				t.Errorf("%s stood in for %s, which is there", s.To.Name, p.To.Name)
			}
		}
		if moved == 0 {
			t.Error("nothing has moved")
		}
	})
}

// A node is isolated when it has lost contact with more than half of the members that did not leave in order.
func TestIsolated(t *testing.T) {
	for _, c := range []struct {
		stable, sees, left string
		want               bool
	}{
		{"", "a", "", false},
		{"a", "a", "", false},
		{"ab", "a", "", false}, // half is not more than half
		{"abc", "a", "", true},
		{"abc", "ab", "", false},
		{"abc", "abc", "", false},
		{"abc", "ade", "", true}, // members that came later do not count
		{"abcd", "ab", "", false},
		{"abcd", "a", "", true},
		{"abcde", "ab", "", true},
		{"abcde", "abc", "", false},
		{"abcde", "ab", "cde", false},
		{"abcde", "ab", "cd", false}, // one of three is lost
		{"abcde", "a", "cd", true},   // two of three
		{"abcde", "a", "bcde", false},
		{"abc", "a", "a", true}, // a member in sight has not left
		{"abc", "", "", true},
	} {
		var s placement.Isolation
		in := func(s string) func(string) bool { return func(name string) bool { return strings.Contains(s, name) } }
		if c.stable != "" {
			stable := viewOf(t, sameAge, strings.Split(c.stable, "")...)
			s.Observe(stable, 0, in(""), in(""))
			s.Observe(stable, placement.StableFor, in(""), in(""))
		}
		sees := viewOf(t, sameAge, strings.Split(cmp.Or(c.sees, "x"), "")...)
		off, changed := s.Observe(sees, placement.StableFor, in(""), in(c.left))
		if off != c.want || changed != c.want || s.IsIsolated() != c.want || s.Lost.Load() != c.want {
			t.Errorf("of %q sees %q, %q left: isolated %v, changed %v", c.stable, c.sees, c.left, off, changed)
		}
	}
}

// A view is stable once it has lasted for StableFor, and remains the reference while the node is isolated.
func TestIsolationLook(t *testing.T) {
	nobody := func(string) bool { return false }
	all, two, one := viewOf(t, sameAge, "a", "b", "c"), viewOf(t, sameAge, "a", "b"), viewOf(t, sameAge, "a")
	var s placement.Isolation
	look := func(n int, at time.Duration, want bool) {
		t.Helper()
		v := one
		if n > 1 {
			v = two
		}
		if n > 2 {
			v = all
		}
		if off, _ := s.Observe(v, int64(at), nobody, nobody); off != want {
			t.Errorf("%d members at %v: isolated %v", n, at, off)
		}
	}
	look(3, 0, false)
	look(1, 29*time.Second, false) // no view has been stable yet
	look(3, 30*time.Second, false)
	look(2, 61*time.Second, false) // the view of all had lasted for 31 s
	look(1, 62*time.Second, true)  // the view of two had not
	look(1, time.Hour, true)       // time alone changes nothing
	look(2, time.Hour, false)
	look(2, time.Hour+31*time.Second, false)
	look(1, time.Hour+32*time.Second, false) // half of two

	// A member that is in the view but silent counts as lost, even if gossip does not count it as lost.
	s = placement.Isolation{}
	left := func(string) bool { return true }
	for _, x := range []struct {
		silent string
		want   bool
	}{{"", false}, {"b", false}, {"bc", true}, {"c", false}, {"ab", true}, {"a", false}} {
		silent := func(name string) bool { return strings.Contains(x.silent, name) }
		s.Observe(all, 0, nobody, left)
		if off, _ := s.Observe(all, int64(31*time.Second), silent, left); off != x.want {
			t.Errorf("silent are %q: isolated %v", x.silent, off)
		}
	}
}
