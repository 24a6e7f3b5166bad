package tier

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// The owned tier must hold what was filled: a value that its store drops a moment later is
// a second load at the origin. So three things count: how often a key is there (hit ratio),
// whether what was just set is there (at once, and some fills later), and memory. Measured
// with 4M requests of Zipf 0.99 over 1M keys, the first half warming, and with two traces from
// cold (web07: 76,118 requests, 20,484 keys; cloudphysics: 113,872 and 48,974), capacity
// 1 % and 10 % of the keys, all entries of one size:
//
//	                        hit ratio, %                            gone, % of new keys,
//	                        web07       cloudphysics  Zipf          n fills later         bytes  get  set
//	                        1 %   10 %  1 %    10 %   1 %    10 %   n=0   10   100  500   a key  ns   ns
//	this store              43.2  58.4  17.1   25.2   64.7   80.7     0    0     0    0    99    126  225
//	otter v2.4.0            46.3  56.8  16.9   25.2   64.2   79.4     0    6    44   68    98    123  325
//	  same, not async       42.7  55.2  16.4   24.6   63.9   80.4     0   30    35   49    97    240  469
//	  same + FIFO of 5 %    43.1  57.3  17.0   25.5   63.2   80.5     0    0     0   16   103    318  614
//	theine v0.6.3           44.9  57.0  17.2   26.5   64.8   80.7     0  0.6     4   12   142    365  422
//	ristretto v2.4.2        11.5  34.2   7.5   13.1   58.9   75.0   100  100   100  100   392    172  355
//	  same + overlay of 5 % 33.9  48.2  12.9   23.1   58.3   74.5     0    0     0   99   300    168  440
//	golang-lru v2.0.7 LRU   39.2  55.7  16.2   19.5   56.6   76.6     0    0     0    0   115    135  224
//	  same, 2Q              42.1  57.8  17.2   23.5   63.1   79.7     0    0     0    0   115    196  453
//	  same, ARC             42.0  58.1  17.3   24.8   64.4   80.5     0    0    64   86   115    202  408
//	SIEVE (a sketch)        41.5  58.0  17.1   20.9   64.4   80.1     0    1    24   63    99    129  250
//
// Gone: Zipf at 1 %, a million fills in a loop. Bytes: the heap of a store that is not yet
// full, without values, keys and entries. Nanoseconds: one goroutine, 100,000 keys, the least of
// several runs on a shared machine. ristretto had 30 counters an entry, and drops sets in
// such a loop. otter's and theine's work goes on behind the loop: at web07's 1 %, 204 keys,
// otter holds more than it should.
//
// Sizes count too: of 1000 values of 200 KiB set in an otter of 8 MiB full of 500-byte ones,
// 999 were gone as soon as its maintenance had run.
//
// W-TinyLFU (otter, theine) has the hit ratio, but lets a new key compete with old ones before
// anyone could ask for it again, the sooner the larger it is; ristretto refuses it outright;
// LRU keeps it at the price of four to eight points under Zipf. golang-lru's 2Q comes closest, but
// counts entries, not bytes, and its gets take turns. A TinyLFU with a queue of new keys beside it
// would do what S3-FIFO does with less. So the store is an S3-FIFO (Yang et al., SOSP 2023) of
// our own: no dependency, no goroutine, and nothing is left to do when set has returned.
//
//   - A new key enters the young queue, a tenth of the bytes. Who was asked for by the time
//     it reaches the end moves to the main queue; who was not is evicted, and its hash is
//     remembered for as many evictions as there are entries: if it comes back, it enters the
//     main queue.
//   - Who reaches the end of the main queue and was asked for since goes round again, at
//     most three times on credit.
//
// So what was set stays until a tenth of the bytes has been set after it. A hit moves
// nothing: it adds to a counter up to three, and then not even that.

