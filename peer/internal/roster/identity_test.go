package roster_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/weircache/weir/peer/internal/roster"
)

func TestMetaFits(t *testing.T) {
	id := roster.Identity{Name: strings.Repeat("n", roster.MaxName), Cluster: strings.Repeat("c", roster.MaxClusterName), Zone: strings.Repeat("z", roster.MaxZone)}
	b := id.Append(nil)
	if len(b) > memberlist.MetaMaxSize {
		t.Errorf("the longest meta has %d bytes, memberlist's limit is %d", len(b), memberlist.MetaMaxSize)
	}
	if got, err := roster.DecodeIdentity(b); err != nil || got != id {
		t.Errorf("came back as %+v, %v", got, err)
	}
	b[1] |= 1 // it leaves
	got, err := roster.DecodeIdentity(b)
	if again := got.Append(nil); err != nil || !bytes.Equal(again, b) {
		t.Errorf("%q came back as %q, %v", b, again, err)
	}
}

func TestMetaMalformed(t *testing.T) {
	id := sample()
	good := id.Append(nil)
	for n := range good {
		if _, err := roster.DecodeIdentity(good[:n]); !malformed(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if got, err := roster.DecodeIdentity(append(bytes.Clone(good), 0)); err != nil || got != id {
		t.Errorf("with what a later version adds: %+v, %v", got, err)
	}
	zoned := id
	zoned.Zone = "east"
	b := zoned.Append(nil)
	if got, err := roster.DecodeIdentity(append(bytes.Clone(b), 7, 8)); err != nil || got != zoned {
		t.Errorf("with a zone and what a later version adds: %+v, %v", got, err)
	}
	for n := len(good) + 1; n < len(b); n++ {
		if _, err := roster.DecodeIdentity(b[:n]); !malformed(err) {
			t.Errorf("a zone cut to %d bytes: %v", n, err)
		}
	}
	id.Name = "new\nline"
	if _, err := roster.DecodeIdentity(id.Append(nil)); !malformed(err) {
		t.Errorf("a name with a line break: %v", err)
	}
}

// malformed reports whether an error says that a meta cannot be read.
func malformed(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "malformed meta") }

func FuzzMeta(f *testing.F) {
	const metaFormat = 1
	const metaFixed = 1 + 1 + 2 + 2 + 8 + 8 // format, flags, protocol, ring version, placement, incarnation
	id := sample()
	f.Add(id.Append(nil))
	whole := id.Append(nil)
	whole[1] |= 1 // it leaves
	f.Add(bytes.Clone(whole))
	for cut := range whole {
		f.Add(whole[:cut])
	}
	f.Add(append(bytes.Clone(whole), 0))
	for _, format := range []byte{0, metaFormat + 1, 255} {
		f.Add(append([]byte{format}, whole[1:]...))
	}
	cluster := metaFixed + 1 + len(id.Name)
	for _, n := range []byte{0, roster.MaxClusterName, roster.MaxClusterName + 1, roster.MaxName, roster.MaxName + 1, 255} {
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
		id, err := roster.DecodeIdentity(b)
		if err != nil {
			if id != (roster.Identity{}) && id.Name != "" {
				t.Errorf("an error, and yet %+v", id)
			}
			return
		}
		again, err := roster.DecodeIdentity(id.Append(nil))
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
		inc := roster.NewIncarnation(now, rnd)
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
	if got, err := roster.DecodeIdentity(b); err != nil || got != zoned {
		t.Errorf("came back as %+v, %v", got, err)
	}
	if got, err := roster.DecodeIdentity(append(b, "later"...)); err != nil || got != zoned {
		t.Errorf("with what a later version adds: %+v, %v", got, err)
	}
	if got, err := roster.DecodeIdentity(old); err != nil || got != plain {
		t.Errorf("without a zone: %+v, %v", got, err)
	}
	for n := len(old) + 1; n < len(zoned.Append(nil)); n++ {
		if _, err := roster.DecodeIdentity(b[:n]); !malformed(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	zoned.Zone = "new\nline"
	if _, err := roster.DecodeIdentity(zoned.Append(nil)); !malformed(err) {
		t.Errorf("a zone with a line break: %v", err)
	}
}
