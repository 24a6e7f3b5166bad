package tier

import (
	"slices"
	"strings"
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
// # Marks
//
// A mark names an invalidation: an incarnation and a number. It reaches a node in one of two ways.
//
//   - Logged: the invalidation itself arrived, so it is in the log, and an exchange of positions tells every member that
//     lacks it. A position of the fence clock (known) is proof that a member has applied it.
//   - Unlogged: a request for one key, or a Token, carried the mark alone. No log has it, no exchange tells anybody of it, and
//     no position of a clock proves that another member has it. A node tells each member of an unlogged mark with the request
//     for the key, until the invalidation itself arrives or retention has passed. Neither an invalidation of the whole
//     namespace nor a full table makes a node forget one earlier.
//
// When the invalidation itself arrives after its mark, what this node has loaded since the mark came stays valid: the load began
// after the invalidation. Copies that other members gave since then are not: those members need not have known of it. So a
// fence has two stamps, one for this node's own loads and one for copies, and the second is never the lower.
//
// Of one incarnation the highest number is enough: what was loaded after the ninth invalidation of a key began was loaded
// after the fifth did. And an invalidation that this node starts itself stands for every mark of the key that the node had:
// it begins after all of them. That is what becomes of an unlogged mark for which there is no room.
//
// # Bounds
//
// Memory is bounded three times. A fence older than retention is forgotten: whatever began
// before it has ended by then, or is refused at commit for its age. A shard that is full
// forgets its oldest fences early and raises its floor instead: flights below the floor
// are not stored, and near copies below it ask their owner again. An invalidation of the whole
// namespace raises every shard's floor. Unlogged marks have a bound of their own, and so have the versions
// of keys whose fences are gone (version.go). Fences of tags are in tag.go.
const (
	fenceSlotBits  = 12
	fenceSlots     = 1 << fenceSlotBits
	fenceShards    = 256
	slotsPerShard  = fenceSlots / fenceShards
	fencesPerShard = 256 // 65,536 fences, at most about 16 MiB with average keys
	fenceMarks     = 3   // incarnations whose marks a fence remembers, of each kind

	// unloggedPerShard is how many keys of a shard may have unlogged marks.
	unloggedPerShard = 256
)

// A fence is what the invalidations of one key have left.
type fence struct {
	// loads covers this node's loads, and copies what other members gave: both if they began when the shard's clock was
	// lower. loads is never above copies.
	loads, copies uint64
	at            int64    // when the newest was applied, ns on the cache's clock
	marks         markList // the logged ones
	// version is the highest that an invalidation has told, 0: none has; plain: one has told none.
	version uint64
	plain   bool
	// lost is the clock when the last logged mark was noted for which there is no room, 0: there was none.
	lost uint64
}

// fenceMark is one invalidation of a key. Members may apply two of them in different orders, so
// that having the newest says nothing about the others: each is carried on its own.
type fenceMark struct {
	mark  codec.Mark
	stamp uint64 // the shard's clock when it was noted
	told  uint64 // the incarnation of a member's cache that is known to have applied it, 0: none
}

// isTold reports whether the cache that k is about is known to have applied the mark.
func (m *fenceMark) isTold(k *Watermark) bool { return m.told != 0 && m.told == k.incarnation }

// A Watermark is what another member's cache is known to have applied: everything that had been applied here when the
// clocks showed this. It never changes.
type Watermark struct {
	incarnation uint64
	clocks      [fenceShards]uint64
	wide        uint64 // the tag clock
}

// stampOf is the fence clock of the key with this hash.
func (k *Watermark) stampOf(hash uint64) uint64 { return k.clocks[fenceSlot(hash)/slotsPerShard] }

// of returns k for another incarnation.
func (k Watermark) of(incarnation uint64) Watermark {
	k.incarnation = incarnation
	return k
}

// watermark is what this cache has applied now, as what a cache with the incarnation is known to have applied. No
// invalidation may be applied meanwhile.
func (f *fences) watermark(incarnation uint64) Watermark {
	k := Watermark{incarnation: incarnation, wide: f.tagClock()}
	for i := range f.shards {
		k.clocks[i] = f.shards[i].clock.Load()
	}
	return k
}

// markList is one mark an incarnation, the newest first; unused places have the number 0.
type markList [fenceMarks]fenceMark

// find returns the mark of an incarnation, nil if there is none.
func (l *markList) find(incarnation uint64) *fenceMark {
	for i := range l {
		if l[i].mark.Incarnation == incarnation && l[i].mark.Seq != 0 {
			return &l[i]
		}
	}
	return nil
}

// stands reports whether the list has m, or a later one of its incarnation, which stands for it.
func (l *markList) stands(m codec.Mark) bool {
	x := l.find(m.Incarnation)
	return x != nil && x.mark.Seq >= m.Seq
}

// push makes m the newest, in place of an earlier one of its incarnation, and returns the mark for which
// there is no room any more; its number is 0 if there is none.
func (l *markList) push(m fenceMark) (lost fenceMark) {
	n := fenceMarks - 1
	for i := range l {
		if l[i].mark.Incarnation == m.mark.Incarnation || l[i].mark.Seq == 0 {
			n = i
			break
		}
	}
	if l[n].mark.Incarnation != m.mark.Incarnation {
		lost = l[n]
	}
	copy(l[1:n+1], l[:n])
	l[0] = m
	return lost
}

// remove takes out the mark of m's incarnation, unless it is a later one.
func (l *markList) remove(m codec.Mark) {
	for i := range l {
		if l[i].mark.Incarnation == m.Incarnation && l[i].mark.Seq <= m.Seq {
			copy(l[i:], l[i+1:])
			l[fenceMarks-1] = fenceMark{}
			return
		}
	}
}

func (l *markList) empty() bool { return l[0].mark.Seq == 0 }

// full reports whether there is no room for a mark of another incarnation.
func (l *markList) full() bool { return l[fenceMarks-1].mark.Seq != 0 }

// unlogged are the marks of a key that requests have carried and no log has.
type unlogged struct {
	marks markList
	at    int64 // when one of them came last, ns on the cache's clock
}

type fenceShard struct {
	mu       sync.Mutex // guards the rest, and orders commits against fences of this shard's keys
	m        map[string]fence
	unlogged map[string]unlogged // nil: none
	floor    uint64              // the highest stamp of a forgotten fence
	wiped    uint64              // the stamp of the last invalidation of the whole namespace
	wipedAt  int64               // when that was, ns on the cache's clock
	versions versionBook
	// clock is raised with mu held, as the last thing that an invalidation does, and read
	// without: who reads a stamp sees what it stands for.
	clock atomic.Uint64
	// carries is how many keys have unlogged marks. It changes with mu held, before clock is raised.
	carries atomic.Int32
}

type fences struct {
	now       func() int64
	retention int64
	self      uint64 // the incarnation of this cache
	// slots hold, for each slot of keys, the stamp of its newest fence. They let a near
	// hit pass with one load when nothing was fenced nearby.
	slots  [fenceSlots]atomic.Uint64
	shards [fenceShards]fenceShard
	tagFences
}

func newFences(now func() int64, retention int64, self uint64) *fences {
	f := &fences{now: now, retention: retention, self: self}
	for i := range f.shards {
		f.shards[i].m = make(map[string]fence)
	}
	return f
}

func fenceSlot(hash uint64) uint32 { return uint32(hash >> (64 - fenceSlotBits)) }

func (f *fences) shard(slot uint32) *fenceShard {
	return &f.shards[slot/slotsPerShard]
}

// slotStamp is the stamp of the newest fence of a slot: a copy that is not older is valid without another look.
func (f *fences) slotStamp(slot uint32) uint64 { return f.slots[slot].Load() }

// remembered is for how long, in ns, a fence is remembered at least, unless its shard is full.
func (f *fences) remembered() int64 { return f.retention }

// stamp is the key's fence clock now: what starts now is covered by no fence applied so far.
func (f *fences) stamp(hash uint64) uint64 { return f.shard(fenceSlot(hash)).clock.Load() }

// dropping removes the key's entry of the owned tier, if this node has loaded it: also; a copy that another
// member gave is always removed.
type dropping func(loaded bool)

// stamps are those of a fence.
type stamps struct{ loads, copies uint64 }

// apply leaves a fence on key for an invalidation that the log has, and calls drop while commits of the key are held off. It
// reports false if the mark had fenced the key before, so that this node's loads stay valid. version, if not 0, is the
// origin's of what the key stands for now. It keeps key.
func (f *fences) apply(key string, hash uint64, mark codec.Mark, version uint64, drop dropping) (at stamps, applied bool) {
	slot := fenceSlot(hash)
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, u := s.m[key], s.unlogged[key]
	if x.marks.stands(mark) {
		if version > x.version {
			x.version = version
			s.m[key] = x
		}
		return stamps{x.loads, x.copies}, false
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
	return stamps{x.loads, x.copies}, applied
}

// noting is what became of an unlogged mark.
type noting uint8

const (
	noteKnown   noting = iota // it, or one that stands for it, had fenced the key before
	noteApplied               // it has fenced the key
	noteNoRoom                // nothing was done: start an invalidation of the key that stands for it
)

// note is apply for a mark that a request carried: what else the mark covers is not applied, and no log has it.
func (f *fences) note(key string, hash uint64, mark codec.Mark, version uint64, drop dropping) (at stamps, n noting) {
	slot := fenceSlot(hash)
	s := f.shard(slot)
	now := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	x, u := s.m[key], s.unlogged[key]
	if x.marks.stands(mark) {
		return stamps{x.loads, x.copies}, noteKnown
	}
	if u.marks.stands(mark) { // if the fence is forgotten, the floor stands for it
		u.at = now
		s.unlogged[key] = u
		return stamps{max(x.loads, s.floor), max(x.copies, s.floor)}, noteKnown
	}
	if u.marks.find(mark.Incarnation) == nil && u.marks.full() || u.marks.empty() && len(s.unlogged) >= unloggedPerShard {
		return at, noteNoRoom
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
	return stamps{stamp, stamp}, noteApplied
}

// open returns the key's fence, a new one if there is none, and the stamp that an invalidation now leaves. The caller holds s.mu.
func (f *fences) open(s *fenceShard, key string) (x fence, stamp uint64) {
	now := f.now()
	x, ok := s.m[key]
	if !ok && len(s.m) >= fencesPerShard {
		f.makeRoom(s, now)
	}
	if !ok {
		x.lost = s.floor // there may have been a fence of the key among those forgotten
	}
	x.at = now
	return x, s.clock.Load() + 1
}

// forgetUnlogged forgets the key's unlogged marks. The caller holds s.mu.
func (s *fenceShard) forgetUnlogged(key string) {
	delete(s.unlogged, key)
	s.carries.Store(int32(len(s.unlogged)))
}

// raise makes a stamp visible. The caller holds s.mu.
func (f *fences) raise(s *fenceShard, slot uint32, stamp uint64) {
	f.slots[slot].Store(stamp)
	s.clock.Store(stamp)
}

// wipe leaves a fence on every key. Entries that it covers stay where they are until something
// takes their place. own: it is an invalidation that this node starts, which stands for all unlogged marks.
func (f *fences) wipe(own bool) {
	now := f.now()
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		stamp := s.clock.Load() + 1
		for key, x := range s.m {
			s.versions.keep(key, &x, now, f.retention)
		}
		clear(s.m)
		s.versions.doubtAt = max(now, 1) // it tells no version
		if own {
			clear(s.unlogged)
			s.carries.Store(0)
		}
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

// expire forgets what is past retention. The caller holds s.mu.
func (f *fences) expire(s *fenceShard, now int64) (n int) {
	for k, x := range s.m {
		if now-x.at > f.retention {
			s.floor = max(s.floor, x.copies)
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
		s.versions.expire(now, f.retention)
		for key, u := range s.unlogged {
			if now-u.at > f.retention {
				s.forgetUnlogged(key)
			}
		}
		s.mu.Unlock()
	}
}

// A claim is what an entry says of itself that is to be kept.
type claim struct {
	stamp  uint64 // the fence clock when its load, or the request for it, began
	began  int64  // when that was, ns on the cache's clock
	handed bool   // another member gave it
	// pushed, if not nil, is what a member is known to have applied that gave it without being asked. It was told of no mark,
	// so it must have owed none.
	pushed *Watermark
}

// commit calls store, and reports true, unless the key was fenced since c's stamp or what c says
// began too long ago for its fences to be remembered.
func (f *fences) commit(key string, hash uint64, c claim, store func()) bool {
	slot := fenceSlot(hash)
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.m[key]; ok && x.above(c.stamp, c.handed) || s.floor > c.stamp || f.now()-c.began > f.retention {
		return false
	}
	if c.pushed != nil {
		if d := s.debt(key, slot, c.pushed); d.mark.Seq != 0 || d.duty != dutyNone {
			return false
		}
	}
	store()
	return true
}

// above reports whether the fence covers what began at a stamp.
func (x *fence) above(stamp uint64, handed bool) bool {
	if handed {
		return x.copies > stamp
	}
	return x.loads > stamp
}

// update calls change while fences and commits of the key are held off.
func (f *fences) update(hash uint64, change func()) {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// owned reports whether an entry of the owned tier is valid; handed: another member gave it. Forgotten fences need no
// look: each dropped the entry that it covered, and commit stored none later.
func (f *fences) owned(key string, hash, stamp uint64, handed bool) bool {
	slot := fenceSlot(hash)
	if f.slots[slot].Load() <= stamp {
		return true
	}
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	return (!ok || !x.above(stamp, handed)) && s.wiped <= stamp
}

// near reports whether a near copy is valid whose slot has a newer fence. upTo is the
// fence clock, of the shard, up to which that holds.
func (f *fences) near(key string, slot uint32, stamp uint64) (upTo uint64, valid bool) {
	s := f.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	if ok && x.copies > stamp || s.floor > stamp {
		return 0, false
	}
	return f.slots[slot].Load(), true
}

// A duty is what comes before another member's answer for a key counts, beside the mark that the request carries.
type duty uint8

const (
	dutyNone     duty = iota
	dutyAskAgain      // there are more marks that only a request can carry: the answer does not count, and the next request carries another
	dutyExchange      // it may lack invalidations that the log has: an exchange of positions
)

// A debt is what another member must be told before its answer for a key counts.
type debt struct {
	mark codec.Mark // the request carries it; the number 0: none
	duty duty
}

// debt tells what a member of which k is known must be told before it answers for the key; stamp is the clock when the read
// began that the request is for. An exchange that began after the read always clears what the log has.
//
// It is the one answer to that question, and each kind of request does with it what it can. A request for the key carries the
// mark, asks again or has an exchange first (ask.go, previous.go); one for many keys leaves the keys that take more than one
// mark to be read one by one (many_ask.go); and a copy that comes unasked is not taken while anything is owed (commit).
func (f *fences) debt(key string, hash, stamp uint64, k *Watermark) debt {
	slot := fenceSlot(hash)
	s, has := f.shard(slot), k.clocks[slot/slotsPerShard]
	logged := has < stamp && f.slots[slot].Load() > has
	if !logged && s.carries.Load() == 0 {
		return debt{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !logged {
		return s.unloggedDebt(key, k)
	}
	return s.debt(key, slot, k)
}

// debt is the debt of all marks of the key. The caller holds s.mu.
func (s *fenceShard) debt(key string, slot uint32, k *Watermark) debt {
	has := k.clocks[slot/slotsPerShard]
	x, ok := s.m[key]
	if !ok && s.floor > has || ok && x.lost > has {
		return debt{duty: dutyExchange}
	}
	d := s.unloggedDebt(key, k)
	for i := range x.marks {
		m := &x.marks[i]
		if m.stamp <= has || m.isTold(k) {
			continue
		}
		if d.mark.Seq != 0 {
			return debt{duty: dutyExchange}
		}
		d.mark = m.mark
	}
	return d
}

// unloggedDebt is the debt of the key's unlogged marks. The caller holds s.mu.
func (s *fenceShard) unloggedDebt(key string, k *Watermark) (d debt) {
	u := s.unlogged[key]
	for i := range u.marks {
		m := &u.marks[i]
		if m.mark.Seq == 0 || m.isTold(k) {
			continue
		}
		if d.mark.Seq != 0 {
			d.duty = dutyAskAgain
			return d
		}
		d.mark = m.mark
	}
	return d
}

// told notes that a member's cache has applied the mark that a request brought it.
func (f *fences) told(key string, hash uint64, mark codec.Mark, incarnation uint64) {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.m[key]; ok && x.marks.told(mark, incarnation) {
		s.m[strings.Clone(key)] = x // an assignment replaces the key too
	}
	if u, ok := s.unlogged[key]; ok && u.marks.told(mark, incarnation) {
		s.unlogged[strings.Clone(key)] = u
	}
}

// told notes it of one list, and reports whether that has changed.
func (l *markList) told(mark codec.Mark, incarnation uint64) bool {
	m := l.find(mark.Incarnation)
	if m == nil || m.mark != mark || m.told == incarnation {
		return false
	}
	m.told = incarnation
	return true
}

// covers reports whether a fence of key that was applied after stamp is, or may have been,
// applied here. Unlike owned it also holds for what is in no tier, and for copies.
func (f *fences) covers(key string, hash, stamp uint64) bool {
	slot := fenceSlot(hash)
	s := f.shard(slot)
	if s.clock.Load() <= stamp {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	return ok && x.copies > stamp || s.floor > stamp
}

// fenced reports whether key was fenced recently, as far as that is remembered.
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
