package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/viccon/sturdyc"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/bench/workload"
)

// sturdy is sturdyc.
//
// The settings are those of the README of sturdyc v1.1.5: 10 shards and 10 % evicted at once (Creating a cache client),
// early refreshes at a random age (Early refreshes), and storage of missing records (Non-existent records). It has no
// refresh coalescing: that section is about origins that answer many keys in one call, which this one does not.
type sturdy struct{}

func (sturdy) Name() string { return "sturdyc" }
func (sturdy) Setup() string {
	return "sturdyc v1.1.5 on each node, as many entries as fit the bytes of weir's two tiers at the scenario's mean size (key, value and 128 for an entry), 10 shards, 10 % evicted at once, missing records stored; it refreshes early: between 80 % and 90 % of the TTL, or from the TTL on where the scenario allows stale answers"
}
func (sturdy) Limits() []string {
	return append(noPeers()[:3:3], "bound in bytes (it counts entries)")
}

func (sturdy) Start(_ context.Context, env harness.Env) (harness.Cluster, error) {
	const shards, percent = 10, 10
	mean := meanSize(env.Scenario.Values)
	if mean == 0 {
		return nil, errors.New("sturdyc counts entries, and how many fit the bytes is not known for values of a trace")
	}
	f := env.Scenario.Cluster.Freshness
	ttl := f.TTL.D()
	last := ttl + max(f.StaleWhileRevalidate.D(), f.StaleIfError.D())
	from, to, blocking := ttl*8/10, ttl*9/10, ttl
	if while := f.StaleWhileRevalidate.D(); while > 0 {
		from, to, blocking = ttl, ttl+while/10, ttl+while
	}
	return startLocals(env.Scenario.Cluster.Nodes, nil, func(node int) (store, error) {
		s := &sturdyStore{origin: origin{env, node}, clock: &sturdyClock{ended: make(chan struct{})}}
		entries := max(shards, int(bytesOf(env))/(typicalKey+mean+overhead))
		s.cache = sturdyc.New[[]byte](entries, shards, last, percent,
			sturdyc.WithEarlyRefreshes(from, to, blocking, time.Second), // a load that fails is tried again after a second, then two
			sturdyc.WithMissingRecordStorage(), sturdyc.WithClock(s.clock), sturdyc.WithLog(slog.New(slog.DiscardHandler)))
		return s, nil
	})
}

// typicalKey is the length of a key of the harness.
const typicalKey = 16

// meanSize returns the mean of the values' sizes; 0: not known.
func meanSize(v scenario.Values) int {
	switch v.Kind {
	case "fixed":
		return int(v.Size)
	case "lognormal":
		sigma := math.Log(float64(v.P99)/float64(v.P50)) / workload.Z99
		return int(min(float64(v.Max), float64(v.P50)*math.Exp(sigma*sigma/2)))
	}
	return 0
}

type sturdyStore struct {
	origin
	clock *sturdyClock
	cache *sturdyc.Client[[]byte]
}

// get returns the old value if its refresh fails, as the README proposes: it cannot be older than the scenario allows.
func (s *sturdyStore) get(ctx context.Context, key string) ([]byte, error) {
	return s.leave(ctx, func() ([]byte, error) {
		b, err := s.cache.GetOrFetch(ctx, key, func(ctx context.Context) ([]byte, error) { return s.loadForAll(ctx, key) })
		if errors.Is(err, sturdyc.ErrOnlyCachedRecords) {
			return b, nil
		}
		return b, err
	})
}

func (s *sturdyStore) drop(_ context.Context, key string) error { s.cache.Delete(key); return nil }
func (s *sturdyStore) close()                                   { close(s.clock.ended) }

func (s *sturdyStore) clear() {
	for _, key := range s.cache.ScanKeys() {
		s.cache.Delete(key)
	}
}

func (s *sturdyStore) held() (sum int64) {
	for key, b := range s.cache.GetMany(s.cache.ScanKeys()) {
		sum += costOf(key, b)
	}
	return sum
}

// sturdyClock is the real clock, whose tickers end with it: a client of sturdyc cannot be closed otherwise.
type sturdyClock struct {
	sturdyc.RealClock
	ended chan struct{}
}

func (c *sturdyClock) NewTicker(d time.Duration) (<-chan time.Time, func()) {
	t, out := time.NewTicker(d), make(chan time.Time)
	go func() {
		defer close(out)
		defer t.Stop()
		for {
			select {
			case now := <-t.C:
				select {
				case out <- now:
				case <-c.ended:
					return
				}
			case <-c.ended:
				return
			}
		}
	}()
	return out, func() {}
}
