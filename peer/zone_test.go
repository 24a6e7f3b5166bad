package peer

import (
	"fmt"
	"testing"

	"github.com/weircache/weir/ring"
)

// TestZonesOfMembers checks that gossip brings the zones into every view, and that all nodes agree on each key's successor,
// which is in another zone than its owner.
func TestZonesOfMembers(t *testing.T) {
	var nodes []*Node
	var seeds []string
	for i, zone := range []string{"a", "a", "b"} {
		cfg := quick(fmt.Sprint("n", i), seeds...)
		cfg.Zone = zone
		n := start(t, cfg)
		nodes, seeds = append(nodes, n), append(seeds, n.Addr())
	}
	awaitNames(t, "n0 n1 n2", nodes...)
	want := nodes[0].View()
	for _, n := range nodes {
		v := n.View()
		if v.Fingerprint() != want.Fingerprint() {
			t.Errorf("%s has another view", n.Name())
		}
		for i := range 100 {
			key := fmt.Sprint("k", i)
			got, _ := v.Successor(key)
			if other, _ := want.Successor(key); got.Name != other.Name || v.Owner(key).Zone == got.Zone {
				t.Fatalf("%s: %s goes from %v to %v, elsewhere to %v", n.Name(), key, v.Owner(key), got, other)
			}
		}
		for _, m := range n.Members() {
			if in, _ := v.Member(m.Name); m.Zone == "" || in.Zone != m.Zone {
				t.Errorf("%s is in zone %q, the view says %q", m.Name, m.Zone, in.Zone)
			}
		}
	}
	bare, err := ring.New([]ring.Member{{Name: "n0"}, {Name: "n1"}, {Name: "n2"}}, ring.Config{})
	if err != nil || bare.Fingerprint() == want.Fingerprint() {
		t.Errorf("the fingerprint does not tell of zones, %v", err)
	}
}
