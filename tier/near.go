package tier

import (
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
)

const (
	// nearOverhead is what ristretto keeps for an entry beside a box, in bytes: its share
	// of two maps. TestNearOverhead compares it with the heap.
	nearOverhead = 108
	// nearCounterBytes is what one of ristretto's counters takes: four rows of four bits and
	// ten bits of a bloom filter, rounded up to sixteen.
	nearCounterBytes = 4
	// nearCounterEvery is for how many bytes of the near tier there is a counter. 10 to 30
	// counters an entry are best, fewer and many more both cost hits: that is what this gives entries of
	// 300 to 1000 bytes. The counters take up to an eighth of the tier, which is taken off
	// what entries may use.
	nearCounterEvery = 32

	nearCells = 128
)

// near is a near tier whose boxes are of type T and are kept by value, in ristretto's own
// map: what the caller tests of a box is then in memory that finding it has touched already.
// A box behind a pointer is one more cache miss, 60 to 75 ns of a get of 150 to 220. near is
// the same with boxes behind pointers. A box is a value together with its validity; near never
// looks inside.
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
	c      *ristretto.Cache[string, T]
	closed atomic.Bool
	_      [nearPad]byte
	cells  [nearCells]nearCell
	slot   int64 // bytes of ristretto for a box

	rejected atomic.Int64
	evicted  atomic.Int64
	dropped  atomic.Int64

	mu sync.Mutex // makes clear and close take turns; closed is set under it
}

const nearPad = 128 // cache lines are fetched in pairs

type nearCell struct {
	in, hits, misses, other atomic.Int64
	_                       [nearPad - 4*8]byte
}

// newNear returns a near tier that takes about maxBytes, ristretto's own memory included.
// It starts two goroutines, which close joins. tune, if not nil, may change the configuration:
// tests do.
func newNear[T any](maxBytes int64, tune func(*ristretto.Config[string, T])) (*near[T], error) {
	var box T
	// The maps are between half and seven eighths full.
	n := &near[T]{slot: nearOverhead + int64(unsafe.Sizeof(box))*3/2}
	counters := int64(1) << (bits.Len64(uint64(max(maxBytes/nearCounterEvery, 64))) - 1)
	cfg := &ristretto.Config[string, T]{
		NumCounters:        counters,
		MaxCost:            max(maxBytes-counters*nearCounterBytes, 1),
		BufferItems:        64,
		IgnoreInternalCost: true, // set adds what it really is
		OnReject:           func(*ristretto.Item[T]) { n.rejected.Add(1) },
		OnEvict: func(*ristretto.Item[T]) {
			if !n.closed.Load() {
				n.evicted.Add(1)
			}
		},
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

// get returns a box that was set under key, not always the last one; false: there is none, or
// the near tier is closed. It does not keep key.
func (n *near[T]) get(key string) (box T, ok bool) {
	if n == nil {
		return box, false
	}
	c := n.enter()
	if c == nil {
		return box, false
	}
	box, ok = n.c.Get(key)
	if ok {
		c.hits.Add(1)
	} else {
		c.misses.Add(1)
	}
	return box, ok
}

// set offers box to the near tier, which may not take it. cost is the bytes that box refers
// to; what ristretto takes for it is added. It does not keep key, only its hashes: 128 bits,
// half of them seeded for each process.
func (n *near[T]) set(key string, box T, cost int64) {
	if n == nil {
		return
	}
	c := n.enter()
	if c == nil {
		return
	}
	if !n.c.Set(key, box, max(cost, 0)+n.slot) {
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
	n.c.Del(key)
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
		hits += n.cells[i].hits.Load()
	}
	return hits
}

// stats sums the counters. It takes ristretto's policy lock for a moment.
func (n *near[T]) stats() (s nearStats) {
	if n == nil {
		return s
	}
	for i := range n.cells {
		s.hits += n.cells[i].hits.Load()
		s.misses += n.cells[i].misses.Load()
	}
	s.dropped = n.dropped.Load()
	s.rejected = n.rejected.Load()
	s.evicted = n.evicted.Load()
	s.bytes = n.c.MaxCost() - n.c.RemainingCost()
	return s
}
