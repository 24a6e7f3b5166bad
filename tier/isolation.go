package tier

import (
	"context"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// WhenIsolated says what a cache does while its node is isolated: it has lost sight of, or hears nothing from, more
// than half of the members of the last view that stood for 30 seconds. It cannot learn of their invalidations then.
type WhenIsolated uint8

// What a cache does when its node is isolated.
const (
	// ServeStale serves as usual. Copies end at their hard expiry at the latest.
	ServeStale WhenIsolated = iota
	// Bypass loads for each read, within the governor's limits. Reads that come while a load waits for its permit share
	// that load. No copy from before the read is served.
	Bypass
	// Fail returns ErrIsolated.
	Fail
)

// String returns "serve stale", "bypass" or "fail".
func (w WhenIsolated) String() string { return owner.WhenIsolated(w).String() }

// findIsolated is find while the node is isolated and the cache must not serve as usual.
func (c *Cache[V]) findIsolated(ctx context.Context, key string, b *nearEntry[V], flags uint8, a *answer[V]) error {
	if b != nil {
		c.own.Stats.NearUnused.Add(1)
	}
	switch {
	case c.cfg.WhenIsolated == Fail:
		c.own.Stats.Errors.Add(1)
		return ErrIsolated
	case flags&codec.FlagNoFill != 0:
		return ErrNotCached
	}
	q := request[V]{Lookup: owner.Lookup{Key: key, Hash: ring.Hash(key), MaxAge: store.RefreshAge, Chain: governor.ChainOf(ctx)}}
	if err := c.answerOwned(ctx, &q, a); err != nil {
		c.own.Stats.Errors.Add(1)
		return err
	}
	c.countAnswer(a)
	return nil
}
