package fence

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weircache/weir/codec"
)

// Bounds of the table.
const (
	fenceSlotBits = 12
	Slots         = 1 << fenceSlotBits
	Shards        = 256
	SlotsPerShard = Slots / Shards
	PerShard      = 256 // 65,536 fences, at most about 16 MiB with average keys
	Marks         = 3   // incarnations whose marks a fence remembers, for logged and for unlogged marks

	// unloggedPerShard is how many keys of a shard may have unlogged marks.
	unloggedPerShard = 256
)

// A fence records the invalidations of one key.
type fence struct {
	// loads covers this node's loads and copies covers what other members gave, each if it began when the shard's
	// clock was lower. loads is never above copies.
	loads, copies uint64
	at            int64    // when the newest was applied, ns on the cache's clock
	marks         markList // the logged marks
	// version is the highest that an invalidation carried, 0 if none did. plain: one carried no version.
	version uint64
	plain   bool
	// lost is the clock when the newest logged mark that no longer fits was noted; 0: none was lost.
	lost uint64
}

type fenceShard struct {
	mu       sync.Mutex // guards the rest, and orders commits against fences of this shard's keys
	m        map[string]fence
	unlogged map[string]unlogged // nil: none
	floor    uint64              // the highest stamp of a forgotten fence
	wiped    uint64              // the stamp of the last invalidation of the whole namespace
	wipedAt  int64               // when that was, ns on the cache's clock
	versions versionBook
	// clock is raised with mu held, as the last step of an invalidation, and read without mu: a reader of a stamp
	// also sees everything that the stamp stands for.
	clock atomic.Uint64
	// carries is the number of keys with unlogged marks. It changes with mu held, before clock is raised.
	carries atomic.Int32
}

// Fences holds the fences of one cache, for keys and for tags.
type Fences struct {
	now       func() int64
	retention int64
	self      uint64 // the incarnation of this cache
	// slots holds, for each slot of keys, the stamp of its newest fence. With it a near hit needs only one atomic
	// load if no key of its slot was fenced.
	slots  [Slots]atomic.Uint64
	shards [Shards]fenceShard
	tagFences
}

// New returns an empty table that remembers fences for retention, in ns. now is the cache's clock, in ns, and self is
// the incarnation of this cache.
func New(now func() int64, retention int64, self uint64) *Fences {
	f := &Fences{now: now, retention: retention, self: self}
	for i := range f.shards {
		f.shards[i].m = make(map[string]fence)
	}
	return f
}

// Slot returns the slot of a key with this hash. It is below Slots.
func Slot(hash uint64) uint32 { return uint32(hash >> (64 - fenceSlotBits)) }

func (f *Fences) shard(slot uint32) *fenceShard {
	return &f.shards[slot/SlotsPerShard]
}

// SlotStamp returns the stamp of a slot's newest fence. A copy that is not older is valid without further checks.
func (f *Fences) SlotStamp(slot uint32) uint64 { return f.slots[slot].Load() }

// Retention returns the least time, in ns, that a fence is remembered unless its shard is full.
func (f *Fences) Retention() int64 { return f.retention }

// Stamp returns the key's fence clock now. No fence applied so far covers what starts now.
func (f *Fences) Stamp(hash uint64) uint64 { return f.shard(Slot(hash)).clock.Load() }

// Dropping removes the key's entry from the owned tier. If loaded is false it removes only a copy that another member
// gave; if loaded is true it also removes an entry that this node has loaded.
type Dropping func(loaded bool)

// Stamps holds the two stamps of a fence.
type Stamps struct{ Loads, Copies uint64 }

// Apply leaves a fence on key for a logged invalidation, and calls drop while commits of the key are held off. It
// reports false if the mark had already fenced the key, so that this node's loads stay valid. version, if not 0, is
// the origin's version of the key's present value. Apply keeps key.
func (f *Fences) Apply(key string, hash uint64, mark codec.Mark, version uint64, drop Dropping) (at Stamps, applied bool) {
	slot := Slot(hash)
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, u := s.m[key], s.unlogged[key]
	if x.marks.stands(mark) {
		if version > x.version {
			x.version = version
			s.m[key] = x
		}
		return Stamps{x.loads, x.copies}, false
	}
	x, stamp := f.open(s, key)
	applied = !u.marks.stands(mark)
	if x.copies = stamp; applied {
		x.loads, x.plain = stamp, x.plain || version == 0
	}
	x.version = max(x.version, version)
	if mark.Incarnation == f.self {
		x.marks, x.lost = markList{}, 0
		s.forgetUnlogged(key)
	} else if u.marks.remove(mark); u.marks.empty() {
		s.forgetUnlogged(key)
	} else {
		s.unlogged[key] = u
	}
	x.lost = max(x.lost, x.marks.push(fenceMark{mark: mark, stamp: stamp}).stamp)
	s.m[key] = x
	drop(applied)
	f.raise(s, slot, stamp)
	return Stamps{x.loads, x.copies}, applied
}

