package fence

import (
	"sync/atomic"

	"github.com/weircache/weir/ring"
)

// Tags name sets of keys that nobody lists: a value says at its load which it belongs to, and an
// invalidation of a tag covers every value that has it, loaded before.
//
// A tag is known by 32 bits of its hash; the upper ones pick a place in a table of fences. Two tags
// that share a place are invalidated together: once too often, never too rarely. The table
// takes half a megabyte for any number of tags, and is made when the first is invalidated. Nothing
// in it is ever forgotten, so raising a tag's fence is one store, and nobody looks for the entries
// that it covers: each is tested when it is read.
//
// What is tagged carries the tag clock of the moment when its load, or the request for it, began. So an
// entry is valid iff none of its tags' fences is above that.
//
// The tags of a load that runs are those that its loader has told so far, and those of the copy that it replaces. An
// invalidation of one of them overtakes the flight: later callers start a new one. A tag that was invalidated before the loader
// tells it overtakes the flight at that moment, and callers that came after the invalidation wait no longer. A caller that waited
// for the end of a flight looks again whether a fence of the value's tags came between the load's beginning and its own.
// A request to another member is not joined by a caller that came after a later invalidation of any tag, since
// its tags are known only when it is answered.

const tagPlaceBits = 16

type tagTable [1 << tagPlaceBits]atomic.Uint64

// tagFences are the fences of tags.
type tagFences struct {
	table atomic.Pointer[tagTable] // nil: no tag was ever invalidated; set once, before wide is raised
	// wide is the tag clock. It is raised, as the last thing that an invalidation does, with
	// logbook.mu held.
	wide atomic.Uint64
	// What wide was at least retention ago, and at some time since; turned is when that was noted, ns on the
	// cache's clock. Only sweep changes them.
	old, mid atomic.Uint64
	turned   int64
}

// age notes what wide is, once in retention.
func (f *tagFences) age(now, retention int64) {
	if now-f.turned >= retention {
		f.old.Store(f.mid.Load())
		f.mid.Store(f.wide.Load())
		f.turned = now
	}
}

// TagClock is the tag clock now: what starts now is covered by no fence of a tag applied so far.
func (f *tagFences) TagClock() uint64 { return f.wide.Load() }

// Earlier is the tag clock at least retention ago.
func (f *tagFences) Earlier() uint64 { return f.old.Load() }

// TagSet is what is tagged: with what, and since when. It never changes. nil: no tags.
type TagSet struct {
	wide   uint64
	hashes []uint32
}

// TagsAt returns a set that shares hashes; nil if there are none.
func TagsAt(hashes []uint32, wide uint64) *TagSet {
	if len(hashes) == 0 {
		return nil
	}
	return &TagSet{wide: wide, hashes: hashes}
}

// Since is the tag clock when what is tagged began, 0: nothing is tagged.
func (t *TagSet) Since() uint64 {
	if t == nil {
		return 0
	}
	return t.wide
}

// List returns the hashes, which must not be changed.
func (t *TagSet) List() []uint32 {
	if t == nil {
		return nil
	}
	return t.hashes
}

// TagHash is the hash by which a tag is known.
func TagHash(tag string) uint32 { return uint32(ring.Hash(tag) >> 32) }

// ApplyTags leaves a fence on each tag. The caller holds logbook.mu.
func (f *tagFences) ApplyTags(tags []string) {
	table := f.table.Load()
	if table == nil {
		table = new(tagTable)
		f.table.Store(table)
	}
	stamp := f.wide.Load() + 1
	for _, tag := range tags {
		table[TagHash(tag)>>(32-tagPlaceBits)].Store(stamp)
	}
	f.wide.Store(stamp)
}

// Tagged reports whether a fence of one of the tags covers what has them.
func (f *tagFences) Tagged(t *TagSet) bool {
	return t != nil && f.wide.Load() > t.wide && f.After(t.hashes, t.wide)
}

// After reports whether one of the tags was fenced after the tag clock showed since.
func (f *tagFences) After(hashes []uint32, since uint64) bool {
	table := f.table.Load()
	if table == nil {
		return false
	}
	for _, h := range hashes {
		if table[h>>(32-tagPlaceBits)].Load() > since {
			return true
		}
	}
	return false
}
