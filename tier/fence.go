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
// are not stored, and near copies below it ask their owner again. An invalidation of the whole
// namespace raises every shard's floor. Those of tags are in tag.go.
const (
	fenceSlotBits  = 12
	fenceSlots     = 1 << fenceSlotBits
	fenceShards    = 256
	slotsPerShard  = fenceSlots / fenceShards
	fencesPerShard = 256 // 65,536 fences, at most about 16 MiB with average keys
	fenceMarks     = 3   // invalidations that a fence remembers

	// fenceRetention is the least time, in ns, for which a fence is remembered.
	fenceRetention = int64(MaxInvalidateTimeout) * 3
)

type fence struct {
	stamp uint64                // the shard's clock once the newest was applied
	at    int64                 // when, ns on the cache's clock
	marks [fenceMarks]fenceMark // which invalidations they were, newest first
	// version is the highest that an invalidation has told, 0: none has; plain: one has told none.
	version uint64
	plain   bool
	// lost is the clock when the last mark was noted for which there is no room, 0: there was none.
	lost uint64
}

// fenceMark is one invalidation of a key. Members may apply two of them in different orders, so
// that having the newest says nothing about the others: each is carried on its own.
type fenceMark struct {
	mark  codec.Mark
	stamp uint64 // the shard's clock when it was noted
	told  uint64 // the incarnation of a member's cache that is known to have applied it, 0: none
	loose bool   // known only from a request that carried it, so that no log has it from here
}

// push makes m the newest mark.
func (x *fence) push(m fenceMark) {
	x.lost = max(x.lost, x.marks[fenceMarks-1].stamp)
	copy(x.marks[1:], x.marks[:])
	x.marks[0] = m
}

// find returns where m is remembered, nil if it is not.
func (x *fence) find(m codec.Mark) *fenceMark {
	for i := range x.marks {
		if x.marks[i].mark == m && m.Seq != 0 {
			return &x.marks[i]
		}
	}
	return nil
}

type fenceShard struct {
	mu      sync.Mutex // guards the rest, and orders commits against fences of this shard's keys
	m       map[string]fence
	floor   uint64 // the highest stamp of a forgotten fence
	wiped   uint64 // the stamp of the last invalidation of the whole namespace
	wipedAt int64  // when that was, ns on the cache's clock
	// Fences that were forgotten before their time, at shedAt, ns on the cache's clock, had versions up
	// to shed. shedAt 0: there were none.
	shed   uint64
	shedAt int64
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
	tagFences
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
	return &f.shards[slot/slotsPerShard]
}

// stamp is the key's fence clock now: what starts now is covered by no fence applied so far.
func (f *fences) stamp(hash uint64) uint64 { return f.shard(fenceSlot(hash)).clock.Load() }

// apply leaves a fence on key and calls drop while commits of the key are held off. It
// reports false if mark is known to have fenced the key before. loose: the mark came with a
// request for the key, and what else it covers is not applied. version, if not 0, is the
// origin's of what the key stands for now. It keeps key.
func (f *fences) apply(key string, hash uint64, mark codec.Mark, version uint64, loose bool, drop func()) (stamp uint64, applied bool) {
	slot := fenceSlot(hash)
	s := f.shard(slot)
	now := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.m[key]
	if m := old.find(mark); known && m != nil {
		if m.loose && !loose {
			// An exchange since then has not passed it on, but from now on each does.
			m.loose, m.stamp, m.told = false, s.clock.Load()+1, 0
			old.version = max(old.version, version)
			s.m[cloneString(key)] = old
			f.raise(s, slot, m.stamp)
		}
		return old.stamp, false
	}
	if !known && len(s.m) >= fencesPerShard {
		f.makeRoom(s, now)
	}
	stamp = s.clock.Load() + 1
	if !known {
		old.lost = s.floor // there may have been a fence of the key among those forgotten
	}
	old.stamp, old.at, old.version, old.plain = stamp, now, max(old.version, version), old.plain || version == 0
	old.push(fenceMark{mark: mark, stamp: stamp, loose: loose})
	s.m[key] = old
	drop()
	f.raise(s, slot, stamp)
	return stamp, true
}

