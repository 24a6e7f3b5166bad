package fence

import (
	"sync/atomic"

	"github.com/weircache/weir/ring"
)

// Tags name sets of keys without a list of them: a value says at its load which tags it has, and an invalidation of a
// tag covers every value that has the tag and was loaded before.
//
// A tag is identified by 32 bits of its hash. The upper bits pick a place in a table of fences. Two tags that share a
// place are invalidated together: once too often, never too rarely. The table takes half a megabyte for any number of
// tags, and is allocated when the first tag is invalidated. Nothing in it is ever forgotten. So raising a tag's fence
// is one store, and no search for the entries that it covers is needed: each entry is tested when it is read.
//
// A tagged entry carries the tag clock of the moment when its load, or the request for it, began. It is valid iff
// none of its tags' fences is above that clock.
//
// The tags of a load that runs are those that its loader has named so far, and those of the copy that it replaces. An
// invalidation of one of them overtakes the flight: later callers start a new one. If the loader names a tag that was
// already invalidated, the flight is overtaken at that moment, and callers that came after the invalidation stop
// waiting for it. A caller that waited for the end of a flight checks again whether a fence of the value's tags came
// between the load's start and its own. A caller that came after an invalidation of any tag does not join a request
// to another member that was sent before, because the tags of that request are known only when it is answered.

const tagPlaceBits = 16

type tagTable [1 << tagPlaceBits]atomic.Uint64

// tagFences holds the fences of tags.
type tagFences struct {
	table atomic.Pointer[tagTable] // nil: no tag was ever invalidated; set once, before wide is raised
	// wide is the tag clock. The caller holds a lock that orders invalidations; it is raised as the last step of an invalidation.
	wide atomic.Uint64
	// old is the value that wide had at least retention ago, and mid the value at some time since. turned is when
	// they were noted, ns on the cache's clock. Only Sweep changes them.
	old, mid atomic.Uint64
	turned   int64
}

// age records the value of wide once in each retention.
func (f *tagFences) age(now, retention int64) {
	if now-f.turned >= retention {
		f.old.Store(f.mid.Load())
		f.mid.Store(f.wide.Load())
		f.turned = now
	}
}

// TagClock returns the tag clock now. No fence of a tag applied so far covers what starts now.
func (f *tagFences) TagClock() uint64 { return f.wide.Load() }

// Earlier returns the tag clock of at least retention ago.
func (f *tagFences) Earlier() uint64 { return f.old.Load() }

// TagSet holds the tags of an entry and the tag clock since which they count. It never changes. nil: no tags.
type TagSet struct {
	wide   uint64
	hashes []uint32
}

// TagsAt returns a set that shares hashes; nil if hashes is empty.
func TagsAt(hashes []uint32, wide uint64) *TagSet {
	if len(hashes) == 0 {
		return nil
	}
	return &TagSet{wide: wide, hashes: hashes}
}

// Since returns the tag clock when the tagged entry's load or request began; 0 for a nil set.
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

// TagHash returns the hash that identifies a tag.
func TagHash(tag string) uint32 { return uint32(ring.Hash(tag) >> 32) }

// ApplyTags leaves a fence on each tag. No other ApplyTags may run at the same time.
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

// Tagged reports whether a fence of one of the tags in t covers the entry that has them.
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
