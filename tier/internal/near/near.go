package near

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
)

const (
	// Overhead is what ristretto keeps for an entry in addition to the entry, in bytes: its share of two maps. Maps
	// double, so it is 108 to 163, depending on the number of entries; this is the mean. TestNearOverhead compares it
	// with the heap.
	Overhead = 136
	// counterBytes is what one of ristretto's counters takes: four rows of four bits, and eight bits of a bloom
	// filter. Ristretto rounds both up to a power of two, the second from 9.6 bits for each requested counter. So the
	// configuration requests five sixths of a power of two; otherwise the filter would be twice as large.
	counterBytes = 3
	// counterEvery is the number of bytes of the near tier for each counter. 10 to 30 counters an entry are best;
	// fewer cost hits, and so do many more. This value gives that to entries of 300 to 1000 bytes. The counters take
	// up to a tenth of the tier, which is subtracted from what entries may use.
	counterEvery = 32
	// frontEvery is the number of bytes of the near tier for each place in the front. A place takes eight bytes. Each
	// entry of 512 bytes gets two or more; twice as many are hardly faster.
	frontEvery = 128
	// Ristretto sees one in 1 << feedBits hits of the front. Compared with seeing all of them, a tier for a tenth of
	// the keys has about one point fewer hits, and one for a hundredth up to three points fewer.
	feedBits = 6

	cellCount = 128
)

// A Tier keeps boxes of type T. Its methods are safe for concurrent use, including Close. A nil *Tier is switched
// off: it finds nothing and keeps nothing.
type Tier[T any] struct {
	c          *ristretto.Cache[uint64, *entry[T]]
	front      []atomic.Pointer[entry[T]] // the length is a power of two
	seeds      [2]maphash.Seed
	entryBytes int64 // bytes of an entry, including ristretto's share for it
	closed     atomic.Bool
	_          [pad]byte
	cells      [cellCount]cell

	rejected atomic.Int64
	evicted  atomic.Int64
	dropped  atomic.Int64

	mu sync.Mutex // serializes Clear and Close; closed is set under it
}

// entry is a box with its key's hashes. The fields that a hit reads are together, at the beginning.
type entry[T any] struct {
	hash  uint64
	check atomic.Uint64 // 0: gone, since ristretto dropped it or never had it; it never changes otherwise
	box   T
}

const pad = 128 // cache lines are fetched in pairs

type cell struct {
	front                   atomic.Int64 // hits of the front, which do not pass the gate
	in, hits, misses, other atomic.Int64
	_                       [pad - 5*8]byte
}

// New returns a near tier that takes about maxBytes, ristretto's own memory included. It starts two goroutines, which
// Close joins.
func New[T any](maxBytes int64) (*Tier[T], error) { return newTuned[T](maxBytes, nil) }

// newTuned is New for tests: tune, if not nil, may change the configuration.
func newTuned[T any](maxBytes int64, tune func(*ristretto.Config[uint64, *entry[T]])) (*Tier[T], error) {
	counters, places := powerOf2(maxBytes/counterEvery), powerOf2(maxBytes/frontEvery)
	n := &Tier[T]{
		front:      make([]atomic.Pointer[entry[T]], places),
		seeds:      [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		entryBytes: Overhead + (int64(unsafe.Sizeof(entry[T]{}))+15)/16*16,
	}
	cfg := &ristretto.Config[uint64, *entry[T]]{
		NumCounters:        counters - counters/6,
		MaxCost:            max(maxBytes-counters*counterBytes-places*int64(unsafe.Sizeof(n.front[0])), 1),
		BufferItems:        64,
		IgnoreInternalCost: true, // Set adds the real cost
		KeyToHash:          func(hash uint64) (uint64, uint64) { return hash, 0 },
		OnReject:           func(*ristretto.Item[*entry[T]]) { n.rejected.Add(1) },
		OnEvict: func(*ristretto.Item[*entry[T]]) {
			if !n.closed.Load() {
				n.evicted.Add(1)
			}
		},
		OnExit: n.hide,
	}
	if tune != nil {
		tune(cfg)
	}
	c, err := ristretto.NewCache(cfg)
	if err != nil {
		return nil, fmt.Errorf("weir: near tier: %w", err)
	}
	n.c = c
	return n, nil
}

// powerOf2 returns the highest power of two that is at most most, but at least 64.
func powerOf2(most int64) int64 { return 1 << (bits.Len64(uint64(max(most, 64))) - 1) }

// hashes returns what identifies a key: hash locates it, and check confirms that it is the key. check is never 0.
func (n *Tier[T]) hashes(key string) (hash, check uint64) {
	return maphash.String(n.seeds[0], key), maphash.String(n.seeds[1], key) | 1
}

func (n *Tier[T]) place(hash uint64) *atomic.Pointer[entry[T]] {
	return &n.front[hash&uint64(len(n.front)-1)]
}

// show puts an entry that was found in ristretto into the front. The caller has passed the gate.
func (n *Tier[T]) show(e *entry[T]) {
	place := n.place(e.hash)
	place.Store(e)
	if e.check.Load() == 0 { // hide may have run before
		place.CompareAndSwap(e, nil)
	}
}

// hide removes an entry from the front. Ristretto calls it for each entry that it drops or rejects.
func (n *Tier[T]) hide(e *entry[T]) {
	if e == nil { // from a Del that found nothing
		return
	}
	e.check.Store(0)
	n.place(e.hash).CompareAndSwap(e, nil)
}

// cell picks a cell by the address of the goroutine's stack. Stacks are 2 KiB or more.
func (n *Tier[T]) cell() *cell {
	var here byte
	at := uintptr(unsafe.Pointer(&here))
	return &n.cells[(at>>11^at>>18)%cellCount]
}

// enter returns the cell through which the caller leaves; nil: the near tier is closed.
func (n *Tier[T]) enter() *cell {
	c := n.cell()
	c.in.Add(1)
	if n.closed.Load() {
		c.other.Add(1)
		return nil
	}
	return c
}

// Get returns a box that was set under key, not always the last one. It returns nil if there was none or if the near
// tier is closed. The box is shared and must not be changed. Get does not keep key.
func (n *Tier[T]) Get(key string) *T {
	if n == nil {
		return nil
	}
	hash, check := n.hashes(key)
	e := n.place(hash).Load()
	if e == nil || e.hash != hash || e.check.Load() != check {
		return n.look(hash, check)
	}
	// Multiples of the golden ratio: keys that come in turn are sampled equally.
	if count := uint64(n.cell().front.Add(1)); count*0x9E3779B97F4A7C15>>(64-feedBits) == 0 {
		n.feed(hash)
	}
	return &e.box
}

// look is Get for a key that is not in the front.
func (n *Tier[T]) look(hash, check uint64) *T {
	c := n.enter()
	if c == nil {
		return nil
	}
	e, ok := n.c.Get(hash)
	if !ok || e.check.Load() != check {
		c.misses.Add(1)
		return nil
	}
	n.show(e)
	c.hits.Add(1)
	return &e.box
}

// feed reports a hit to ristretto.
func (n *Tier[T]) feed(hash uint64) {
	if c := n.enter(); c != nil {
		n.c.Get(hash)
		c.other.Add(1)
	}
}

// Set offers box to the near tier, which may reject it. cost is the number of bytes that box refers to; Set adds the
// tier's own cost. It does not keep key, only its hashes.
func (n *Tier[T]) Set(key string, box T, cost int64) {
	if n == nil {
		return
	}
	c := n.enter()
	if c == nil {
		return
	}
	hash, check := n.hashes(key)
	e := &entry[T]{hash: hash, box: box}
	e.check.Store(check)
	if !n.c.Set(hash, e, max(cost, 0)+n.entryBytes) {
		n.dropped.Add(1)
	}
	c.other.Add(1)
}

// Del removes key. A Set that began before Del was called may still take effect after it. Del does not keep key. It
// may wait until ristretto has applied some of the pending sets.
func (n *Tier[T]) Del(key string) {
	if n == nil {
		return
	}
	c := n.enter()
	if c == nil {
		return
	}
	hash, _ := n.hashes(key)
	n.c.Del(hash)
	c.other.Add(1)
}

// Clear removes everything. A concurrent Set may take effect before or after it. Removed boxes count as evicted.
func (n *Tier[T]) Clear() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed.Load() {
		n.c.Clear()
	}
}

