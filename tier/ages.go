package tier

import (
	"errors"

	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/store"
)

// whyOf returns why a stale copy is served instead of err.
func whyOf(err error) store.StaleReason {
	if errors.Is(err, ErrOverloaded) {
		return store.StaleShed
	}
	return store.StaleError
}

// countNearHit counts a near hit with the given weight.
func (c *Cache[V]) countNearHit(b *nearEntry[V], now, weight int64, why store.StaleReason) {
	a := &c.stats.Ages
	a.Served(counters.Near, max(now-b.loaded, 0), weight)
	if now >= b.soft {
		a.Near.Add(weight)
		c.staleServed(why, weight)
	}
}

// countAnswer counts a read that a tier below the near tier has answered.
func (c *Cache[V]) countAnswer(a *answer[V]) {
	s := c.stats
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
	if c.isolation.Lost.Load() {
		why = store.StaleIsolated
	}
	c.stats.Ages.Stale[why].Add(weight)
}
