package peer

import (
	"errors"
	"fmt"
	"testing"

	"github.com/weircache/weir/ring"
)

// TestMetaZone checks that the meta carries the zone at its end. An earlier version reads it as before, and the meta of an
// earlier version, which has no zone, can be read.
func TestMetaZone(t *testing.T) {
	plain := sample()
	old := plain.append(nil)
	zoned := plain
	zoned.zone = "eu-west-1a"
	b := zoned.append(nil)
	if string(b[:len(old)]) != string(old) {
		t.Error("the zone changes what an earlier version reads")
	}
	if got, err := decodeIdentity(b); err != nil || got != zoned {
		t.Errorf("came back as %+v, %v", got, err)
	}
	if got, err := decodeIdentity(append(b, "later"...)); err != nil || got != zoned {
		t.Errorf("with what a later version adds: %+v, %v", got, err)
	}
	if got, err := decodeIdentity(old); err != nil || got != plain {
		t.Errorf("without a zone: %+v, %v", got, err)
	}
	for n := len(old) + 1; n < len(zoned.append(nil)); n++ {
		if _, err := decodeIdentity(b[:n]); !errors.Is(err, errMeta) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	zoned.zone = "new\nline"
	if _, err := decodeIdentity(zoned.append(nil)); !errors.Is(err, errMeta) {
		t.Errorf("a zone with a line break: %v", err)
	}
}

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
