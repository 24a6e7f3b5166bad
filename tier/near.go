package tier

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
)

const (
	// nearOverhead is what ristretto keeps for an entry beside the entry, in bytes: its share
	// of two maps. Maps double, so it is 108 to 163, by how many entries there are; this is the mean.
	// TestNearOverhead compares it with the heap.
	nearOverhead = 136
	// nearCounterBytes is what one of ristretto's counters takes: four rows of four bits and eight bits of a
	// bloom filter. Ristretto rounds both up to a power of two, the second from 9.6 bits for a counter that it is
	// told of: so it is told of five sixths of a power of two, or the filter would be twice as large.
	nearCounterBytes = 3
	// nearCounterEvery is for how many bytes of the near tier there is a counter. 10 to 30
	// counters an entry are best, fewer and many more both cost hits: that is what this gives entries of
	// 300 to 1000 bytes. The counters take up to a tenth of the tier, which is taken off
	// what entries may use.
	nearCounterEvery = 32
	// nearFrontEvery is for how many bytes of the near tier there is a place in the front, of
	// eight bytes: two or more for each entry of 512 bytes. Twice as many are hardly faster.
	nearFrontEvery = 128
	// Ristretto hears of one in 1 << nearFeedBits hits of the front. Compared with all of them, a tier
	// for a tenth of the keys has about one point fewer hits, one for a hundredth up to three more.
	nearFeedBits = 6

	nearCells = 128
)

// near is a near tier whose boxes are of type T: ristretto decides what is in it, and a front
// of its own finds most of what is in it faster. A box is a value together with its validity;
// near never looks inside.
//
// What ristretto does, and why it does not matter here:
//
//   - A Set is applied later, or dropped, or refused. A near tier may miss.
//   - While a Set of a key is pending, a second one is lost and the first one's value
//     stays. A Set that is pending can overtake a Del. So get may return any box that was
//     ever set under the key: whoever calls get must test what is in the box, each time.
//   - A Close that races with a Get or Set panics, hangs or is a data race. So each
//     call passes a gate, which close shuts before it waits for those inside.
//
// The front is a table of pointers to entries that ristretto has. The key's hash picks the place,
// and who was found in ristretto last has it. A hit there takes no lock and does not touch
// ristretto, so it needs no gate. It holds nothing that ristretto does not: ristretto reports
// each entry that leaves it, which marks the entry as gone and then takes it from its place; who
// puts an entry in front looks at the mark afterwards. One of the two sees the other. An entry that a
// place holds for a moment longer is a box that was set under the key, as any other.
// Ristretto must hear of hits to know what to keep, and a sample of them is enough.
//
// A key is known by 127 bits of hash, all of them seeded for each near tier: who chooses keys
// cannot make one find another's box.
//
// The gate is a set of counters, of which a call uses the one that its goroutine's stack
// address picks, so that goroutines that run at the same time rarely share one. A call adds to
// in, then looks at closed, then uses ristretto, then adds to one of the ways out; these are
// the counts of hits and misses too. close first sets closed, then waits for each
// cell until as many are out as in. Go's atomics are sequentially consistent, so a call that saw
// closed unset had added to in before close reads it; and close reads the ways out before in,
// so each call that it counts as out is counted as in. Equal counts thus mean that no one
// who saw closed unset is still inside, and who comes later leaves ristretto alone.
//
// A nil *near is a near tier that is off: nothing is found, nothing is kept.
type near[T any] struct {
	c      *ristretto.Cache[uint64, *nearEntry[T]]
	front  []atomic.Pointer[nearEntry[T]] // as many as a power of two
	seeds  [2]maphash.Seed
	entry  int64 // bytes of an entry, and of ristretto for it
	closed atomic.Bool
	_      [nearPad]byte
	cells  [nearCells]nearCell

	rejected atomic.Int64
	evicted  atomic.Int64
	dropped  atomic.Int64

	mu sync.Mutex // makes clear and close take turns; closed is set under it
}

