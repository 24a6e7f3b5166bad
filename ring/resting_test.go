package ring

import (
	"fmt"
	"testing"
)

// TestResting checks that a resting member is in the view, and that keys are placed as they are without it.
func TestResting(t *testing.T) {
	var all, rest, without []Member
	for i := range 6 {
		m := Member{Name: fmt.Sprintf("n%d", i), Addr: "a:1", Incarnation: 1}
		all = append(all, m)
		if m.Resting = i == 2; !m.Resting {
			without = append(without, m)
		}
		rest = append(rest, m)
	}
	cfg := Config{Partitions: 97}
	full, err := New(all, cfg)
	if err != nil {
		t.Fatal(err)
	}
	less, err := New(without, cfg)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := New(rest, cfg)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := full.Next(rest)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*View{fresh, moved} {
		if v.Len() != 6 || v.Index("n2") != 2 || v.Index("n3") != 3 || v.Share("n2") != 0 || v.Share("n3") != less.Share("n3") {
			t.Errorf("%d members, %d, %d, shares %v, %v", v.Len(), v.Index("n2"), v.Index("n3"), v.Share("n2"), v.Share("n3"))
		}
		if m, ok := v.Member("n2"); !ok || !m.Resting {
			t.Errorf("%+v, %t", m, ok)
		}
		for k := range 500 {
			key := fmt.Sprint(k)
			next, _ := v.Successor(key)
			want, _ := less.Successor(key)
			if v.Owner(key) != less.Owner(key) || next != want || v.Members()[v.OwnerIndex(key)] != v.Owner(key) {
				t.Fatalf("%s: owner %v, successor %v, want %v and %v", key, v.Owner(key), next, less.Owner(key), want)
			}
		}
		if n := len(v.Successors("k", 10)); n != 4 {
			t.Errorf("%d successors", n)
		}
		v.Prepare("n2")
	}
	if a, b := fresh.Fingerprint(), moved.Fingerprint(); a != b || a == full.Fingerprint() || a == less.Fingerprint() {
		t.Errorf("fingerprints %x, %x, of all %x, without it %x", a, b, full.Fingerprint(), less.Fingerprint())
	}
	if d := fresh.Diff(full); len(d.Joined)+len(d.Left)+len(d.Restarted) != 0 || len(d.Moved) == 0 {
		t.Errorf("%+v", d)
	}
	back, err := moved.Next(all)
	if err != nil || back.Fingerprint() != full.Fingerprint() || back.Owner("k") != full.Owner("k") {
		t.Errorf("%v, %x", err, back.Fingerprint())
	}
	for i := range rest {
		rest[i].Resting = true
	}
	if v, err := New(rest, cfg); err != nil || v.Fingerprint() != full.Fingerprint() || v.Owner("k").Name != full.Owner("k").Name {
		t.Errorf("all rest: %v", err)
	}
}