// Noting is the result of a Note.
type Noting uint8

const (
	Known   Noting = iota // this mark, or one that stands for it, had already fenced the key
	Applied               // the mark has fenced the key
	NoRoom                // nothing was done: start an invalidation of the key that stands for the mark
)

// Note is Apply for a mark that a request carried. Whatever else the invalidation covers is not applied, and no log
// has the mark.
func (f *Fences) Note(key string, hash uint64, mark codec.Mark, version uint64, drop Dropping) (at Stamps, n Noting) {
	slot := Slot(hash)
	s := f.shard(slot)
	now := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	x, u := s.m[key], s.unlogged[key]
	if x.marks.stands(mark) {
		return Stamps{x.loads, x.copies}, Known
	}
	if u.marks.stands(mark) { // if the fence was forgotten, the floor stands for it
		u.at = now
		s.unlogged[key] = u
		return Stamps{max(x.loads, s.floor), max(x.copies, s.floor)}, Known
	}
	if u.marks.find(mark.Incarnation) == nil && u.marks.full() || u.marks.empty() && len(s.unlogged) >= unloggedPerShard {
		return at, NoRoom
	}
	x, stamp := f.open(s, key)
	x.loads, x.copies, x.version, x.plain = stamp, stamp, max(x.version, version), x.plain || version == 0
	u.marks.push(fenceMark{mark: mark, stamp: stamp})
	u.at = now
	if s.unlogged == nil {
		s.unlogged = make(map[string]unlogged)
	}
	s.unlogged[key], s.m[key] = u, x
	s.carries.Store(int32(len(s.unlogged)))
	drop(true)
	f.raise(s, slot, stamp)
	return Stamps{stamp, stamp}, Applied
}

// open returns the key's fence, or a new one, and the stamp that an invalidation leaves now. The caller holds s.mu.
func (f *Fences) open(s *fenceShard, key string) (x fence, stamp uint64) {
	now := f.now()
	x, ok := s.m[key]
	if !ok && len(s.m) >= PerShard {
		f.makeRoom(s, now)
	}
	if !ok {
		x.lost = s.floor // a forgotten fence may have been the key's
	}
	x.at = now
	return x, s.clock.Load() + 1
}

// forgetUnlogged forgets the key's unlogged marks. The caller holds s.mu.
func (s *fenceShard) forgetUnlogged(key string) {
	delete(s.unlogged, key)
	s.carries.Store(int32(len(s.unlogged)))
}

// raise publishes a stamp. The caller holds s.mu.
func (f *Fences) raise(s *fenceShard, slot uint32, stamp uint64) {
	f.slots[slot].Store(stamp)
	s.clock.Store(stamp)
}

// Wipe leaves a fence on every key. Entries that it covers stay in place until something replaces them. own: this
// node starts the invalidation, which then stands for all unlogged marks.
func (f *Fences) Wipe(own bool) {
	now := f.now()
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		stamp := s.clock.Load() + 1
		for key, x := range s.m {
			s.versions.keep(key, &x, now, f.retention)
		}
		clear(s.m)
		s.versions.doubtAt = max(now, 1) // a Wipe carries no version
		if own {
			clear(s.unlogged)
			s.carries.Store(0)
		}
		s.floor, s.wiped, s.wipedAt = stamp, stamp, now
		for slot := range uint32(SlotsPerShard) {
			f.slots[uint32(i)*SlotsPerShard+slot].Store(stamp)
		}
		s.clock.Store(stamp)
		s.mu.Unlock()
	}
}

