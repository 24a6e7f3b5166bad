package owner

import (
	"github.com/weircache/weir/tier/internal/placement"
)

// whyMissing returns why this node has no valid copy of a key, as far as it can know. A key that changed owner and was
// never loaded before counts as moved, so the number of moved keys is an upper bound.
func (c *Owner) whyMissing(key string, hash uint64, standIn bool) placement.Cause {
	if standIn {
		return placement.OwnerLost
	}
	if c.Fences.Fenced(key, hash) {
		return placement.Fenced
	}
	if e, ok := c.Owned.Get(key); ok {
		if c.Fences.Tagged(e.Tags) {
			return placement.Fenced
		}
		return placement.Expired
	}
	if c.evicted.Has(hash) {
		return placement.Evicted
	}
	if c.Config.Cluster != nil {
		return c.views.Why(hash, c.Clock.Now())
	}
	return placement.Cold
}
