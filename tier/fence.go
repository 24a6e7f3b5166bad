package tier

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weircache/weir/codec"
)

// An entry is valid iff no invalidation covering it was applied here after its load
// started. Fences keep what that test needs.
//
// The keys are divided into shards, and each shard's fence clock counts the invalidations
// applied to it on this node. A load, or a request to an owner, notes the clock when it starts (its
// stamp); an invalidation leaves the clock's next value beside the key, and moves the clock
// on when that can be seen and the owned copy is gone. So an entry is valid iff its key's
// fence is not above its stamp. The test is made where an entry is committed to the
// owned tier and at every read of either tier.
//
// Memory is bounded twice. A fence older than retention is forgotten: whatever began
// before it has ended by then, or is refused at commit for its age. A shard that is full
// forgets its oldest fences early and raises its floor instead: flights below the floor
// are not stored, and near copies below it ask their owner again.
const (
	fenceSlotBits  = 12
	fenceSlots     = 1 << fenceSlotBits
	fenceShards    = 256
	fencesPerShard = 256 // 65,536 fences, at most about 8 MiB with average keys

	// fenceCarry is for how long, in ns, requests for a key tell its owner of the key's
	// last fence. The sender of an invalidation has ended it by MaxInvalidateTimeout.
	fenceCarry = int64(MaxInvalidateTimeout) * 3 / 2
	// fenceRetention is the least time, in ns, for which a fence is remembered. It is
	// above fenceCarry, so that an owner still knows every fence that a request carries.
	fenceRetention = 2 * fenceCarry
)

type fence struct {
	stamp uint64     // the shard's clock once it was applied
	mark  codec.Mark // which invalidation it was
	at    int64      // when, ns on the cache's clock
}

type fenceShard struct {
	mu      sync.Mutex // guards the rest, and orders commits against fences of this shard's keys
	m       map[string]fence
	floor   uint64 // the highest stamp of a forgotten fence
	floorAt int64  // when the shard last forgot a fence early, 0: never
	// clock is raised with mu held, as the last thing that an invalidation does, and read
	// without: who reads a stamp sees what it stands for.
	clock atomic.Uint64
}

type fences struct {
	now       func() int64
	retention int64
	// slots hold, for each slot of keys, the stamp of its newest fence. They let a near
	// hit pass with one load when nothing was fenced nearby.
	slots  [fenceSlots]atomic.Uint64
	shards [fenceShards]fenceShard
}

func newFences(now func() int64, retention int64) *fences {
	f := &fences{now: now, retention: max(retention, fenceRetention)}
	for i := range f.shards {
		f.shards[i].m = make(map[string]fence)
	}
	return f
}

func fenceSlot(hash uint64) uint32 { return uint32(hash >> (64 - fenceSlotBits)) }

func (f *fences) shard(slot uint32) *fenceShard {
	return &f.shards[slot/(fenceSlots/fenceShards)]
}

// stamp is the key's fence clock now: what starts now is covered by no fence applied so far.
func (f *fences) stamp(hash uint64) uint64 { return f.shard(fenceSlot(hash)).clock.Load() }

// apply leaves a fence on key and calls drop while commits of the key are held off. It
// reports false, and does nothing, if mark is what fenced the key last.
func (f *fences) apply(key string, hash uint64, mark codec.Mark, drop func()) (stamp uint64, applied bool) {
	slot := fenceSlot(hash)
	s := f.shard(slot)
	now := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.m[key]
	if known && old.mark == mark && mark.Seq != 0 {
		return old.stamp, false
	}
	if !known && len(s.m) >= fencesPerShard {
		f.makeRoom(s, now)
	}
	stamp = s.clock.Load() + 1
	s.m[key] = fence{stamp: stamp, mark: mark, at: now}
	if f.slots[slot].Load() < stamp { // only raised, and only under the shard's lock
		f.slots[slot].Store(stamp)
	}
	drop()
	s.clock.Store(stamp)
	return stamp, true
}

// makeRoom forgets what is past retention or, if that is nothing, the older half. The
// caller holds s.mu.
func (f *fences) makeRoom(s *fenceShard, now int64) {
	if f.expire(s, now) > 0 {
		return
	}
	stamps := make([]uint64, 0, len(s.m))
	for _, x := range s.m {
		stamps = append(stamps, x.stamp)
	}
	slices.Sort(stamps)
	s.floor = max(s.floor, stamps[len(stamps)/2])
	s.floorAt = now
	for k, x := range s.m {
		if x.stamp <= s.floor {
			delete(s.m, k)
		}
	}
}

// expire forgets what is past retention. The caller holds s.mu.
func (f *fences) expire(s *fenceShard, now int64) (n int) {
	for k, x := range s.m {
		if now-x.at > f.retention {
			s.floor = max(s.floor, x.stamp)
			delete(s.m, k)
			n++
		}
	}
	return n
}

// sweep forgets what is past retention everywhere.
func (f *fences) sweep() {
	now := f.now()
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		f.expire(s, now)
		s.mu.Unlock()
	}
}

// commit calls store, and reports true, unless key was fenced since stamp or what began
// at began, ns on the cache's clock, is too old for its fences to be remembered.
func (f *fences) commit(key string, hash, stamp uint64, began int64, store func()) bool {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.m[key]; ok && x.stamp > stamp || s.floor > stamp || f.now()-began > f.retention {
		return false
	}
	store()
	return true
}

// update calls change while fences and commits of the key are held off.
func (f *fences) update(hash uint64, change func()) {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// owned reports whether an entry of the owned tier is valid. Forgotten fences need no
// look: each dropped the entry that it covered, and commit stored none later.
func (f *fences) owned(key string, hash, stamp uint64) bool {
	slot := fenceSlot(hash)
	if f.slots[slot].Load() <= stamp {
		return true
	}
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	return !ok || x.stamp <= stamp
}

// near reports whether a near copy is valid whose slot has a newer fence. upTo is the
// fence clock, of the shard, up to which that holds.
func (f *fences) near(key string, slot uint32, stamp uint64) (upTo uint64, valid bool) {
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	if ok && x.stamp > stamp || s.floor > stamp {
		return 0, false
	}
	return f.slots[slot].Load(), true
}

// carry returns the mark of the key's fence if a request for the key must tell its
// owner of it. storable is false if such a fence may have been forgotten: the answer
// must then not be kept in the near tier.
func (f *fences) carry(key string, hash uint64) (mark codec.Mark, storable bool) {
	slot := fenceSlot(hash)
	if f.slots[slot].Load() == 0 {
		return codec.Mark{}, true
	}
	s := f.shard(slot)
	now := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.m[key]; ok {
		if now-x.at <= fenceCarry {
			return x.mark, true
		}
		return codec.Mark{}, true
	}
	return codec.Mark{}, s.floorAt == 0 || now-s.floorAt > fenceCarry
}

// fenced reports whether key has a fence that is still remembered.
func (f *fences) fenced(key string, hash uint64) bool {
	slot := fenceSlot(hash)
	if f.slots[slot].Load() == 0 {
		return false
	}
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.m[key]
	return ok
}

// size is how many fences are remembered.
func (f *fences) size() (n int) {
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		n += len(s.m)
		s.mu.Unlock()
	}
	return n
}
