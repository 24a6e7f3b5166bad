package main

import (
	"context"

	"github.com/maypok86/otter/v2"

	"github.com/weircache/weir/bench/harness"
)

// loading is plain otter, with its own loading and refreshing, as the example of the README of otter v2.4.0 sets them
// up. Values expire by their age, not since their last use.
type loading struct{}

func (loading) Name() string { return "otter" }
func (loading) Setup() string {
	return "otter v2.4.0 on each node with its loader, as many bytes as weir's two tiers (key, value and 128 for an entry); it refreshes from the TTL on where the scenario allows stale answers"
}
func (loading) Limits() []string { return noPeers()[:3] }

func (loading) Start(_ context.Context, env harness.Env) (harness.Cluster, error) {
	return startLocals(env.Scenario.Cluster.Nodes, nil, func(node int) (store, error) { return newOtter(env, node) })
}

func newOtter(env harness.Env, node int) (*otterStore, error) {
	f := env.Scenario.Cluster.Freshness
	stale := max(f.StaleWhileRevalidate.D(), f.StaleIfError.D())
	o := &otter.Options[string, []byte]{
		MaximumWeight:    uint64(bytesOf(env)),
		Weigher:          func(key string, b []byte) uint32 { return uint32(costOf(key, b)) },
		ExpiryCalculator: otter.ExpiryWriting[string, []byte](f.TTL.D() + stale),
		Logger:           &otter.NoopLogger{},
	}
	if stale > 0 {
		o.RefreshCalculator = otter.RefreshWriting[string, []byte](f.TTL.D())
	}
	c, err := otter.New(o)
	return &otterStore{origin: origin{env, node}, cache: c}, err
}

type otterStore struct {
	origin
	cache *otter.Cache[string, []byte]
}

func (s *otterStore) get(ctx context.Context, key string) ([]byte, error) {
	return s.leave(ctx, func() ([]byte, error) { return s.cache.Get(ctx, key, s) })
}

// Load and Reload implement otter's Loader, without a closure for each get.
func (s *otterStore) Load(ctx context.Context, key string) ([]byte, error) {
	return s.loadForAll(ctx, key)
}

func (s *otterStore) Reload(ctx context.Context, key string, _ []byte) ([]byte, error) {
	return s.Load(ctx, key)
}

func (s *otterStore) drop(_ context.Context, key string) error { s.cache.Invalidate(key); return nil }
func (s *otterStore) clear()                                   { s.cache.InvalidateAll() }
func (s *otterStore) close()                                   { s.cache.StopAllGoroutines() }
func (s *otterStore) held() int64                              { return int64(s.cache.WeightedSize()) }
