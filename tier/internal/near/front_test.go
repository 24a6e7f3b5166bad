package near_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/weircache/weir/tier/internal/near"

	"github.com/dgraph-io/ristretto/v2"
)

// An entry that was found once is found again without ristretto, which sees an unbiased sample of the hits.
func TestFrontSamples(t *testing.T) {
	const keys, each = 8, 8 << near.FeedBits
	heard := make(map[uint64]int)
	n, err := near.NewTuned(1<<20, func(cfg *ristretto.Config[uint64, *near.Entry[testBox]]) {
		cfg.KeyToHash = func(hash uint64) (uint64, uint64) { heard[hash]++; return hash, 0 }
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var hashes [keys]uint64
	for i := range keys {
		clear(heard)
		n.Set(numbered(i), testBox{key: i}, 0)
		for hash := range heard {
			hashes[i] = hash
		}
	}
	n.Wait()
	for i := range keys {
		n.Get(numbered(i))
	}
	shared := false
	for i := range keys {
		shared = shared || n.InFront(numbered(i)) == nil
	}
	clear(heard)
	for range each {
		for i := range keys {
			if b := n.Get(numbered(i)); b == nil || b.key != i {
				t.Fatalf("get = %v of key %d", b, i)
			}
		}
	}
	if s := n.Stats(); s.Hits != keys*(each+1) || s.Misses() != 0 {
		t.Errorf("stats %+v, want %d hits", s, keys*(each+1))
	}
	if shared {
		return // two keys share a place, which is rare and as good for the rest
	}
	for i := range keys {
		if got, want := heard[hashes[i]], each>>near.FeedBits; got < want-3 || got > want+3 {
			t.Errorf("ristretto heard of %d of %d hits of key %d, want about %d", got, each, i, want)
		}
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
				n.of.Wait()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := tunedNear(t, nil)
			defer n.close()
			n.set("k", &testBox{version: 1}, 0)
			n.of.Wait()
			n.get("k")
			if b := n.of.InFront("k"); b == nil || (*b).version != 1 {
				t.Fatalf("the front has %v after a hit", b)
			}
			leave(n)
			if entries, _ := n.of.Front(); name != "evict" && entries != 0 {
				t.Error("the front still has what left ristretto")
			}
			if name == "set" {
				if b := n.get("k"); b == nil || b.version != 2 {
					t.Errorf("get = %v after a set of a key in front, want the new box at once", b)
				}
			}
			if entries, strays := n.of.Front(); strays != 0 {
				t.Errorf("the front has %d entries, of which %d are gone", entries, strays)
			}
		})
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
					n.of.Wait() // otherwise all sets would be pending at the end
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
	n.of.Wait()
	if s := n.stats(); s.Evicted == 0 {
		t.Errorf("stats %+v: nothing was evicted", s)
	}
	if entries, strays := n.of.Front(); entries == 0 || strays != 0 {
		t.Errorf("the front has %d entries, %d that ristretto does not have", entries, strays)
	}
}