// ownedStore keeps the owned tier's entries within a number of bytes. All methods are safe
// for concurrent use.
type ownedStore interface {
	// get returns the entry of key. It does not keep key.
	get(key string) (*entry, bool)
	// set stores e, replacing what key had. It is never refused, unless e alone is larger than the store, which
	// Config.ValueLimit rules out; get sees it as soon as set has returned. It keeps key and e: they must not share memory with a reused buffer.
	set(key string, e *entry)
	// delete removes key. It does not keep key.
	delete(key string)
	// len is the number of entries.
	len() int
	// bytes is what the entries weigh together.
	bytes() int64
	// replicas are how many of the entries are replicas, and what those weigh.
	replicas() (entries int, bytes int64)
	// each calls f, with no lock held, for entries until f returns false. What is there from
	// beginning to end is seen once; what comes or goes meanwhile may be.
	each(f func(key string, e *entry) bool)
	// ranked calls f for each entry as it is, with a lock held, so f must not call back. heat is how
	// much it was asked for, from 0 to codec.MaxHeat.
	ranked(f func(key string, e *entry, heat uint8))
	// close empties the store. After it, set does nothing and get finds nothing.
	close()
}

const (
	ownedShards = 64
	// youngShare is the part of the bytes that new keys are given: one in youngShare.
	youngShare = 10
	// ownedCredit is how many hits an entry is given credit for.
	ownedCredit = 3
	// evictSteps bounds how many entries are looked at to find one to evict: with millions
	// of entries that are all in use one set would otherwise go over all of them, several times.
	evictSteps = 64

	// ownedOverhead is what an entry costs beside its key and its value, in bytes: the
	// node, its share of the map and of the ghosts, and the entry. TestOwnedOverhead
	// compares it with the heap.
	ownedOverhead = int64(unsafe.Sizeof(entry{})) + 122
)

// weight is what an entry costs in bytes.
func weight(key string, e *entry) int64 {
	w := int64(len(key)) + int64(cap(e.value)) + ownedOverhead
	if e.tags != nil {
		w += int64(unsafe.Sizeof(*e.tags)) + 4*int64(cap(e.tags.List()))
	}
	if e.rare != nil {
		w += int64(unsafe.Sizeof(*e.rare))
		if e.rare.full != nil {
			w += int64(unsafe.Sizeof(*e.rare.full))
		}
	}
	return w
}

// owned is the ownedStore. Changes are made one at a time, under mu; there are as many of them
// as there are fills, so few. Gets take only the read lock of their key's shard.
//
// Lock order: mu, then a shard's mu, one at a time. Nothing is called with a lock held.
type owned struct {
	seed    maphash.Seed
	mask    uint64 // what of a hash is used: all but in tests
	max     int64
	onEvict func(key string, e *entry)
	shards  [ownedShards]ownedShard
	count   atomic.Int64
	weighs  atomic.Int64

	spare, spareWeighs atomic.Int64 // of both, what is replicas; changed with mu held

	mu     sync.Mutex // guards the rest and the nodes' weight, links and queue, and orders all changes
	young  nodeQueue
	main   nodeQueue
	ghosts ghosts
	closed bool
}

type ownedShard struct {
	mu sync.RWMutex // guards m and its nodes' e and same; all change only with owned.mu held too
	// By hash, not by key: a slot is eight bytes smaller. Keys of one hash, of which there are hardly ever
	// any, are linked by same.
	m map[uint64]*ownedNode
	_ [96]byte // two shards never share a cache line, nor a pair of them
}

type ownedNode struct {
	key        string
	e          *entry
	weight     int64
	prev, next *ownedNode
	same       *ownedNode    // another key of the same hash
	credit     atomic.Uint32 // hits, up to ownedCredit
	main       bool          // it is in the main queue, or was when it was taken out
}

// find returns key's node, nil: there is none. The caller holds sh.mu or owned.mu.
func (sh *ownedShard) find(hash uint64, key string) *ownedNode {
	n := sh.m[hash]
	for n != nil && n.key != key {
		n = n.same
	}
	return n
}

// newOwned returns a store for maxBytes bytes, as weight counts them. An entry that alone weighs more is not kept. onEvict, if not nil, is called for each entry that had to go to make
// room, by the goroutine whose set it was, with no lock of the store held; the key may have
// been set again by then.
func newOwned(maxBytes int64, onEvict func(key string, e *entry)) *owned {
	s := &owned{seed: maphash.MakeSeed(), mask: ^uint64(0), max: maxBytes, onEvict: onEvict}
	for i := range s.shards {
		s.shards[i].m = make(map[uint64]*ownedNode)
	}
	s.main.main = true
	s.young.init()
	s.main.init()
	return s
}

func (s *owned) hash(key string) uint64 { return maphash.String(s.seed, key) & s.mask }

