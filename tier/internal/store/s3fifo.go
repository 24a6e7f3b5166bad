package store

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Owned keeps the owned tier's entries within a number of bytes. All methods are safe for concurrent use.
type Owned interface {
	// Get returns the entry of key. It does not keep key.
	Get(key string) (*Entry, bool)
	// Set stores e, replacing the entry of key. It always succeeds unless e alone is larger than the store, which
	// Config.ValueLimit rules out. Get sees e as soon as Set has returned. Set keeps key and e: they must not share
	// memory with a reused buffer.
	Set(key string, e *Entry)
	// Delete removes key. It does not keep key.
	Delete(key string)
	// Len returns the number of entries.
	Len() int
	// Bytes returns the total weight of the entries.
	Bytes() int64
	// Replicas returns how many of the entries are replicas, and their weight.
	Replicas() (entries int, bytes int64)
	// Each calls f for entries, with no lock held, until f returns false. It visits an entry that exists from
	// beginning to end exactly once. It may or may not visit entries that come or go in the meantime.
	Each(f func(key string, e *Entry) bool)
	// Ranked calls f for each entry with a lock held, so f must not call back. heat is how much the entry was asked
	// for, from 0 to codec.MaxHeat.
	Ranked(f func(key string, e *Entry, heat uint8))
	// Close empties the store. After it, Set does nothing and Get finds nothing.
	Close()
}

const (
	ownedShards = 64
	// youngShare limits the bytes for new keys to one part in youngShare.
	youngShare = 10
	// ownedCredit is the largest number of hits that an entry gets credit for.
	ownedCredit = 3
	// evictSteps bounds how many entries one eviction looks at. With millions of entries that are all in use, one Set
	// would otherwise go over all of them, several times.
	evictSteps = 64

	// Overhead is what an entry costs in addition to its key and its value, in bytes: the node, its share of the map
	// and of the ghosts, and the entry. TestOwnedOverhead compares it with the heap.
	Overhead = int64(unsafe.Sizeof(Entry{})) + 122
)

// Weight returns what an entry costs in bytes.
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

// s3fifo implements Owned. Changes happen one at a time, under mu. There are as many of them as fills, so they are
// few. A Get takes only the read lock of its key's shard.
//
// Lock order: mu, then a shard's mu, one at a time. Nothing is called with a lock held.
type s3fifo struct {
	seed    maphash.Seed
	mask    uint64 // the bits of a hash that are used: all, except in tests
	max     int64
	onEvict func(key string, e *Entry)
	shards  [ownedShards]ownedShard
	count   atomic.Int64
	weighs  atomic.Int64

	spare, spareWeighs atomic.Int64 // count and weight of the replicas; changed with mu held

	mu     sync.Mutex // guards the rest and the nodes' weight, links and queue, and orders all changes
	young  nodeQueue
	main   nodeQueue
	ghosts ghosts
	closed bool
}

type ownedShard struct {
	mu sync.RWMutex // guards m and its nodes' e and same; all of these change only with s3fifo.mu held as well
	// By hash, not by key: a slot is eight bytes smaller. Keys with the same hash, which hardly ever occur, are
	// linked by same.
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
	main       bool          // it is in the main queue, or was when it was removed
}

// find returns key's node, or nil. The caller holds sh.mu or s3fifo.mu.
func (sh *ownedShard) find(hash uint64, key string) *ownedNode {
	n := sh.m[hash]
	for n != nil && n.key != key {
		n = n.same
	}
	return n
}

// New returns a store for maxBytes bytes, as Weight counts them. It does not keep an entry that alone weighs more.
// onEvict, if not nil, is called for each entry that was evicted to make room, by the goroutine that called Set, with
// no lock of the store held. By then the key may have been set again.
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

// home returns the queue that n is in, or was in when it was removed. The caller holds mu.
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
	// Two concurrent hits may count as one: that is cheaper than an atomic add, and as good.
	if c := n.credit.Load(); c < ownedCredit {
		n.credit.Store(c + 1)
	}
	return e, true
}

func (s *s3fifo) Set(key string, e *Entry) {
	hash := s.hash(key)
	sh := s.shard(hash)
	w := Weight(key, e)

	if w > s.max { // it would evict all others and leave the tier above its limit
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
	// A new value is as good as a new key: its node goes to the back of its queue. While the node is in neither
	// queue, it cannot be evicted to make room for its own value.
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

// settle ends a Set: it unlocks mu and reports the evicted entries.
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

// forget removes n from its shard. n is in neither queue. The caller holds mu.
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

// makeRoom evicts until w more bytes, at most max, fit. It returns the evicted nodes, linked by next. The caller holds
// mu.
func (s *s3fifo) makeRoom(w int64) (gone *ownedNode) {
	for s.young.bytes+s.main.bytes+w > s.max {
		n := s.victim()
		hash := s.hash(n.key)
		if !n.main {
			s.ghosts.remember(hash, s.count.Load())
		}
		s.forget(s.shard(hash), hash, n)
		n.next, gone = gone, n
	}
	return gone
}

// victim removes the next entry to evict from its queue and returns it. One of the queues has an entry. The caller
// holds mu.
func (s *s3fifo) victim() *ownedNode {
	for range evictSteps {
		if s.young.bytes > s.max/youngShare || s.main.first() == nil {
			n := s.young.first()
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
	n := s.main.first() // each of the steps moved an entry there
	s.main.remove(n)
	return n
}

// tally counts n if it is a replica: sign is 1 if it was added and -1 if it was removed. The caller holds mu.
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

// nodeQueue is a doubly linked list of nodes with their total weight. Nodes go in at the back and come out at the
// front or anywhere.
type nodeQueue struct {
	root  ownedNode // root.next is the front, root.prev the back
	bytes int64
	main  bool // which of the two queues this is; never changes
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

// remove keeps n.main, which tells where n was.
func (q *nodeQueue) remove(n *ownedNode) {
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
	q.bytes -= n.weight
}

// ghosts remember the hashes of keys that were recently evicted from the young queue. A slot holds the upper half of
// a hash and the number of its eviction. A key can be noted in ghostWays slots and replaces the oldest of them, so
// only some keys are forgotten early.
type ghosts struct {
	slots []uint64
	seq   uint32
}

const ghostWays = 4

func (g *ghosts) ways(hash uint64) []uint64 {
	i := hash & uint64(len(g.slots)-1) &^ (ghostWays - 1)
	return g.slots[i : i+ghostWays]
}

// remember records that the key with this hash, one of count, was evicted.
func (g *ghosts) remember(hash uint64, count int64) {
	if int64(len(g.slots)) < count+1 {
		// This rarely grows: before the store is full nothing is recorded, and after that count changes only as the
		// sizes of values do. Growing forgets what was recorded.
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

// recall reports whether the key with this hash was among the last count evicted keys.
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