// Close ends the near tier and joins its goroutines. Later calls find nothing and do nothing.
func (n *Tier[T]) Close() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed.Swap(true) {
		return
	}
	for i := range n.cells {
		n.cells[i].drain()
	}
	n.c.Close()
	for i := range n.front { // no call uses show now; most places are empty, and a store costs more than a load
		if n.front[i].Load() != nil {
			n.front[i].Store(nil)
		}
	}
}

// drain returns when every caller that came in before the gate was shut is out. No caller stays longer than ristretto
// takes to apply a full buffer of sets.
func (c *cell) drain() {
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		out := c.hits.Load() + c.misses.Load() + c.other.Load()
		if c.in.Load() == out {
			return
		}
		time.Sleep(pause)
	}
}

// Stats counts what a near tier has done so far.
type Stats struct {
	Hits, misses int64 // of Get, before the box is tested
	Dropped      int64 // sets that found ristretto's buffer full
	Rejected     int64 // sets that its policy rejected, or that found another set of the key pending
	Evicted      int64 // boxes evicted to make room
	Bytes        int64 // what the boxes take, as Set counts it
}

// Hits returns how often Get has found a box.
func (n *Tier[T]) Hits() (hits int64) {
	if n == nil {
		return 0
	}
	for i := range n.cells {
		hits += n.cells[i].front.Load() + n.cells[i].hits.Load()
	}
	return hits
}

// Calls returns how many calls have passed the gate: lookups that missed the front, and all other calls. Tests use it.
func (n *Tier[T]) Calls() (calls int64) {
	if n == nil {
		return 0
	}
	for i := range n.cells {
		calls += n.cells[i].in.Load()
	}
	return calls
}

// Stats sums the counters. It takes ristretto's policy lock for a moment.
func (n *Tier[T]) Stats() (s Stats) {
	if n == nil {
		return s
	}
	for i := range n.cells {
		s.Hits += n.cells[i].front.Load() + n.cells[i].hits.Load()
		s.misses += n.cells[i].misses.Load()
	}
	s.Dropped = n.dropped.Load()
	s.Rejected = n.rejected.Load()
	s.Evicted = n.evicted.Load()
	s.Bytes = n.c.MaxCost() - n.c.RemainingCost()
	return s
}

// Wait returns when ristretto has applied or dropped every Set that was called before it. Tests use it.
func (n *Tier[T]) Wait() {
	if n == nil {
		return
	}
	c := n.enter()
	if c == nil {
		return
	}
	n.c.Wait()
	c.other.Add(1)
}

// InFront returns the box that the front has for key, or nil. It does not count as a hit. Tests use it.
func (n *Tier[T]) InFront(key string) *T {
	if n == nil {
		return nil
	}
	hash, check := n.hashes(key)
	if e := n.place(hash).Load(); e != nil && e.hash == hash && e.check.Load() == check {
		return &e.box
	}
	return nil
}