// home is the queue that n is in, or was in when it was taken out. The caller holds mu.
func (s *owned) home(n *ownedNode) *nodeQueue {
	if n.main {
		return &s.main
	}
	return &s.young
}

func (s *owned) shard(hash uint64) *ownedShard { return &s.shards[hash%ownedShards] }

func (s *owned) get(key string) (*entry, bool) {
	hash := s.hash(key)
	sh := s.shard(hash)
	sh.mu.RLock()
	n := sh.find(hash, key)
	if n == nil {
		sh.mu.RUnlock()
		return nil, false
	}
	e := n.e
	sh.mu.RUnlock()
	// Two hits at once may count as one: cheaper than an atomic add, and as good.
	if c := n.credit.Load(); c < ownedCredit {
		n.credit.Store(c + 1)
	}
	return e, true
}

func (s *owned) set(key string, e *entry) {
	hash := s.hash(key)
	sh := s.shard(hash)
	w := weight(key, e)

	if w > s.max { // it would drive out all others, and leave the tier larger than it may be
		s.delete(key)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	n := sh.find(hash, key) // no shard's map changes while mu is held
	if n == nil {
		gone := s.makeRoom(w)
		n = &ownedNode{key: key, e: e, weight: w}
		if s.ghosts.recall(hash, s.count.Load()) {
			s.main.push(n)
		} else {
			s.young.push(n)
		}
		sh.mu.Lock()
		n.same = sh.m[hash] // after makeRoom, which may have removed some
		sh.m[hash] = n
		sh.mu.Unlock()
		s.count.Add(1)
		s.tally(n, 1)
		s.settle(gone)
		return
	}
	// A new value is as good as a new key: it goes to the back of its queue. While it is
	// in none it cannot be evicted for its own sake.
	home := s.home(n)
	home.remove(n)
	s.tally(n, -1)
	gone := s.makeRoom(w)
	n.weight = w
	home.push(n)
	sh.mu.Lock()
	n.e = e
	sh.mu.Unlock()
	s.tally(n, 1)
	s.settle(gone)
}

// settle ends a set: it gives up mu and reports who is gone.
func (s *owned) settle(gone *ownedNode) {
	s.weighs.Store(s.young.bytes + s.main.bytes)
	s.mu.Unlock()
	if s.onEvict == nil {
		return
	}
	for ; gone != nil; gone = gone.next {
		s.onEvict(gone.key, gone.e) // out of the map: no one writes to it any more
	}
}

func (s *owned) delete(key string) {
	hash := s.hash(key)
	sh := s.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := sh.find(hash, key)
	if n == nil {
		return
	}
	s.home(n).remove(n)
	s.forget(sh, hash, n)
	s.weighs.Store(s.young.bytes + s.main.bytes)
}

// forget takes n, which is in no queue any more, out of its shard. The caller holds mu.
func (s *owned) forget(sh *ownedShard, hash uint64, n *ownedNode) {
	sh.mu.Lock()
	if first := sh.m[hash]; first != n {
		for first.same != n {
			first = first.same
		}
		first.same = n.same
	} else if n.same != nil {
		sh.m[hash] = n.same
	} else {
		delete(sh.m, hash)
	}
	sh.mu.Unlock()
	s.count.Add(-1)
	s.tally(n, -1)
}

// makeRoom evicts until w more bytes fit or nothing is left in the queues, and returns
// who had to go, linked by next. The caller holds mu.
func (s *owned) makeRoom(w int64) (gone *ownedNode) {
	for s.young.bytes+s.main.bytes+w > s.max {
		n := s.victim()
		if n == nil {
			break
		}
		hash := s.hash(n.key)
		if !n.main {
			s.ghosts.remember(hash, s.count.Load())
		}
		s.forget(s.shard(hash), hash, n)
		n.next, gone = gone, n
	}
	return gone
}

// victim takes the entry to evict next out of its queue; nil: there is none. The caller
// holds mu.
func (s *owned) victim() *ownedNode {
	for range evictSteps {
		if s.young.bytes > s.max/youngShare || s.main.first() == nil {
			n := s.young.first()
			if n == nil {
				return nil
			}
			s.young.remove(n)
			if n.credit.Load() == 0 {
				return n
			}
			n.credit.Store(0)
			s.main.push(n)
			continue
		}
		n := s.main.first()
		s.main.remove(n)
		c := n.credit.Load()
		if c == 0 {
			return n
		}
		n.credit.Store(c - 1)
		s.main.push(n)
	}
	n := s.main.first()
	if n == nil {
		n = s.young.first()
	}
	s.home(n).remove(n)
	return n
}

// tally counts n, which has come, or with -1 is gone, if it is a replica. The caller holds mu.
func (s *owned) tally(n *ownedNode, sign int64) {
	if n.e.replica {
		s.spare.Add(sign)
		s.spareWeighs.Add(sign * n.weight)
	}
}

func (s *owned) replicas() (entries int, bytes int64) {
	return int(s.spare.Load()), s.spareWeighs.Load()
}

func (s *owned) len() int     { return int(s.count.Load()) }
func (s *owned) bytes() int64 { return s.weighs.Load() }

func (s *owned) each(f func(key string, e *entry) bool) {
	type pair struct {
		key string
		e   *entry
	}
	var pairs []pair
	for i := range s.shards {
		sh := &s.shards[i]
		pairs = pairs[:0]
		sh.mu.RLock()
		for _, n := range sh.m {
			for ; n != nil; n = n.same {
				pairs = append(pairs, pair{n.key, n.e})
			}
		}
		sh.mu.RUnlock()
		for _, p := range pairs {
			if !f(p.key, p.e) {
				return
			}
		}
	}
}

func (s *owned) ranked(f func(key string, e *entry, heat uint8)) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		for _, n := range sh.m {
			for ; n != nil; n = n.same {
				f(n.key, n.e, uint8(n.credit.Load()))
			}
		}
		sh.mu.RUnlock()
	}
}

