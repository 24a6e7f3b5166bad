package main

import (
	"context"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/weircache/weir/tier"
)

// naive is the yardstick: cache-aside as it is often written. It looks into the cache, reads the origin on a miss, and
// stores the result with a time to live. Each node has its own cache, and concurrent misses do not wait for one
// another.
type naive struct {
	cache *ristretto.Cache[string, Product]
	store *store
}

func newNaive(s *store) (*naive, error) {
	c, err := ristretto.NewCache(&ristretto.Config[string, Product]{NumCounters: 1_000_000, MaxCost: 100_000, BufferItems: 64, IgnoreInternalCost: true})
	if err != nil {
		return nil, err
	}
	return &naive{cache: c, store: s}, nil
}

func (n *naive) get(ctx context.Context, key string) (Product, error) {
	if p, ok := n.cache.Get(key); ok {
		return p, nil
	}
	p, err := n.store.load(ctx, 'n', key, func(string) func(...error) { return func(...error) {} })
	if err == nil {
		n.cache.SetWithTTL(key, p, 1, contract.TTL)
	}
	return p, err
}

func (n *naive) drop(key string) { n.cache.Del(key) }

// contract is the freshness that the demo's namespace promises.
var contract = tier.Freshness{TTL: 8 * time.Second, StaleWhileRevalidate: 30 * time.Second, StaleIfError: time.Minute, NearTTL: 500 * time.Millisecond}
