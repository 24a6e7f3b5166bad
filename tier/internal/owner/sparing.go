package owner

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/demand"
	"github.com/weircache/weir/tier/internal/store"
)

const (
	// heatSpan is the number of seconds in which an entry is assumed to have got its heat, if nothing better is known.
	heatSpan = 60.0
	// leastRate is the lowest rate, per second, at which a key is assumed to be asked for. So a key that was warmed and
	// not asked for yet stays on the list, behind the others, and a restart soon after another one does not lose it.
	leastRate = 1e-4
	// leastCost is the lowest cost that a load is assumed to have, in seconds.
	leastCost = 1e-3
)

// spared is a key and what it spares the origin, in seconds of loads a second.
type spared struct {
	Key   string
	worth float64
	e     *store.Entry
	heat  uint8
}

// sparedHeap has the least worth on top.
type sparedHeap []spared

func (s sparedHeap) Len() int { return len(s) }

func (s sparedHeap) Less(i, j int) bool { return s[i].worth < s[j].worth }

func (s sparedHeap) Swap(i, j int) { s[i], s[j] = s[j], s[i] }

func (s *sparedHeap) Push(x any) { *s = append(*s, x.(spared)) }

func (s *sparedHeap) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}

// MostSparing returns the keys that spare the origin most, at most so many of them, those that spare most first. It
// looks at keys with a value that are wanted and, if this node is in the view, owned by this node. asked: the key was
// asked for recently.
func (c *Owner) MostSparing(most int, wanted func(e *store.Entry, asked bool) bool) []spared {
	now := c.Clock.Now()
	rates := make(map[uint64]float64)
	c.Demand.Rates(c.NearHits(), now, func(k demand.KeyRate) { rates[k.Hash] = k.Rate })
	mine := func(uint64) bool { return true }
	if c.Config.Cluster != nil {
		if view := c.Config.Cluster.View(); contains(view, c.Self) {
			mine = func(hash uint64) bool { return view.OwnerOf(view.PartitionOf(hash)).Name == c.Self }
		}
	}
	var best sparedHeap
	c.Owned.Ranked(func(key string, e *store.Entry, heat uint8) { // about 100 ns for an entry
		hash := ring.Hash(key)
		if e.Flags != 0 || !wanted(e, heat > 0 || rates[hash] > 0) {
			return
		}
		rate := max(rates[hash], float64(heat)/heatSpan, leastRate)
		worth := rate * max(e.Cost.Seconds(), leastCost)
		if len(best) == most && worth <= best[0].worth || !mine(hash) {
			return
		}
		if len(best) == most {
			heap.Pop(&best)
		}
		heap.Push(&best, spared{key, worth, e, heat})
	})
	slices.SortFunc(best, func(a, b spared) int { return cmp.Or(cmp.Compare(b.worth, a.worth), cmp.Compare(a.Key, b.Key)) })
	return best
}

func contains(view *ring.View, name string) bool {
	_, ok := view.Member(name)
	return ok
}
