package tier

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/store"
)

// WhenIsolated says what a cache does while its node has lost sight of more than half of the
// members of the last view that stood for 30 seconds, or hears nothing from them: it cannot hear of
// their invalidations then.
type WhenIsolated uint8

// What a cache does when it is isolated.
const (
	// ServeStale serves as always. Copies end at their hard expiry at the latest.
	ServeStale WhenIsolated = iota
	// Bypass loads for each read, within the governor; reads that come while a load waits for its permit share
	// it. No copy from before the read is served.
	Bypass
	// Fail answers ErrIsolated.
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

// stableFor is for how long a view must stand to count as stable. A partition is noticed member by
// member, within some seconds.
const stableFor = int64(30 * time.Second)

// isolated reports whether who knew the members stable and sees those in view has lost sight of more than
// half of them. left are those that said goodbye: they are not missed.
func isolated(stable []string, sees, left func(name string) bool) bool {
	lost, all := 0, 0
	for _, name := range stable {
		switch {
		case sees(name):
			all++
		case !left(name):
			all++
			lost++
		}
	}
	return 2*lost > all
}

// isolation is what a cache knows of its node's.
type isolation struct {
	// cut: the node is isolated and the cache must not serve as always. Set with mu held.
	cut atomic.Bool
	// lost: the node is isolated, whatever the cache does then. Set with mu held.
	lost atomic.Bool

	mu       sync.Mutex // guards the rest, and makes changes of Cache.watch take turns
	stable   []string   // names of the last stable view
	stableOf *ring.View // which is this one
	view     *ring.View
	since    int64 // when view came, ns on the cache's clock
	off      bool  // the node is isolated
}

// look takes note of a view, or of the time, and reports whether the node is isolated and whether that is new.
func (s *isolation) look(view *ring.View, now int64, silent, left func(name string) bool) (off, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != s.stableOf && !s.off && now-s.since >= stableFor {
		s.stable, s.stableOf = namesOf(s.view), s.view
	}
	if view != s.view {
		s.view, s.since = view, now
	}
	sees := func(name string) bool { return view.Index(name) >= 0 && !silent(name) }
	gone := func(name string) bool { return view.Index(name) < 0 && left(name) }
	was := s.off
	s.off = isolated(s.stable, sees, gone)
	s.lost.Store(s.off)
	return s.off, s.off != was
}

func (s *isolation) isOff() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.off
}

func namesOf(view *ring.View) []string {
	names := make([]string, 0, view.Len())
	for _, m := range view.Members() {
		names = append(names, m.Name)
	}
	return names
}

// loser is a Cluster that can tell who of those who are not in its view was lost, and did not leave in order.
type loser interface{ Lost(name string) bool }

// bypasser is a Cluster that can tell who of those in its view refuses or is silent.
type bypasser interface{ Bypassed(name string) bool }

// notice sees whether this node is isolated.
func (c *Cache[V]) notice() {
	left := func(string) bool { return false }
	if l, ok := c.cfg.Cluster.(loser); ok {
		left = func(name string) bool { return !l.Lost(name) }
	}
	silent := func(string) bool { return false }
	if b, ok := c.cfg.Cluster.(bypasser); ok {
		silent = b.Bypassed
	}
	off, changed := c.isolation.look(c.cfg.Cluster.View(), c.clock.Now(), silent, left)
	if !changed {
		return
	}
	c.isolation.cut.Store(off && c.cfg.WhenIsolated != ServeStale)
	c.rewatch()
	if off {
		c.stats.isolations.Add(1)
		c.cfg.Logger.Warn("isolated: this node has lost sight of more than half of the members", "event", eventIsolated, "namespace", c.cfg.Namespace, "then", c.cfg.WhenIsolated.String())
	} else {
		c.cfg.Logger.Info("no longer isolated", "event", eventConnected, "namespace", c.cfg.Namespace)
	}
}

// findIsolated is find while the cache must not serve as always.
func (c *Cache[V]) findIsolated(ctx context.Context, key string, b *box[V], flags uint8, a *answer[V]) error {
	if b != nil {
		c.stats.nearUnused.Add(1)
	}
	switch {
	case c.cfg.WhenIsolated == Fail:
		c.stats.errors.Add(1)
		return ErrIsolated
	case flags&codec.FlagNoFill != 0:
		return ErrNotCached
	}
	q := question[V]{key: key, hash: ring.Hash(key), maxAge: store.RefreshAge, chain: governor.ChainOf(ctx)}
	if err := c.ownAnswer(ctx, &q, 0, a); err != nil {
		c.stats.errors.Add(1)
		return err
	}
	c.answered(a)
	return nil
}
