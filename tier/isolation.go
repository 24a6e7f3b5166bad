package tier

import (
	"context"
	"fmt"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
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
func (w WhenIsolated) String() string {
	switch w {
	case ServeStale:
		return "serve stale"
	case Bypass:
		return "bypass"
	case Fail:
		return "fail"
	}
	return fmt.Sprintf("WhenIsolated(%d)", uint8(w))
}

// lossReporter is a Cluster that can tell whether a member that is not in its view was lost or left in order.
type lossReporter interface{ Lost(name string) bool }

// bypasser is a Cluster that can tell whether a member of its view refuses requests or is silent.
type bypasser interface{ Bypassed(name string) bool }

// checkIsolation checks whether this node is isolated.
func (c *core) checkIsolation() {
	left := func(string) bool { return false }
	if l, ok := c.cfg.Cluster.(lossReporter); ok {
		left = func(name string) bool { return !l.Lost(name) }
	}
	silent := func(string) bool { return false }
	if b, ok := c.cfg.Cluster.(bypasser); ok {
		silent = b.Bypassed
	}
	off, changed := c.isolation.Observe(c.cfg.Cluster.View(), c.clock.Now(), silent, left)
	if !changed {
		return
	}
	c.isolation.Cut.Store(off && c.cfg.WhenIsolated != ServeStale)
	c.setWatch()
	if off {
		c.stats.Isolations.Add(1)
		c.cfg.Logger.Warn("isolated: this node has lost contact with more than half of the members", "event", eventIsolated, "namespace", c.cfg.Namespace, "then", c.cfg.WhenIsolated.String())
	} else {
		c.cfg.Logger.Info("no longer isolated", "event", eventConnected, "namespace", c.cfg.Namespace)
	}
}

// findIsolated is find while the node is isolated and the cache must not serve as usual.
func (c *Cache[V]) findIsolated(ctx context.Context, key string, b *nearEntry[V], flags uint8, a *answer[V]) error {
	if b != nil {
		c.stats.NearUnused.Add(1)
	}
	switch {
	case c.cfg.WhenIsolated == Fail:
		c.stats.Errors.Add(1)
		return ErrIsolated
	case flags&codec.FlagNoFill != 0:
		return ErrNotCached
	}
	q := request[V]{lookup: lookup{key: key, hash: ring.Hash(key), maxAge: store.RefreshAge, chain: governor.ChainOf(ctx)}}
	if err := c.answerOwned(ctx, &q, a); err != nil {
		c.stats.Errors.Add(1)
		return err
	}
	c.countAnswer(a)
	return nil
}
