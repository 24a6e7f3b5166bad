package roster

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func sample() Identity {
	return Identity{Name: "catalog-1", Cluster: "weir", Incarnation: 0x1234, Protocol: 1, RingVersion: 1, Placement: 99}
}

func TestMetaFits(t *testing.T) {
	id := Identity{Name: strings.Repeat("n", MaxName), Cluster: strings.Repeat("c", MaxClusterName), Zone: strings.Repeat("z", MaxZone), leaving: true}
	b := id.Append(nil)
	if len(b) != metaMax || metaMax > memberlist.MetaMaxSize {
		t.Errorf("the longest meta has %d bytes, metaMax is %d, memberlist's limit %d", len(b), metaMax, memberlist.MetaMaxSize)
	}
	if got, err := DecodeIdentity(b); err != nil || got != id {
		t.Errorf("came back as %+v, %v", got, err)
	}
}

func TestMetaMalformed(t *testing.T) {
	id := sample()
	good := id.Append(nil)
	for n := range good {
		if _, err := DecodeIdentity(good[:n]); !errors.Is(err, errMeta) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if got, err := DecodeIdentity(append(bytes.Clone(good), 0)); err != nil || got != id {
		t.Errorf("with what a later version adds: %+v, %v", got, err)
	}
	zoned := id
	zoned.Zone = "east"
	b := zoned.Append(nil)
	if got, err := DecodeIdentity(append(bytes.Clone(b), 7, 8)); err != nil || got != zoned {
		t.Errorf("with a zone and what a later version adds: %+v, %v", got, err)
	}
	for n := len(good) + 1; n < len(b); n++ {
		if _, err := DecodeIdentity(b[:n]); !errors.Is(err, errMeta) {
			t.Errorf("a zone cut to %d bytes: %v", n, err)
		}
	}
	id.Name = "new\nline"
	if _, err := DecodeIdentity(id.Append(nil)); !errors.Is(err, errMeta) {
		t.Errorf("a name with a line break: %v", err)
	}
}

func FuzzMeta(f *testing.F) {
	id := sample()
	f.Add(id.Append(nil))
	id.leaving = true
	f.Add(id.Append(nil))
	whole := id.Append(nil)
	for cut := range whole {
		f.Add(whole[:cut])
	}
	f.Add(append(bytes.Clone(whole), 0))
	for _, format := range []byte{0, metaFormat + 1, 255} {
		f.Add(append([]byte{format}, whole[1:]...))
	}
	cluster := metaFixed + 1 + len(id.Name)
	for _, n := range []byte{0, MaxClusterName, MaxClusterName + 1, MaxName, MaxName + 1, 255} {
		for _, at := range []int{metaFixed, cluster} {
			b := bytes.Clone(whole)
			b[at] = n
			f.Add(b)
			f.Add(append(b, bytes.Repeat([]byte{'x'}, 255)...))
		}
	}
	f.Add(append(bytes.Repeat([]byte{1}, metaFixed), 255))
	f.Add(bytes.Repeat([]byte{0x80}, 1<<20))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := DecodeIdentity(b)
		if err != nil {
			if id != (Identity{}) && id.Name != "" {
				t.Errorf("an error, and yet %+v", id)
			}
			return
		}
		again, err := DecodeIdentity(id.Append(nil))
		if err != nil || again != id {
			t.Errorf("%+v came back as %+v, %v", id, again, err)
		}
	})
}

func TestIncarnationGrows(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	last := uint64(0)
	for range 1000 {
		inc := NewIncarnation(now, rnd)
		if inc <= last {
			t.Fatalf("%d after %d", inc, last)
		}
		last, now = inc, now.Add(time.Microsecond)
	}
}

// TestMetaZone checks that the meta carries the zone at its end. An earlier version reads it as before, and the meta of an
// earlier version, which has no zone, can be read.
func TestMetaZone(t *testing.T) {
	plain := sample()
	old := plain.Append(nil)
	zoned := plain
	zoned.Zone = "eu-west-1a"
	b := zoned.Append(nil)
	if string(b[:len(old)]) != string(old) {
		t.Error("the zone changes what an earlier version reads")
	}
	if got, err := DecodeIdentity(b); err != nil || got != zoned {
		t.Errorf("came back as %+v, %v", got, err)
	}
	if got, err := DecodeIdentity(append(b, "later"...)); err != nil || got != zoned {
		t.Errorf("with what a later version adds: %+v, %v", got, err)
	}
	if got, err := DecodeIdentity(old); err != nil || got != plain {
		t.Errorf("without a zone: %+v, %v", got, err)
	}
	for n := len(old) + 1; n < len(zoned.Append(nil)); n++ {
		if _, err := DecodeIdentity(b[:n]); !errors.Is(err, errMeta) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	zoned.Zone = "new\nline"
	if _, err := DecodeIdentity(zoned.Append(nil)); !errors.Is(err, errMeta) {
		t.Errorf("a zone with a line break: %v", err)
	}
}
