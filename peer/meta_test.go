package peer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func sample() identity {
	return identity{name: "catalog-1", cluster: "weir", incarnation: 0x1234, protocol: 1, ringVersion: 1, placement: 99}
}

func TestMetaFits(t *testing.T) {
	id := identity{name: strings.Repeat("n", MaxName), cluster: strings.Repeat("c", MaxClusterName), zone: strings.Repeat("z", MaxZone), leaving: true}
	b := id.append(nil)
	if len(b) != metaMax || metaMax > memberlist.MetaMaxSize {
		t.Errorf("the longest meta has %d bytes, metaMax is %d, memberlist's limit %d", len(b), metaMax, memberlist.MetaMaxSize)
	}
	if got, err := decodeIdentity(b); err != nil || got != id {
		t.Errorf("came back as %+v, %v", got, err)
	}
}

func TestMetaMalformed(t *testing.T) {
	id := sample()
	good := id.append(nil)
	for n := range good {
		if _, err := decodeIdentity(good[:n]); !errors.Is(err, errMeta) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if got, err := decodeIdentity(append(bytes.Clone(good), 0)); err != nil || got != id {
		t.Errorf("with what a later version adds: %+v, %v", got, err)
	}
	zoned := id
	zoned.zone = "east"
	b := zoned.append(nil)
	if got, err := decodeIdentity(append(bytes.Clone(b), 7, 8)); err != nil || got != zoned {
		t.Errorf("with a zone and what a later version adds: %+v, %v", got, err)
	}
	for n := len(good) + 1; n < len(b); n++ {
		if _, err := decodeIdentity(b[:n]); !errors.Is(err, errMeta) {
			t.Errorf("a zone cut to %d bytes: %v", n, err)
		}
	}
	id.name = "new\nline"
	if _, err := decodeIdentity(id.append(nil)); !errors.Is(err, errMeta) {
		t.Errorf("a name with a line break: %v", err)
	}
}

func FuzzMeta(f *testing.F) {
	id := sample()
	f.Add(id.append(nil))
	id.leaving = true
	f.Add(id.append(nil))
	whole := id.append(nil)
	for cut := range whole {
		f.Add(whole[:cut])
	}
	f.Add(append(bytes.Clone(whole), 0))
	for _, format := range []byte{0, metaFormat + 1, 255} {
		f.Add(append([]byte{format}, whole[1:]...))
	}
	cluster := metaFixed + 1 + len(id.name)
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
		var id identity
		var err error
		atMost(t, len(b), func() { id, err = decodeIdentity(b) })
		if err != nil {
			if id != (identity{}) && id.name != "" {
				t.Errorf("an error, and yet %+v", id)
			}
			return
		}
		again, err := decodeIdentity(id.append(nil))
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
		inc := newIncarnation(now, rnd)
		if inc <= last {
			t.Fatalf("%d after %d", inc, last)
		}
		last, now = inc, now.Add(time.Microsecond)
	}
}
