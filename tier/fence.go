package tier

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
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
	fencesPerShard = 256 // 65,536 fences, at most about 16 MiB with average keys
	fenceMarks     = 3   // invalidations that a fence remembers

	// fenceCarry is for how long, in ns, requests for a key tell its owner of the key's
	// last fence. The sender of an invalidation has ended it by MaxInvalidateTimeout.
	fenceCarry = int64(MaxInvalidateTimeout) * 3 / 2
	// fenceRetention is the least time, in ns, for which a fence is remembered. It is
	// above fenceCarry, so that an owner still knows every fence that a request carries.
	fenceRetention = 2 * fenceCarry
)

type fence struct {
	stamp uint64                // the shard's clock once the newest was applied
	at    int64                 // when, ns on the cache's clock
	marks [fenceMarks]fenceMark // which invalidations they were, newest first
	// Of marks that had no room: when the last was applied, and the member that all of
	// them were carried to, 0: none.
	lostAt   int64
	lostTold uint64
}

// fenceMark is one invalidation of a key. Members may apply two of them in different orders, so
// that having the newest says nothing about the others: each is carried on its own.
type fenceMark struct {
	mark codec.Mark
	at   int64  // when it was applied, ns on the cache's clock
	told uint64 // a member that is known to have applied it, as memberID; 0: none
}

// memberID identifies a member among those that a mark may have been carried to.
func memberID(name string) uint64 { return ring.Hash(name) | 1 }

// push makes m the newest mark.
func (x *fence) push(m codec.Mark, now int64) {
	if old := &x.marks[fenceMarks-1]; old.mark.Seq != 0 && now-old.at <= fenceCarry {
		if x.lostAt == 0 || now-x.lostAt > fenceCarry {
			x.lostTold = old.told
		} else if x.lostTold != old.told {
			x.lostTold = 0
		}
		x.lostAt = max(old.at, 1)
	}
	copy(x.marks[1:], x.marks[:])
	x.marks[0] = fenceMark{mark: m, at: now}
}

// has reports whether m is remembered.
func (x *fence) has(m codec.Mark) bool {
	for i := range x.marks {
		if x.marks[i].mark == m && m.Seq != 0 {
			return true
		}
	}
	return false
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
// reports false, and does nothing, if mark is known to have fenced the key before. It keeps key.
func (f *fences) apply(key string, hash uint64, mark codec.Mark, drop func()) (stamp uint64, applied bool) {
	slot := fenceSlot(hash)
	s := f.shard(slot)
	now := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.m[key]
	if known && old.has(mark) {
		return old.stamp, false
	}
	if !known && len(s.m) >= fencesPerShard {
		f.makeRoom(s, now)
	}
	stamp = s.clock.Load() + 1
	if !known {
		old.lostAt = s.floorAt // there may have been a fence of the key among those forgotten
	}
	old.stamp, old.at = stamp, now
	old.push(mark, now)
	s.m[key] = old
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
	s.floorAt = max(now, 1)
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

// carry returns the mark that a request for the key must bring to a member, if there is
// one that he may not have applied. alone is false if there may be more of them: the answer
// may then be from before an invalidation that this node has applied, so it must not be
// kept in the near tier, nor given to who comes later.
func (f *fences) carry(key string, hash, member uint64) (mark codec.Mark, alone bool) {
	slot := fenceSlot(hash)
	if f.slots[slot].Load() == 0 {
		return codec.Mark{}, true
	}
	s := f.shard(slot)
	now := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	if !ok {
		return codec.Mark{}, s.floorAt == 0 || now-s.floorAt > fenceCarry
	}
	alone = x.lostAt == 0 || x.lostTold == member || now-x.lostAt > fenceCarry
	for i := range x.marks {
		m := &x.marks[i]
		if m.mark.Seq == 0 || m.told == member || now-m.at > fenceCarry {
			continue
		}
		if mark.Seq != 0 {
			alone = false
		}
		mark = m.mark // the oldest: whose sender gives up first
	}
	return mark, alone
}

// told notes that a member has applied the mark that a request brought him.
func (f *fences) told(key string, hash uint64, mark codec.Mark, member uint64) {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	if !ok {
		return
	}
	for i := range x.marks {
		if x.marks[i].mark == mark {
			x.marks[i].told = member
			s.m[cloneString(key)] = x // an assignment replaces the key too
			return
		}
	}
}

// covers reports whether a fence of key that was applied after stamp is, or may have been,
// applied here. Unlike owned it also holds for what is in no tier.
func (f *fences) covers(key string, hash, stamp uint64) bool {
	slot := fenceSlot(hash)
	s := f.shard(slot)
	if s.clock.Load() <= stamp {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	return ok && x.stamp > stamp || s.floor > stamp
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