// makeRoom forgets the fences past retention or, if there are none, the older half. The caller holds s.mu.
func (f *Fences) makeRoom(s *fenceShard, now int64) {
	if f.expire(s, now) > 0 {
		return
	}
	stamps := make([]uint64, 0, len(s.m))
	for _, x := range s.m {
		stamps = append(stamps, x.copies)
	}
	slices.Sort(stamps)
	s.floor = max(s.floor, stamps[len(stamps)/2])
	for k, x := range s.m {
		if x.copies <= s.floor {
			s.versions.keep(k, &x, now, f.retention)
			delete(s.m, k)
		}
	}
}

// expire forgets the fences past retention and returns their number. The caller holds s.mu.
func (f *Fences) expire(s *fenceShard, now int64) (n int) {
	for k, x := range s.m {
		if now-x.at > f.retention {
			s.floor = max(s.floor, x.copies)
			delete(s.m, k)
			n++
		}
	}
	return n
}

// Sweep forgets everything past retention in all shards. Only one goroutine calls it.
func (f *Fences) Sweep() {
	now := f.now()
	f.age(now, f.retention)
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		f.expire(s, now)
		s.versions.expire(now, f.retention)
		for key, u := range s.unlogged {
			if now-u.at > f.retention {
				s.forgetUnlogged(key)
			}
		}
		s.mu.Unlock()
	}
}

// A Claim describes an entry to be stored.
type Claim struct {
	Stamp  uint64 // the fence clock when its load, or the request for it, began
	Began  int64  // when that was, ns on the cache's clock
	Handed bool   // another member gave it
	// Pushed, if not nil, is what a member that gave the entry unasked is known to have applied. That member got no
	// mark with a request, so it must have lacked none.
	Pushed *Watermark
}

// Commit calls store and reports true. It does neither if the key was fenced since c.Stamp, or if c.Began is too long
// ago for the key's fences to be remembered.
func (f *Fences) Commit(key string, hash uint64, c Claim, store func()) bool {
	slot := Slot(hash)
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.m[key]; ok && x.above(c.Stamp, c.Handed) || s.floor > c.Stamp || f.now()-c.Began > f.retention {
		return false
	}
	if c.Pushed != nil {
		if d := s.debt(key, slot, c.Pushed); d.Mark.Seq != 0 || d.Duty != NoDuty {
			return false
		}
	}
	store()
	return true
}

// above reports whether the fence covers what began at stamp.
func (x *fence) above(stamp uint64, handed bool) bool {
	if handed {
		return x.copies > stamp
	}
	return x.loads > stamp
}

// Update calls change while fences and commits of the key are held off.
func (f *Fences) Update(hash uint64, change func()) {
	s := f.shard(Slot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// OwnedValid reports whether an entry of the owned tier is valid. handed: another member gave it. Forgotten fences
// need no check: each of them dropped the entry that it covered, and Commit stored none since.
func (f *Fences) OwnedValid(key string, hash, stamp uint64, handed bool) bool {
	slot := Slot(hash)
	if f.slots[slot].Load() <= stamp {
		return true
	}
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	return (!ok || !x.above(stamp, handed)) && s.wiped <= stamp
}

// NearValid reports whether a near copy is valid although its slot has a newer fence. upTo is the shard's fence clock
// up to which that holds.
func (f *Fences) NearValid(key string, slot uint32, stamp uint64) (upTo uint64, valid bool) {
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	if ok && x.copies > stamp || s.floor > stamp {
		return 0, false
	}
	return f.slots[slot].Load(), true
}

// Covers reports whether a fence of key that was applied after stamp is, or may have been, applied here. Unlike
// OwnedValid it also holds for values that are in no tier, and for copies.
func (f *Fences) Covers(key string, hash, stamp uint64) bool {
	slot := Slot(hash)
	s := f.shard(slot)
	if s.clock.Load() <= stamp {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	return ok && x.copies > stamp || s.floor > stamp
}

// Fenced reports whether key was fenced recently, as far as the table remembers.
func (f *Fences) Fenced(key string, hash uint64) bool {
	slot := Slot(hash)
	if f.slots[slot].Load() == 0 {
		return false
	}
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.m[key]
	return ok || s.wiped > 0 && f.now()-s.wipedAt <= f.retention
}

// Len returns the number of fences remembered.
func (f *Fences) Len() (n int) {
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		n += len(s.m)
		s.mu.Unlock()
	}
	return n
}
