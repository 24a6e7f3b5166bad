package tier

import (
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/store"
)

// countNearHit counts a near hit with the given weight.
func (c *Cache[V]) countNearHit(b *nearEntry[V], now, weight int64, why store.StaleReason) {
	a := &c.own.Stats.Ages
	a.Served(counters.Near, max(now-b.loaded, 0), weight)
	if now >= b.soft {
		a.Near.Add(weight)
		c.staleServed(why, weight)
	}
}

// countAnswer counts a read that a tier below the near tier has answered.
func (c *Cache[V]) countAnswer(a *answer[V]) {
	s := c.own.Stats
	switch a.source {
	case SourceOwned:
		s.Owned.Add(1)
	case SourceFill:
		s.Filled.Add(1)
	}
	s.Ages.Served(int(a.source-SourceNear), a.age, 1)
	if a.stale {
		s.Stale.Add(1)
		c.staleServed(a.why, 1)
	}
}

func (c *core) staleServed(why store.StaleReason, weight int64) {
	if c.own.Isolation.Lost.Load() {
		why = store.StaleIsolated
	}
	c.own.Stats.Ages.Stale[why].Add(weight)
}
