package store

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Owned keeps the owned tier's entries within a number of bytes. All methods are safe
// for concurrent use.
type Owned interface {
	// Get returns the entry of key. It does not keep key.
	Get(key string) (*Entry, bool)
	// Set stores e, replacing what key had. It is never refused, unless e alone is larger than the store, which
	// Config.ValueLimit rules out; Get sees it as soon as Set has returned. It keeps key and e: they must not share memory with a reused buffer.
	Set(key string, e *Entry)
	// Delete removes key. It does not keep key.
	Delete(key string)
	// Len is the number of entries.
	Len() int
	// Bytes is what the entries weigh together.
	Bytes() int64
	// Replicas are how many of the entries are replicas, and what those weigh.
	Replicas() (entries int, bytes int64)
	// Each calls f, with no lock held, for entries until f returns false. What is there from
	// beginning to end is seen once; what comes or goes meanwhile may be.
	Each(f func(key string, e *Entry) bool)
	// Ranked calls f for each entry as it is, with a lock held, so f must not call back. heat is how
	// much it was asked for, from 0 to codec.MaxHeat.
	Ranked(f func(key string, e *Entry, heat uint8))
	// Close empties the store. After it, Set does nothing and Get finds nothing.
	Close()
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

	// Overhead is what an entry costs beside its key and its value, in bytes: the
	// node, its share of the map and of the ghosts, and the entry. TestOwnedOverhead
	// compares it with the heap.
	Overhead = int64(unsafe.Sizeof(Entry{})) + 122
)

// Weight is what an entry costs in bytes.
func Weight(key string, e *Entry) int64 {
	w := int64(len(key)) + int64(cap(e.Value)) + Overhead
	if e.Tags != nil {
		w += int64(unsafe.Sizeof(*e.Tags)) + 4*int64(cap(e.Tags.List()))
	}
	if e.Rare != nil {
		w += int64(unsafe.Sizeof(*e.Rare))
		if e.Rare.Full != nil {
			w += int64(unsafe.Sizeof(*e.Rare.Full))
		}
	}
	return w
}

// s3fifo is the Owned. Changes are made one at a time, under mu; there are as many of them
// as there are fills, so few. Gets take only the read lock of their key's shard.
//
// Lock order: mu, then a shard's mu, one at a time. Nothing is called with a lock held.
type s3fifo struct {
	seed    maphash.Seed
	mask    uint64 // what of a hash is used: all but in tests
	max     int64
	onEvict func(key string, e *Entry)
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
	e          *Entry
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

// New returns a store for maxBytes bytes, as weight counts them. An entry that alone weighs more is not kept. onEvict, if not nil, is called for each entry that had to go to make
// room, by the goroutine whose set it was, with no lock of the store held; the key may have
// been set again by then.
func New(maxBytes int64, onEvict func(key string, e *Entry)) Owned {
	return newS3FIFO(maxBytes, onEvict)
}

func newS3FIFO(maxBytes int64, onEvict func(key string, e *Entry)) *s3fifo {
	s := &s3fifo{seed: maphash.MakeSeed(), mask: ^uint64(0), max: maxBytes, onEvict: onEvict}
	for i := range s.shards {
		s.shards[i].m = make(map[uint64]*ownedNode)
	}
	s.main.main = true
	s.young.init()
	s.main.init()
	return s
}

func (s *s3fifo) hash(key string) uint64 { return maphash.String(s.seed, key) & s.mask }

// home is the queue that n is in, or was in when it was taken out. The caller holds mu.
func (s *s3fifo) home(n *ownedNode) *nodeQueue {
	if n.main {
		return &s.main
	}
	return &s.young
}

func (s *s3fifo) shard(hash uint64) *ownedShard { return &s.shards[hash%ownedShards] }

func (s *s3fifo) Get(key string) (*Entry, bool) {
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

func (s *s3fifo) Set(key string, e *Entry) {
	hash := s.hash(key)
	sh := s.shard(hash)
	w := Weight(key, e)

	if w > s.max { // it would drive out all others, and leave the tier larger than it may be
		s.Delete(key)
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
func (s *s3fifo) settle(gone *ownedNode) {
	s.weighs.Store(s.young.bytes + s.main.bytes)
	s.mu.Unlock()
	if s.onEvict == nil {
		return
	}
	for ; gone != nil; gone = gone.next {
		s.onEvict(gone.key, gone.e) // out of the map: no one writes to it any more
	}
}

func (s *s3fifo) Delete(key string) {
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
func (s *s3fifo) forget(sh *ownedShard, hash uint64, n *ownedNode) {
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
func (s *s3fifo) makeRoom(w int64) (gone *ownedNode) {
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
func (s *s3fifo) victim() *ownedNode {
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
func (s *s3fifo) tally(n *ownedNode, sign int64) {
	if n.e.Replica {
		s.spare.Add(sign)
		s.spareWeighs.Add(sign * n.weight)
	}
}

func (s *s3fifo) Replicas() (entries int, bytes int64) {
	return int(s.spare.Load()), s.spareWeighs.Load()
}

func (s *s3fifo) Len() int     { return int(s.count.Load()) }
func (s *s3fifo) Bytes() int64 { return s.weighs.Load() }

func (s *s3fifo) Each(f func(key string, e *Entry) bool) {
	type pair struct {
		key string
		e   *Entry
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

func (s *s3fifo) Ranked(f func(key string, e *Entry, heat uint8)) {
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

func (s *s3fifo) Close() {
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
