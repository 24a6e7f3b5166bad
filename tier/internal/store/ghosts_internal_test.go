package store

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Ghosts know a key if it is among the last count evicted keys and among the last ghostWays with its slots.
func TestGhostsRecall(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, began := range []uint32{0, math.MaxUint32 - 300} { // the number of an eviction wraps around
		least := uint64(min(began, 1)) // a slot of 0 is empty, so eviction 0 of a hash whose upper half is 0 is not noted
		for _, count := range []int64{1, 2, 3, 4, 30, 63} {
			g := ghosts{seq: began}
			var evicted []uint64 // newest first
			key := func() uint64 { return (least+uint64(r.IntN(5)))<<32 | uint64(r.IntN(64)) }
			for range 2_000 {
				hash := key()
				g.remember(hash, count)
				evicted = slices.Insert(evicted, 0, hash)
				hash = key()
				want, same := false, 0
				for _, other := range evicted[:min(len(evicted), int(count))] {
					if &g.ways(other)[0] != &g.ways(hash)[0] {
						continue
					}
					if same++; same <= ghostWays && other>>32 == hash>>32 {
						want = true
					}
				}
				if g.recall(hash, count) != want {
					t.Fatalf("%d entries: recall(%#x) is %v after %#x", count, hash, !want, evicted[:min(len(evicted), 80)])
				}
			}
		}
	}
}

// There are more slots than entries, and no more than twice as many: TestOwnedOverhead counts them as a part of an entry.
// Growing forgets all; a store that shrinks keeps its slots.
func TestGhostsGrow(t *testing.T) {
	const old, fresh = 1 << 32, 2 << 32
	var g ghosts
	for count := int64(0); count < 5_000; count++ {
		before := len(g.slots)
		g.remember(old, count)
		if n := int64(len(g.slots)); n <= count || n > max(2*count, ghostWays) {
			t.Fatalf("%d slots for %d entries", n, count)
		}
		g.remember(fresh, count/2)
		if len(g.slots) == before && !g.recall(old, 2) && count > 1 {
			t.Fatalf("%d entries: a key is forgotten though nothing grew", count)
		}
	}
	more := int64(len(g.slots))
	g.remember(fresh, more)
	if !g.recall(fresh, 1) || g.recall(old, more) {
		t.Error("growing did not forget the old keys")
	}
}
