package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/rivals/server"
)

// memcached is a memcached with cache-aside and singleflight.
//
// The client keeps more idle connections than a node has requests at once, as the comment on MaxIdleConns in gomemcache
// v0.0.0-20260422231931 advises. The server counts expiries in whole seconds, so a value carries its own.
type memcached struct{}

func (memcached) Name() string { return "memcached" }
func (memcached) Setup() string {
	return "one memcached on this machine with as many bytes as all tiers of weir, rounded up to whole MiB and at least two, gomemcache v0.0.0-20260422231931 with 512 idle connections a node, cache-aside with x/sync/singleflight on each node; a value carries its expiry, because the server's are whole seconds; what the server itself uses is in neither the CPU nor the heap row"
}
func (memcached) Limits() []string {
	return []string{"shared load of a key between nodes", "copies near the caller", noLimit, "stale copy while it refreshes or when the origin fails", "cut of its network"}
}

func (memcached) needs() error {
	_, err := server.FindMemcached()
	return err
}

func (memcached) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	k := env.Scenario.Cluster
	s, err := server.StartMemcached(ctx, bytesOf(env)*int64(k.Nodes), "-c", "8192")
	if err != nil {
		return nil, err
	}
	dial := func() *memcache.Client {
		c := memcache.New(s.Addr)
		c.MaxIdleConns, c.Timeout = 512, k.Timeout.D()
		return c
	}
	return startLocals(k.Nodes, &memcachedServer{Memcached: s, client: dial()}, func(node int) (store, error) {
		return &memcachedStore{flights: flights{origin: origin{env, node}}, cache: dial()}, nil
	})
}

type memcachedServer struct {
	*server.Memcached
	client *memcache.Client
}

func (s *memcachedServer) held(ctx context.Context) (int64, error) { return s.Stat(ctx, "bytes") }
func (s *memcachedServer) flush(context.Context) error             { return s.client.FlushAll() }

func (s *memcachedServer) health() error {
	if err := s.client.Ping(); err != nil {
		return fmt.Errorf("memcached does not answer: %w", err)
	}
	return nil
}

func (s *memcachedServer) stop() {
	_ = s.client.Close() // the server ends its connections
	s.Kill()
}

type memcachedStore struct {
	client
	flights
	cache *memcache.Client
}

func (s *memcachedStore) get(ctx context.Context, key string) ([]byte, error) {
	if b, err := s.look(key); err != nil || b != nil {
		return b, err
	}
	return s.do(ctx, key, func(ctx context.Context) ([]byte, error) {
		if b, err := s.look(key); err != nil || b != nil {
			return b, err
		}
		due := time.Now().Add(s.ttl()) // ages count from the start of the load
		b, err := s.load(ctx, key)
		if err != nil {
			return nil, err
		}
		second := int32(s.ttl()/time.Second) + 1
		return b, s.cache.Set(&memcache.Item{Key: key, Value: envelope(due, b), Expiration: second})
	})
}

// look reads the server. The value is nil if there is none that is fresh.
func (s *memcachedStore) look(key string) ([]byte, error) {
	i, err := s.cache.Get(key)
	if errors.Is(err, memcache.ErrCacheMiss) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if b, due := open(i.Value); time.Until(due) > 0 {
		return b, nil
	}
	return nil, nil
}

func (s *memcachedStore) getMany(_ context.Context, keys []string) (map[string][]byte, error) {
	items, err := s.cache.GetMulti(keys)
	found := make(map[string][]byte, len(items))
	for key, i := range items {
		if b, due := open(i.Value); time.Until(due) > 0 {
			found[key] = b
		}
	}
	return found, err
}

func (s *memcachedStore) drop(_ context.Context, key string) error {
	if err := s.cache.Delete(key); !errors.Is(err, memcache.ErrCacheMiss) {
		return err
	}
	return nil
}

func (s *memcachedStore) close() { _ = s.cache.Close() }
