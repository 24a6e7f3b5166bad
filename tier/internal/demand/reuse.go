package demand

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weircache/weir/tier/internal/store"
)

// ReuseCurve estimates the miss-ratio curve of the owned tier: the fraction of the reads reaching it that would miss
// if the tier had another size and kept the most recently used entries. It is SHARDS with a fixed number of keys
// (Waldspurger et al., FAST 2015). For keys picked by their hash it knows how many bytes of other keys were read
// between two reads of the key, divided by the fraction of keys picked. A read misses in all tiers smaller than that.
// It takes about 350 KiB.
type ReuseCurve struct {
	limit atomic.Uint64 // of spread(hash); read without mu to skip most keys

	mu    sync.Mutex // guards the rest, and changes of limit
	keys  map[uint64]reuseKey
	tree  []int64 // Fenwick tree of the keys' sizes, indexed by the place of the last read
	next  int32   // place of the next read, from 1
	bytes int64   // of all keys
	hist  [reuseBuckets]float64
	cold  float64 // first reads
	at    int64   // when the histogram was last halved
	base  int64   // reads that had reached the tier by then
	kept  float64 // what the halving left of the reads before that
}

type reuseKey struct {
	place int32
	size  int64
}

const (
	reuseKeys    = 4096
	reusePlaces  = 4 * reuseKeys
	reuseBuckets = 4 * 64 // four for each doubling of bytes: no distance reaches 2^63.75
	reuseHalf    = int64(5 * 60 * 1e9)
	reuseLimit   = spreadAll / 8
)

// NewReuseCurve returns a curve that begins now.
func NewReuseCurve(now int64) *ReuseCurve {
	r := &ReuseCurve{keys: make(map[uint64]reuseKey), tree: make([]int64, reusePlaces+1), next: 1, at: now}
	r.limit.Store(reuseLimit)
	return r
}

// Read counts a read that reaches the owned tier. e is the key's entry, or nil. Read does not keep key.
func (r *ReuseCurve) Read(key string, hash uint64, e *store.Entry) {
	if spread(hash) >= r.limit.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := r.limit.Load()
	if spread(hash) >= limit {
		return
	}
	each := float64(spreadAll) / float64(limit)
	k, ok := r.keys[hash]
	if ok {
		distance := float64(r.bytes-r.sum(k.place)+k.size) * each
		r.hist[reuseBucket(distance)] += each
		r.add(k.place, -k.size)
	} else {
		r.cold += each
		k.size = 512 // until it is known
	}
	if e != nil {
		k.size = store.Weight(key, e)
	}
	if r.next > reusePlaces {
		r.compact(hash)
	}
	k.place = r.next
	r.next++
	r.keys[hash] = k
	r.add(k.place, k.size)
	if len(r.keys) > reuseKeys {
		r.limit.Store(limit / 2)
		for h, k := range r.keys {
			if spread(h) >= limit/2 {
				r.add(k.place, -k.size)
				delete(r.keys, h)
			}
		}
	}
}

// sum returns the bytes at places up to and including i. The caller holds mu.
func (r *ReuseCurve) sum(i int32) (n int64) {
	for ; i > 0; i -= i & -i {
		n += r.tree[i]
	}
	return n
}

func (r *ReuseCurve) add(i int32, by int64) {
	r.bytes += by
	for ; i <= reusePlaces; i += i & -i {
		r.tree[i] += by
	}
}

// compact moves the keys to the first places, in their order. The key that is being read has no place. The caller
// holds mu.
func (r *ReuseCurve) compact(reading uint64) {
	type placed struct {
		hash uint64
		reuseKey
	}
	order := make([]placed, 0, len(r.keys))
	for h, k := range r.keys {
		if h != reading {
			order = append(order, placed{h, k})
		}
	}
	slices.SortFunc(order, func(a, b placed) int { return cmp.Compare(a.place, b.place) })
	clear(r.tree)
	r.bytes, r.next = 0, 1
	for _, k := range order {
		k.place = r.next
		r.next++
		r.keys[k.hash] = k.reuseKey
		r.add(k.place, k.size)
	}
}

func reuseBucket(distance float64) int {
	return int(math.Ceil(4 * math.Log2(max(distance, 1))))
}

// Halve halves the weight of old reads once in every reuseHalf. reads is how many have reached the tier.
func (r *ReuseCurve) Halve(now, reads int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now-r.at < reuseHalf {
		return
	}
	for i := range r.hist {
		r.hist[i] /= 2
	}
	r.cold /= 2
	r.kept = (r.kept + float64(reads-r.base)) / 2
	r.at, r.base = now, reads
}

// A Point is one point of a miss-ratio curve.
type Point struct {
	Bytes int64   // size of the owned tier
	Ratio float64 // fraction of the reads reaching the tier that miss only because of its size
}

// Curve returns the miss-ratio curve at the given sizes, and about how many bytes all keys that were read would take.
// First reads of a key miss at any size and are left out. reads is how many have reached the tier.
func (r *ReuseCurve) Curve(sizes []int64, reads int64) (out []Point, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := 0.0
	for _, n := range r.hist {
		seen += n
	}
	// The result depends on whether the sample has the few hottest keys. As many reads as are missing, or in excess,
	// are near ones (SHARDS-adj).
	all := max(r.kept+float64(reads-r.base)-r.cold, 0)
	if all == 0 {
		all = seen
	}
	for _, size := range sizes {
		far := 0.0
		for i := reuseBucket(float64(size)) + 1; i < reuseBuckets; i++ {
			far += r.hist[i]
		}
		ratio := 0.0
		if all > 0 {
			ratio = min(far/all, 1)
		}
		out = append(out, Point{size, ratio})
	}
	return out, int64(float64(r.bytes) * float64(spreadAll) / float64(r.limit.Load()))
}
