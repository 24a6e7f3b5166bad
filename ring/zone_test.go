package ring

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// zoned returns a cluster whose members are assigned to the zones in turn.
func zoned(n int, zones ...string) []Member {
	members := cluster(n)
	for i := range members {
		members[i].Zone = zones[i%len(zones)]
	}
	return members
}

// someZone draws one of the given number of zones, or none.
func someZone(rng *rand.Rand, zones int) string {
	return []string{"", "a", "b", "c"}[rng.IntN(zones+1)]
}

// requireApart compares the successors of keys with those of a slow algorithm. TestChurn calls it for views
// of every kind.
func requireApart(t fataler, v *View) {
	for i := range 8 {
		key := fmt.Sprint("sku", i)
		owner := v.Owner(key)
		heir, ok := v.Heir(key)
		if !ok {
			return
		}
		order := []Member{heir} // the order without zones
		for _, m := range v.walk(v.Partition(key), []int{v.Index(owner.Name), v.Index(heir.Name)}, v.Len()-2) {
			order = append(order, v.members[m])
		}
		var other, rest []Member
		for _, m := range order {
			if m.Zone != "" && owner.Zone != "" && m.Zone != owner.Zone {
				other = append(other, m)
			} else {
				rest = append(rest, m)
			}
		}
		want := append(other, rest...)
		for n := range len(want) + 1 {
			if got := v.Successors(key, n); !slices.Equal(got, want[:n]) {
				t.Fatalf("%s of %v: the first %d of %v should succeed, Successors says %v", key, owner, n, want, got)
			}
		}
		if got, _ := v.Successor(key); got != want[0] {
			t.Fatalf("%s of %v: %v should succeed, Successor says %v", key, owner, want[0], got)
		}
	}
}

// TestZones checks that every key keeps a successor when a zone is lost. It also checks that zones do not
// change owners and, if there are fewer than two zones, do not change successors.
func TestZones(t *testing.T) {
	plain := mustNew(t, cluster(12), Config{})
	one := mustNew(t, zoned(12, "a"), Config{})
	three := mustNew(t, zoned(12, "a", "b", "c"), Config{})
	other := 0
	for i := range 2000 {
		key := fmt.Sprint("sku-", i)
		if p := plain.Owner(key).Name; one.Owner(key).Name != p || three.Owner(key).Name != p {
			t.Fatalf("%s: zones change the owner", key)
		}
		p, _ := plain.Successor(key)
		if s, _ := one.Successor(key); s.Name != p.Name {
			t.Fatalf("%s: the one zone changes the successor from %s to %s", key, p.Name, s.Name)
		}
		s, _ := three.Successor(key)
		if s.Zone == three.Owner(key).Zone {
			t.Fatalf("%s: owner and successor are in zone %s", key, s.Zone)
		}
		if h, _ := three.Heir(key); h.Name != p.Name {
			t.Fatalf("%s: zones change the heir", key)
		}
		if s.Name != p.Name {
			other++
		}
	}
	if other < 200 { // at least a quarter of the heirs are in the owner's zone
		t.Errorf("zones changed %d of 2000 successors", other)
	}
}

// TestZonesChange checks that Next adopts new zones if nothing else changed, and that the old view keeps its
// own.
func TestZonesChange(t *testing.T) {
	a := mustNew(t, cluster(9), Config{})
	b, err := a.Next(zoned(9, "x", "y"))
	if err != nil {
		t.Fatal(err)
	}
	requireEqual(t, b, mustNew(t, zoned(9, "x", "y"), Config{}))
	requireApart(t, b)
	c, err := b.Next(cluster(9))
	if err != nil {
		t.Fatal(err)
	}
	requireEqual(t, c, a)
	requireApart(t, a)
	if a.Fingerprint() == b.Fingerprint() || a.Fingerprint() != c.Fingerprint() {
		t.Errorf("fingerprints %x, with zones %x, without again %x", a.Fingerprint(), b.Fingerprint(), c.Fingerprint())
	}
	if d := b.Diff(a); len(d.Restarted) != 9 || len(d.Moved) != 0 {
		t.Errorf("the difference is %+v", d)
	}
	if _, err := a.Next(zoned(9, strings.Repeat("z", MaxZone+1))); !errors.Is(err, ErrConfig) {
		t.Errorf("a zone's name that is too long: %v", err)
	}
}

// TestGoldenZones pins the fingerprint and the successors of a view with zones: members of two versions must
// agree on both.
func TestGoldenZones(t *testing.T) {
	v := mustNew(t, zoned(9, "a", "b", ""), Config{})
	var all strings.Builder
	for i := range 1000 {
		for _, m := range v.Successors(fmt.Sprint("sku-", i), 3) {
			fmt.Fprintln(&all, i, m.Name)
		}
	}
	if got := xxhash.Sum64String(all.String()); got != 0xdea0ddf5b59a1304 || v.Fingerprint() != 0x62e93f7df4521cf6 {
		t.Errorf("successors %#x, fingerprint %#x", got, v.Fingerprint())
	}
}
