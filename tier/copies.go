package tier

import (
	"strings"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
)

// copies are a cache's copies, and its flights and requests that may bring more, to which the journal applies
// invalidations.
type copies struct{ c *core }

// FenceKey implements journal.Copies.
func (x copies) FenceKey(key string, hash uint64, mark codec.Mark, version uint64) {
	c := x.c
	at, applied := c.fences.Apply(key, hash, mark, version, c.dropping(key))
	if !applied && version != 0 { // a request had brought the mark without the version
		c.fences.Update(hash, func() {
			if e, ok := c.owned.Get(key); ok && e.Version != 0 && e.Version < version {
				c.owned.Delete(key)
			}
		})
	}
	c.overtake(key, hash, at, applied)
}

// FenceTags implements journal.Copies.
func (x copies) FenceTags(tags []string) {
	c := x.c
	c.fences.ApplyTags(tags)
	c.flights.detachTags(c.fences)
	c.stats.Fences.Add(int64(len(tags)))
}

// FenceAll implements journal.Copies.
func (x copies) FenceAll(own bool) {
	c := x.c
	c.fences.Wipe(own)
	c.flights.detachAll(c.fences)
	c.inFlight.detachAll(c.fences)
	c.stats.Fences.Add(1)
}

// note applies a mark that a request or a token has carried to key, unless the log has it. It reports whether that
// made copies unusable. It does not keep key. If the table has no room for the mark, this node starts an invalidation
// of its own that stands for it and for all other marks of the key.
func (c *core) note(key string, hash uint64, mark codec.Mark, version uint64) (applied bool) {
	if c.journal.HasApplied(mark) { // the fence may already be forgotten
		return false
	}
	key = strings.Clone(key)
	at, n := c.fences.Note(key, hash, mark, version, c.dropping(key))
	if n == fence.NoRoom {
		c.journal.BeginKey(key, version)
		return true
	}
	c.overtake(key, hash, at, n == fence.Applied)
	return n == fence.Applied
}

// dropping removes the owned entry of key that a fence covers.
func (c *core) dropping(key string) fence.Dropping {
	return func(loaded bool) {
		if !loaded {
			if e, ok := c.owned.Get(key); !ok || !e.Handed {
				return
			}
		}
		c.owned.Delete(key)
	}
}

// overtake keeps callers from joining work that began before a fence of the key. It also runs for a fence that
// existed before: the goroutine that left that fence may not have come this far.
func (c *core) overtake(key string, hash uint64, at fence.Stamps, applied bool) {
	c.flights.detach(key, hash, at.Loads)
	c.inFlight.detach(key, hash, at.Copies)
	if applied {
		c.stats.Fences.Add(1)
	}
}