// nearEntry is a box and its key's hashes. What a hit reads is together, at the beginning.
type nearEntry[T any] struct {
	hash  uint64
	check atomic.Uint64 // 0: gone, ristretto has it no longer, or never had it; it never changes otherwise
	box   T
}

const nearPad = 128 // cache lines are fetched in pairs

type nearCell struct {
	front                   atomic.Int64 // hits of the front, which pass no gate
	in, hits, misses, other atomic.Int64
	_                       [nearPad - 5*8]byte
}

// newNear returns a near tier that takes about maxBytes, ristretto's own memory included. It starts two goroutines, which
// close joins.
func newNear[T any](maxBytes int64) (*near[T], error) { return newTuned[T](maxBytes, nil) }

// newTuned is newNear for tests: tune, if not nil, may change the configuration.
func newTuned[T any](maxBytes int64, tune func(*ristretto.Config[uint64, *nearEntry[T]])) (*near[T], error) {
	counters, places := powerOf2(maxBytes/nearCounterEvery), powerOf2(maxBytes/nearFrontEvery)
	n := &near[T]{
		front: make([]atomic.Pointer[nearEntry[T]], places),
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		entry: nearOverhead + (int64(unsafe.Sizeof(nearEntry[T]{}))+15)/16*16,
	}
	cfg := &ristretto.Config[uint64, *nearEntry[T]]{
		NumCounters:        counters - counters/6,
		MaxCost:            max(maxBytes-counters*nearCounterBytes-places*int64(unsafe.Sizeof(n.front[0])), 1),
		BufferItems:        64,
		IgnoreInternalCost: true, // set adds what it really is
		KeyToHash:          func(hash uint64) (uint64, uint64) { return hash, 0 },
		OnReject:           func(*ristretto.Item[*nearEntry[T]]) { n.rejected.Add(1) },
		OnEvict: func(*ristretto.Item[*nearEntry[T]]) {
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

// powerOf2 is the highest power of two that is not above most, but 64 at least.
func powerOf2(most int64) int64 { return 1 << (bits.Len64(uint64(max(most, 64))) - 1) }

// hashes are what a key is known by: where it is, and that it is the key. check is never 0.
func (n *near[T]) hashes(key string) (hash, check uint64) {
	return maphash.String(n.seeds[0], key), maphash.String(n.seeds[1], key) | 1
}

func (n *near[T]) place(hash uint64) *atomic.Pointer[nearEntry[T]] {
	return &n.front[hash&uint64(len(n.front)-1)]
}

// show puts an entry that was found in ristretto in front. The caller has passed the gate.
func (n *near[T]) show(e *nearEntry[T]) {
	place := n.place(e.hash)
	place.Store(e)
	if e.check.Load() == 0 { // hide may have looked before
		place.CompareAndSwap(e, nil)
	}
}

// hide takes an entry from the front; ristretto calls it for each that leaves or is refused.
func (n *near[T]) hide(e *nearEntry[T]) {
	if e == nil { // of a Del that found nothing
		return
	}
	e.check.Store(0)
	n.place(e.hash).CompareAndSwap(e, nil)
}

// cell picks a cell by where the goroutine's stack is. Stacks are 2 KiB or more.
func (n *near[T]) cell() *nearCell {
	var here byte
	at := uintptr(unsafe.Pointer(&here))
	return &n.cells[(at>>11^at>>18)%nearCells]
}

// enter returns the cell to leave by; nil: the near tier is closed.
func (n *near[T]) enter() *nearCell {
	c := n.cell()
	c.in.Add(1)
	if n.closed.Load() {
		c.other.Add(1)
		return nil
	}
	return c
}

// get returns a box that was set under key, not always the last one; nil: there is none, or
// the near tier is closed. The box is shared and must not be changed. It does not keep key.
func (n *near[T]) get(key string) *T {
	if n == nil {
		return nil
	}
	hash, check := n.hashes(key)
	e := n.place(hash).Load()
	if e == nil || e.hash != hash || e.check.Load() != check {
		return n.look(hash, check)
	}
	// Multiples of the golden ratio: keys that come in turn are sampled alike.
	if count := uint64(n.cell().front.Add(1)); count*0x9E3779B97F4A7C15>>(64-nearFeedBits) == 0 {
		n.feed(hash)
	}
	return &e.box
}

// look is get of what is not in front.
func (n *near[T]) look(hash, check uint64) *T {
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

// feed tells ristretto of a hit.
func (n *near[T]) feed(hash uint64) {
	if c := n.enter(); c != nil {
		n.c.Get(hash)
		c.other.Add(1)
	}
}

// set offers box to the near tier, which may not take it. cost is the bytes that box refers
// to; what the near tier takes for it is added. It does not keep key, only its hashes.
func (n *near[T]) set(key string, box T, cost int64) {
	if n == nil {
		return
	}
	c := n.enter()
	if c == nil {
		return
	}
	hash, check := n.hashes(key)
	e := &nearEntry[T]{hash: hash, box: box}
	e.check.Store(check)
	if !n.c.Set(hash, e, max(cost, 0)+n.entry) {
		n.dropped.Add(1)
	}
	c.other.Add(1)
}

// del removes key. A set that began before del was called may still come after it. It does not
// keep key. It can wait until ristretto has applied some of the pending sets.
func (n *near[T]) del(key string) {
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

// clear removes everything. Sets that run at the same time may come before or after it. What is
// removed counts as evicted.
func (n *near[T]) clear() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed.Load() {
		n.c.Clear()
	}
}

// close ends the near tier and joins its goroutines. Calls that come later find nothing and do
// nothing.
func (n *near[T]) close() {
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
	for i := range n.front { // nobody shows anything now; most places are empty, and a store costs more than a look
		if n.front[i].Load() != nil {
			n.front[i].Store(nil)
		}
	}
}

// drain returns when everyone who came in before the gate was shut is out. Nobody stays for
// longer than ristretto takes to apply a full buffer of sets.
func (c *nearCell) drain() {
	pause := 10 * time.Microsecond
	for tries := 0; ; tries++ {
		out := c.hits.Load() + c.misses.Load() + c.other.Load()
		if c.in.Load() == out {
			return
		}
		if tries < 100 {
			runtime.Gosched()
			continue
		}
		time.Sleep(pause)
		pause = min(2*pause, time.Millisecond)
	}
}

// nearStats is what a near tier has done so far.
type nearStats struct {
	hits, misses int64 // of get, before the box is tested
	dropped      int64 // sets that found ristretto's buffer full
	rejected     int64 // sets that its policy refused, or that found one of the key pending
	evicted      int64 // boxes that made room for others
	bytes        int64 // what the boxes take, as set counts it
}

// hitCount is how often get has found a box.
func (n *near[T]) hitCount() (hits int64) {
	if n == nil {
		return 0
	}
	for i := range n.cells {
		hits += n.cells[i].front.Load() + n.cells[i].hits.Load()
	}
	return hits
}

// stats sums the counters. It takes ristretto's policy lock for a moment.
func (n *near[T]) stats() (s nearStats) {
	if n == nil {
		return s
	}
	for i := range n.cells {
		s.hits += n.cells[i].front.Load() + n.cells[i].hits.Load()
		s.misses += n.cells[i].misses.Load()
	}
	s.dropped = n.dropped.Load()
	s.rejected = n.rejected.Load()
	s.evicted = n.evicted.Load()
	s.bytes = n.c.MaxCost() - n.c.RemainingCost()
	return s
}

// wait returns when ristretto has decided on what was set before.
func (n *near[T]) wait() {
	if n != nil && !n.closed.Load() {
		n.c.Wait()
	}
}

// inFront returns the box that the front has for key, nil: none. It counts as no hit.
func (n *near[T]) inFront(key string) *T {
	hash, check := n.hashes(key)
	if e := n.place(hash).Load(); e != nil && e.hash == hash && e.check.Load() == check {
		return &e.box
	}
	return nil
}
