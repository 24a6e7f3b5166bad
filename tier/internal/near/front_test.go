package near

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/dgraph-io/ristretto/v2"
)

// inFront returns the entries in the front.
func inFront[T any](n *Tier[T]) (all []*entry[T]) {
	for i := range n.front {
		if e := n.front[i].Load(); e != nil {
			all = append(all, e)
		}
	}
	return all
}

// An entry that was found once is found again without ristretto, which sees an unbiased sample of the hits.
func TestFrontSamples(t *testing.T) {
	const keys, each = 8, 8 << feedBits
	heard := make(map[uint64]int)
	n, err := newTuned(1<<20, func(cfg *ristretto.Config[uint64, *entry[testBox]]) {
		cfg.KeyToHash = func(hash uint64) (uint64, uint64) { heard[hash]++; return hash, 0 }
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for i := range keys {
		n.Set(numbered(i), testBox{key: i}, 0)
	}
	n.c.Wait()
	places := make(map[uint64]bool)
	for i := range keys {
		hash, _ := n.hashes(numbered(i))
		places[hash&uint64(len(n.front)-1)] = true
		n.Get(numbered(i))
	}
	clear(heard)
	for range each {
		for i := range keys {
			if b := n.Get(numbered(i)); b == nil || b.key != i {
				t.Fatalf("get = %v of key %d", b, i)
			}
		}
	}
	if s := n.Stats(); s.Hits != keys*(each+1) || s.misses != 0 {
		t.Errorf("stats %+v, want %d hits", s, keys*(each+1))
	}
	if len(places) < keys {
		return // two keys share a place, which is rare and as good for the rest
	}
	for i := range keys {
		hash, _ := n.hashes(numbered(i))
		if got, want := heard[hash], each>>feedBits; got < want-3 || got > want+3 {
			t.Errorf("ristretto heard of %d of %d hits of key %d, want about %d", got, each, i, want)
		}
	}
}

func testEntryOf(hash, check uint64, box *testBox) *testEntry {
	e := &testEntry{hash: hash, box: box}
	e.check.Store(check)
	return e
}

// A hash of 64 bits is not enough to identify a key, either in the front or in ristretto.
func TestFrontTellsKeysApart(t *testing.T) {
	n := tunedNear(t, nil).of
	defer n.Close()
	hash, check := n.hashes("k")
	box := &testBox{}
	other := testEntryOf(hash, check+1, box)
	n.place(hash).Store(other)
	if n.Get("k") != nil {
		t.Error("the front gave another key's box")
	}
	other = testEntryOf(hash+uint64(len(n.front)), check, box)
	n.place(hash).Store(other)
	if n.Get("k") != nil {
		t.Error("the front gave the box of a key with another hash")
	}
	n.c.Set(hash, testEntryOf(hash, check+1, box), 1)
	n.c.Wait()
	if n.Get("k") != nil {
		t.Error("ristretto gave another key's box")
	}
	n.Set("k", box, 1) // replaces the other key
	n.c.Wait()
	if got := n.Get("k"); got == nil || *got != box {
		t.Error("a key does not get its place back")
	}
	if a, b := n.hashes("k"); a == b {
		t.Error("the two hashes are the same")
	}
}

// An entry that leaves ristretto leaves the front, whichever order the two steps have.
func TestFrontHides(t *testing.T) {
	for name, leave := range map[string]func(n *pointerNear){
		"set":   func(n *pointerNear) { n.set("k", &testBox{version: 2}, 0) },
		"del":   func(n *pointerNear) { n.del("k") },
		"clear": (*pointerNear).clear,
		"close": (*pointerNear).close,
		"evict": func(n *pointerNear) {
			for i := 0; n.stats().Evicted < 1000; i++ {
				key := numbered(i % 500)
				n.get(key)
				n.set(key, &testBox{}, 5000)
				n.of.c.Wait()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := tunedNear(t, nil)
			defer n.close()
			n.set("k", &testBox{version: 1}, 0)
			n.of.c.Wait()
			n.get("k")
			hash, _ := n.of.hashes("k")
			e := n.of.place(hash).Load()
			if e == nil || e.box.version != 1 {
				t.Fatalf("the front has %v after a hit", e)
			}
			leave(n)
			if name != "evict" && (n.of.place(hash).Load() != nil || e.check.Load() != 0) {
				t.Error("the front still has what left ristretto")
			}
			if name == "set" {
				if b := n.get("k"); b == nil || b.version != 2 {
					t.Errorf("get = %v after a set of a key in front, want the new box at once", b)
				}
			}
			for _, e := range inFront(n.of) {
				if e.check.Load() == 0 {
					t.Error("the front has an entry that is gone")
				}
			}
		})
	}
	n := tunedNear(t, nil).of
	e := &testEntry{hash: 1}
	n.hide(e)
	n.show(e) // by a get that found it before
	if len(inFront(n)) != 0 {
		t.Error("an entry that is gone was put in front")
	}
	n.place(1).Store(e)
	n.Close()
	if len(inFront(n)) != 0 {
		t.Error("the front has something after close")
	}
}

// After any concurrent use, each entry in the front is the one that ristretto has.
func TestFrontHasNothingElse(t *testing.T) {
	n := tunedNear(t, func(cfg *testConfig) { cfg.MaxCost = 40_000 })
	defer n.close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const keys = 300
	var wg sync.WaitGroup
	for w := range 4 {
		r := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for i := range 20_000 {
				at := r.IntN(keys)
				switch key := numbered(at); {
				case i%4000 == 2000:
					n.clear()
				case i%100 == 0:
					n.of.c.Wait() // otherwise all sets would be pending at the end
				case r.IntN(8) == 0:
					n.set(key, &testBox{key: at}, int64(r.IntN(1000)))
				case r.IntN(20) == 0:
					n.del(key)
				default:
					if b := n.get(key); b != nil && b.key != at {
						t.Errorf("get = %v of key %d", b, at)
					}
				}
			}
		})
	}
	wg.Wait()
	n.of.c.Wait()
	if s := n.stats(); s.Evicted == 0 {
		t.Errorf("stats %+v: nothing was evicted", s)
	}
	all := inFront(n.of)
	if len(all) == 0 {
		t.Error("the front is empty")
	}
	for _, e := range all {
		if has, ok := n.of.c.Get(e.hash); !ok || has != e {
			t.Errorf("the front has %v, ristretto %v", e.box, has)
		}
	}
}
