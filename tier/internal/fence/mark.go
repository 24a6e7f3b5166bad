package fence

import (
	"github.com/weircache/weir/codec"
)

// fenceMark is one invalidation of a key. Members may apply two invalidations in different orders, so having the
// newest says nothing about the others: each one is carried on its own.
type fenceMark struct {
	mark  codec.Mark
	stamp uint64 // the shard's clock when it was noted
	told  uint64 // the incarnation of a member's cache that is known to have applied it; 0: none
}

// isTold reports whether the cache that k describes is known to have applied the mark.
func (m *fenceMark) isTold(k *Watermark) bool { return m.told != 0 && m.told == k.Incarnation }

// A Watermark is what another member's cache is known to have applied: everything that was applied here when the
// clocks showed these values. It never changes.
type Watermark struct {
	Incarnation uint64
	clocks      [Shards]uint64
	Tags        uint64 // the tag clock
}

// StampOf returns the fence clock of the key with this hash.
func (k *Watermark) StampOf(hash uint64) uint64 { return k.clocks[Slot(hash)/SlotsPerShard] }

// Watermark returns what this cache has applied now, as the watermark of a cache with the given incarnation. No
// invalidation may be applied during the call.
func (f *Fences) Watermark(incarnation uint64) Watermark {
	k := Watermark{Incarnation: incarnation, Tags: f.TagClock()}
	for i := range f.shards {
		k.clocks[i] = f.shards[i].clock.Load()
	}
	return k
}

// markList holds one mark for each incarnation, newest first. Unused places have the number 0.
type markList [Marks]fenceMark

// find returns the mark of an incarnation, or nil.
func (l *markList) find(incarnation uint64) *fenceMark {
	for i := range l {
		if l[i].mark.Incarnation == incarnation && l[i].mark.Seq != 0 {
			return &l[i]
		}
	}
	return nil
}

// stands reports whether the list has m or a later mark of its incarnation, which stands for m.
func (l *markList) stands(m codec.Mark) bool {
	x := l.find(m.Incarnation)
	return x != nil && x.mark.Seq >= m.Seq
}

// push makes m the newest mark, replacing an earlier one of its incarnation. It returns the mark that no longer fits;
// its number is 0 if all fit.
func (l *markList) push(m fenceMark) (lost fenceMark) {
	n := Marks - 1
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

// remove takes out the mark of m's incarnation, unless that mark is later than m.
func (l *markList) remove(m codec.Mark) {
	for i := range l {
		if l[i].mark.Incarnation == m.Incarnation && l[i].mark.Seq <= m.Seq {
			copy(l[i:], l[i+1:])
			l[Marks-1] = fenceMark{}
			return
		}
	}
}

func (l *markList) empty() bool { return l[0].mark.Seq == 0 }

// full reports whether a mark of another incarnation would not fit.
func (l *markList) full() bool { return l[Marks-1].mark.Seq != 0 }

// unlogged holds the marks of a key that requests have carried and that no log has.
type unlogged struct {
	marks markList
	at    int64 // when the last of them came, ns on the cache's clock
}

// told records that in one list, and reports whether the list has changed.
func (l *markList) told(mark codec.Mark, incarnation uint64) bool {
	m := l.find(mark.Incarnation)
	if m == nil || m.mark != mark || m.told == incarnation {
		return false
	}
	m.told = incarnation
	return true
}
