package main

import (
	"context"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/weircache/weir/bench/harness"
)

// aside is cache-aside over ristretto: look up, load, store. With shared, callers on one node share a load through
// x/sync/singleflight.
//
// The README of ristretto v2.4.2 (section Usage) calls Wait between a Set and a Get that must find it. Plain cache-aside
// needs no such Get. A flight does: a caller that comes right after it would load again.
type aside struct{ shared bool }

func (a aside) Name() string {
	if a.shared {
		return "ristretto+singleflight"
	}
	return "cache-aside"
}

func (a aside) Setup() string {
	s := "ristretto v2.4.2 on each node, as many bytes as weir's two tiers (key, value and 128 for an entry), 10 counters for an entry, values handed out without a copy"
	if a.shared {
		s += ", x/sync/singleflight before the origin, loads detached from their callers, Wait after the Set of a flight"
	}
	return s
}

func (a aside) Limits() []string {
	if a.shared {
		return noPeers()
	}
	return append(noPeers(), "shared load of a key on a node")
}

func (a aside) Start(_ context.Context, env harness.Env) (harness.Cluster, error) {
	return startLocals(env.Scenario.Cluster.Nodes, nil, func(node int) (store, error) {
		most := bytesOf(env)
		c, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
			NumCounters: min(max(10*most/(256+overhead), 10_000), 50_000_000), MaxCost: most, BufferItems: 64,
			IgnoreInternalCost: true,
		})
		return &asideStore{flights: flights{origin: origin{env, node}}, shared: a.shared, cache: c}, err
	})
}

type asideStore struct {
	flights
	shared bool
	cache  *ristretto.Cache[string, []byte]
}

func (s *asideStore) get(ctx context.Context, key string) ([]byte, error) {
	if b, ok := s.cache.Get(key); ok {
		return b, nil
	}
	if !s.shared {
		return s.fill(ctx, key)
	}
	return s.do(ctx, key, func(ctx context.Context) ([]byte, error) {
		if b, ok := s.cache.Get(key); ok { // a flight that has just ended may have stored it
			return b, nil
		}
		return s.fill(ctx, key)
	})
}

func (s *asideStore) fill(ctx context.Context, key string) ([]byte, error) {
	b, err := s.load(ctx, key)
	if err == nil {
		s.cache.SetWithTTL(key, b, costOf(key, b), s.ttl())
		if s.shared {
			s.cache.Wait()
		}
	}
	return b, err
}

func (s *asideStore) drop(_ context.Context, key string) error { s.cache.Del(key); return nil }
func (s *asideStore) clear()                                   { s.cache.Clear() }
func (s *asideStore) close()                                   { s.cache.Close() }
func (s *asideStore) held() int64                              { return s.cache.MaxCost() - s.cache.RemainingCost() }