// raise makes a stamp visible. The caller holds s.mu.
func (f *fences) raise(s *fenceShard, slot uint32, stamp uint64) {
	f.slots[slot].Store(stamp)
	s.clock.Store(stamp)
}

// wipe leaves a fence on every key. Entries that it covers stay where they are until something
// takes their place.
func (f *fences) wipe() {
	now := f.now()
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		stamp := s.clock.Load() + 1
		for _, x := range s.m {
			s.shed = max(s.shed, x.version)
		}
		s.shedAt = max(now, 1)
		clear(s.m)
		s.floor, s.wiped, s.wipedAt = stamp, stamp, now
		for slot := range uint32(slotsPerShard) {
			f.slots[uint32(i)*slotsPerShard+slot].Store(stamp)
		}
		s.clock.Store(stamp)
		s.mu.Unlock()
	}
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
	s.shedAt = max(now, 1)
	for k, x := range s.m {
		if x.stamp <= s.floor {
			s.shed = max(s.shed, x.version)
			delete(s.m, k)
		}
	}
}

// behind reports whether the origin is known to have a newer version of the key than this one. A version is
// remembered as long as its fence; where fences were forgotten before their time, the highest of
// theirs stands for all keys of the shard until they would have been.
func (f *fences) behind(key string, hash, version uint64) bool {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest(key, f.now(), f.retention) > version
}

// newest is the highest version of the key that is known. The caller holds s.mu.
func (s *fenceShard) newest(key string, now, retention int64) uint64 {
	v := s.m[key].version
	if s.shedAt != 0 && now-s.shedAt <= retention {
		v = max(v, s.shed)
	}
	return v
}

// place calls store with the fence clock, if what has this version, and was the origin's at began, is the newest that
// is known: no higher version has been told, no invalidation within retention that told none, and began is within
// retention, so that none of either can have been forgotten since.
func (f *fences) place(key string, hash, version uint64, began int64, store func(stamp uint64)) bool {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	now := f.now() // with the lock held: whatever this goroutine waited for has gone by
	if now-began > f.retention || s.m[key].plain || s.shedAt != 0 && now-s.shedAt <= f.retention || s.newest(key, now, f.retention) > version {
		return false
	}
	store(s.clock.Load())
	return true
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

// sweep forgets what is past retention everywhere. One goroutine calls it.
func (f *fences) sweep() {
	now := f.now()
	f.age(now, f.retention)
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
	return (!ok || x.stamp <= stamp) && s.wiped <= stamp
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

// carry returns the mark that a request for the key must bring to a member of whom known tells
// what he has applied; stamp is the clock when the read began that the request is for.
// behind: there may be more that he lacks, so that an exchange must come first. It never is
// if that began after the read.
func (f *fences) carry(key string, hash, stamp uint64, known *known) (mark codec.Mark, behind bool) {
	slot := fenceSlot(hash)
	has := known.clocks[slot/slotsPerShard]
	if has >= stamp || f.slots[slot].Load() <= has {
		return codec.Mark{}, false
	}
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	if !ok {
		return codec.Mark{}, s.floor > has
	}
	if x.lost > has {
		return codec.Mark{}, true
	}
	for i := range x.marks {
		m := &x.marks[i]
		if m.stamp <= has || m.told == known.incarnation {
			continue
		}
		if mark.Seq != 0 {
			return codec.Mark{}, true
		}
		mark = m.mark
	}
	return mark, false
}

// told notes that a member's cache has applied the mark that a request brought it.
func (f *fences) told(key string, hash uint64, mark codec.Mark, incarnation uint64) {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	if !ok {
		return
	}
	if m := x.find(mark); m != nil && m.told != incarnation {
		m.told = incarnation
		s.m[cloneString(key)] = x // an assignment replaces the key too
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

// fenced reports whether key was fenced lately, as far as that is remembered.
func (f *fences) fenced(key string, hash uint64) bool {
	slot := fenceSlot(hash)
	if f.slots[slot].Load() == 0 {
		return false
	}
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.m[key]
	return ok || s.wiped > 0 && f.now()-s.wipedAt <= f.retention
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
