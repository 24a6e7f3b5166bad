package tier

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/store"
)

// keyRead is the read of one key in a multi-get.
type keyRead[V any] struct {
	key   string
	hash  uint64        // ring.Hash; while reads are added, the hash for many.table
	stamp uint64        // the fence clock when the read began
	have  *nearEntry[V] // a near copy that the owner may find to be still good, nil: none
	debt  fence.Debt    // what its owner must be told; the request carries the mark
	owner int32         // its place in the view, -1: no owner is to be asked

	// the result
	finding[V]
	answered bool // by its owner, or with the error of asking it
	why      store.StaleReason
	size     int32         // bytes of the value's encoding
	cost     time.Duration // of its load, 0: unknown
	err      error         // ErrNotFound only when warming
}

// multiGet is the reads of one multi-get, of different keys, and what they have in common.
type multiGet[V any] struct {
	c     *Cache[V]
	reads []keyRead[V] // has room for all that are added; zero beyond its length
	view  *ring.View   // nil: no cluster
	chain []uint64
	wide  uint64 // the tag clock when they began
	began int64
	// warming: no value is read, the owners only need to have copies.
	warming bool

	seed   maphash.Seed
	table  []int32       // indexes into reads plus 1, by the keys' hashes; at least half of it is 0
	order  []*keyRead[V] // the reads whose owners are asked, by owner
	ends   []int32       // the ends of the owners' parts of order
	frames []frame[V]
	done   chan *codec.Call // has room for maxFrames

	mu      sync.Mutex    // guards the rest
	singles []*keyRead[V] // to be read as Get does
}

// single leaves reads to be made one by one, as Get does.
func (m *multiGet[V]) single(reads ...*keyRead[V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.singles = append(m.singles, reads...)
}

// add returns the index of the key's read, which it adds if there is none. Take no pointer to a read before all are
// added.
func (m *multiGet[V]) add(key string) int {
	mask := len(m.table) - 1
	hash := maphash.String(m.seed, key)
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		at := int(m.table[i]) - 1
		if at < 0 {
			at = len(m.reads)
			m.reads = m.reads[:at+1] // beyond its end it is zero
			r := &m.reads[at]
			r.key, r.hash = key, hash
			m.table[i] = int32(at + 1)
			return at
		}
		if r := &m.reads[at]; r.hash == hash && r.key == key {
			return at
		}
	}
}

// sort puts the n reads whose owners are asked in order of their owners; the view has that many places. It returns a
// function that returns the reads of each owner.
func (m *multiGet[V]) sort(places, n int) (of func(owner int) []*keyRead[V]) {
	m.ends = slices.Grow(m.ends[:0], places+1)[:places+1]
	clear(m.ends)
	for i := range m.reads {
		if o := m.reads[i].owner; o >= 0 {
			m.ends[o+1]++
		}
	}
	for i := 1; i <= places; i++ {
		m.ends[i] += m.ends[i-1]
	}
	m.order = slices.Grow(m.order[:0], n)[:n]
	for i := range m.reads {
		if r := &m.reads[i]; r.owner >= 0 {
			m.order[m.ends[r.owner]] = r
			m.ends[r.owner]++ // once all are placed, this is the end of the owner's part
		}
	}
	return func(owner int) []*keyRead[V] {
		from := int32(0)
		if owner > 0 {
			from = m.ends[owner-1]
		}
		return m.order[from:m.ends[owner]:m.ends[owner]]
	}
}

// multiGetPool keeps the memory of finished multi-gets for later ones.
type multiGetPool[V any] struct {
	pool sync.Pool // of *multiGet[V]
	seed maphash.Seed
}

// lotKept is the largest multi-get, in keys, whose memory is kept.
const lotKept = 4096

// get returns a multi-get of c with room for n keys.
func (l *multiGetPool[V]) get(c *Cache[V], n int) *multiGet[V] {
	m, _ := l.pool.Get().(*multiGet[V])
	if m == nil {
		m = &multiGet[V]{seed: l.seed, done: make(chan *codec.Call, maxFrames)}
	}
	m.c = c
	size := 16
	for size < 2*n {
		size *= 2
	}
	m.table = slices.Grow(m.table[:0], size)[:size]
	clear(m.table)
	if cap(m.reads) < n {
		m.reads = make([]keyRead[V], 0, n)
	}
	return m
}

// put takes back a multi-get that nobody uses any more.
func (l *multiGetPool[V]) put(m *multiGet[V]) {
	if cap(m.reads) > lotKept {
		return
	}
	clear(m.reads)
	clear(m.order)
	clear(m.frames)
	clear(m.singles)
	*m = multiGet[V]{
		seed: m.seed, done: m.done, table: m.table, ends: m.ends,
		reads: m.reads[:0], order: m.order[:0], frames: m.frames[:0], singles: m.singles[:0],
	}
	l.pool.Put(m)
}