func (s *owned) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.m = nil
		sh.mu.Unlock()
	}
	s.young.init()
	s.main.init()
	s.ghosts = ghosts{}
	s.count.Store(0)
	s.weighs.Store(0)
	s.spare.Store(0)
	s.spareWeighs.Store(0)
}

// nodeQueue is a doubly linked list of nodes with their weight: in at the back, out at the
// front or anywhere.
type nodeQueue struct {
	root  ownedNode // root.next is the front, root.prev the back
	bytes int64
	main  bool // which of the two it is; never changes
}

func (q *nodeQueue) init() {
	q.root.next, q.root.prev = &q.root, &q.root
	q.bytes = 0
}

func (q *nodeQueue) first() *ownedNode {
	if q.root.next == &q.root {
		return nil
	}
	return q.root.next
}

func (q *nodeQueue) push(n *ownedNode) {
	n.prev, n.next, n.main = q.root.prev, &q.root, q.main
	n.prev.next, n.next.prev = n, n
	q.bytes += n.weight
}

// remove leaves n.main: it tells where n was.
func (q *nodeQueue) remove(n *ownedNode) {
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
	q.bytes -= n.weight
}

// ghosts remember by their hashes the keys that were evicted from the young queue lately. A
// slot has the upper half of a hash and the number of its eviction. A key can be noted in
// ghostWays slots, where it takes the place of the oldest, so only some are forgotten early.
type ghosts struct {
	slots []uint64
	seq   uint32
}

const ghostWays = 4

func (g *ghosts) ways(hash uint64) []uint64 {
	i := hash & uint64(len(g.slots)-1) &^ (ghostWays - 1)
	return g.slots[i : i+ghostWays]
}

// remember notes that the key with this hash, one of count, was evicted.
func (g *ghosts) remember(hash uint64, count int64) {
	if int64(len(g.slots)) < count+1 {
		// Grown rarely: there is nothing to remember before the store is full, and from
		// then on count changes only as the sizes of values do. What was noted is lost.
		g.slots = make([]uint64, max(ghostWays, 1<<bits.Len64(uint64(count))))
	}
	g.seq++
	ways := g.ways(hash)
	oldest := 0
	for i, slot := range ways {
		if g.seq-uint32(slot) > g.seq-uint32(ways[oldest]) {
			oldest = i
		}
	}
	ways[oldest] = hash&^(1<<32-1) | uint64(g.seq)
}

// recall reports whether the key with this hash was among the last count evicted.
func (g *ghosts) recall(hash uint64, count int64) bool {
	if len(g.slots) == 0 {
		return false
	}
	for _, slot := range g.ways(hash) {
		if slot != 0 && slot>>32 == hash>>32 && int64(g.seq-uint32(slot)) < count {
			return true
		}
	}
	return false
}
