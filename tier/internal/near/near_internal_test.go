package near

import (
	"testing"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
)

const leastTier = 64 << 10

func TestNearSizes(t *testing.T) {
	if s := unsafe.Sizeof(cell{}); s%pad != 0 {
		t.Errorf("a cell is %d bytes, not a multiple of %d", s, pad)
	}
	for _, size := range []int64{1, leastTier, 1 << 20, 1 << 30} {
		n, err := newTuned(size, func(cfg *ristretto.Config[uint64, *entry[int]]) {
			counters := cfg.NumCounters * 6 / 5 * counterBytes
			front := size - counters - cfg.MaxCost
			if size >= leastTier && (counters > size/8 || counters < size/32 || front > size/16 || front < size/64) {
				t.Errorf("%d bytes: %d for counters, %d for the front, %d for entries", size, counters, front, cfg.MaxCost)
			}
			cfg.NumCounters = 64
		})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		n.Close()
	}
}

// Ristretto itself allocates a buffer for every 64 gets; the gate does not allocate.
func TestNearGateDoesNotAllocate(t *testing.T) {
	n := ofInts(t)
	defer n.Close()
	if a := testing.AllocsPerRun(1000, func() { n.enter().other.Add(1) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func ofInts(t *testing.T) *Tier[*int] {
	t.Helper()
	n, err := New[*int](1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func entryOf(hash, check uint64, box *int) *entry[*int] {
	e := &entry[*int]{hash: hash, box: box}
	e.check.Store(check)
	return e
}

// A hash of 64 bits is not enough to identify a key, either in the front or in ristretto. No test finds two keys with the
// same one, so the entries are made by hand.
func TestFrontTellsKeysApart(t *testing.T) {
	n := ofInts(t)
	defer n.Close()
	hash, check := n.hashes("k")
	box := new(int)
	n.place(hash).Store(entryOf(hash, check+1, box))
	if n.Get("k") != nil {
		t.Error("the front gave another key's box")
	}
	n.place(hash).Store(entryOf(hash+uint64(len(n.front)), check, box))
	if n.Get("k") != nil {
		t.Error("the front gave the box of a key with another hash")
	}
	n.c.Set(hash, entryOf(hash, check+1, box), 1)
	n.Wait()
	if n.Get("k") != nil {
		t.Error("ristretto gave another key's box")
	}
	n.Set("k", box, 1) // replaces the other key
	n.Wait()
	if got := n.Get("k"); got == nil || *got != box {
		t.Error("a key does not get its place back")
	}
	if a, b := n.hashes("k"); a == b {
		t.Error("the two hashes are the same")
	}
}

// A get may find an entry in ristretto, and put it into the front when ristretto has dropped it.
func TestFrontTakesNothingThatIsGone(t *testing.T) {
	n := ofInts(t)
	e := entryOf(1, 1, new(int))
	n.hide(e)
	n.show(e) // by a get that found it before
	if entries, _ := n.Front(); entries != 0 {
		t.Error("an entry that is gone was put in front")
	}
	n.place(1).Store(e)
	n.Close()
	if entries, _ := n.Front(); entries != 0 {
		t.Error("the front has something after close")
	}
}
