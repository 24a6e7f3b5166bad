package owner

import (
	"strings"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
)

// Copies are a cache's copies, and its flights and requests that may bring more, to which the journal applies
// invalidations.
type Copies struct{ C *Owner }

// FenceKey implements journal.Copies.
func (x Copies) FenceKey(key string, hash uint64, mark codec.Mark, version uint64) {
	c := x.C
	at, applied := c.Fences.Apply(key, hash, mark, version, c.Dropping(key))
	if !applied && version != 0 { // a request had brought the mark without the version
		c.Fences.Update(hash, func() {
			if e, ok := c.Owned.Get(key); ok && e.Version != 0 && e.Version < version {
				c.Owned.Delete(key)
			}
		})
	}
	c.overtake(key, hash, at, applied)
}

// FenceTags implements journal.Copies.
func (x Copies) FenceTags(tags []string) {
	c := x.C
	c.Fences.ApplyTags(tags)
	c.Flights.detachTags(c.Fences)
	c.Stats.Fences.Add(int64(len(tags)))
}

// FenceAll implements journal.Copies.
func (x Copies) FenceAll(own bool) {
	c := x.C
	c.Fences.Wipe(own)
	c.Flights.detachAll(c.Fences)
	c.Config.Calls.DetachAll(c.Fences)
	c.Stats.Fences.Add(1)
}

// Note applies a mark that a request or a token has carried to key, unless the log has it. It reports whether that
// made copies unusable. It does not keep key. If the table has no room for the mark, this node starts an invalidation
// of its own that stands for it and for all other marks of the key.
func (c *Owner) Note(key string, hash uint64, mark codec.Mark, version uint64) (applied bool) {
	if c.Journal.HasApplied(mark) { // the fence may already be forgotten
		return false
	}
	key = strings.Clone(key)
	at, n := c.Fences.Note(key, hash, mark, version, c.Dropping(key))
	if n == fence.NoRoom {
		c.Journal.BeginKey(key, version)
		return true
	}
	c.overtake(key, hash, at, n == fence.Applied)
	return n == fence.Applied
}

// Dropping removes the owned entry of key that a fence covers.
func (c *Owner) Dropping(key string) fence.Dropping {
	return func(loaded bool) {
		if !loaded {
			if e, ok := c.Owned.Get(key); !ok || !e.Handed {
				return
			}
		}
		c.Owned.Delete(key)
	}
}

// overtake keeps callers from joining work that began before a fence of the key. It also runs for a fence that
// existed before: the goroutine that left that fence may not have come this far.
func (c *Owner) overtake(key string, hash uint64, at fence.Stamps, applied bool) {
	c.Flights.Detach(key, hash, at.Loads)
	c.Config.Calls.Detach(key, hash, at.Copies)
	if applied {
		c.Stats.Fences.Add(1)
	}
}
