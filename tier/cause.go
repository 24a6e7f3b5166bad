package tier

// whyMissing tells why this node has no valid copy of a key, as far as it can know. A key that
// changed owner and was never loaded before counts as moved: an upper bound.
func (c *Cache[V]) whyMissing(key string, hash uint64, standIn bool) cause {
	if standIn {
		return causeOwnerLost
	}
	if c.fences.Fenced(key, hash) {
		return causeFenced
	}
	if e, ok := c.owned.Get(key); ok {
		if c.fences.Tagged(e.Tags) {
			return causeFenced
		}
		return causeExpired
	}
	if c.evicted.has(hash) {
		return causeEvicted
	}
	if c.cfg.Cluster != nil {
		return c.views.why(hash, c.self, c.clock.Now())
	}
	return causeCold
}
