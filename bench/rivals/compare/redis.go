package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/tier"
)

// redisServer is the backend of rivals that use a Redis.
type redisServer struct {
	*server.Redis
	empty int64 // bytes that the server takes while it is empty
}

// usesRedis is the part of a rival that starts a redis-server.
type usesRedis struct{ tls bool }

func (usesRedis) needs() error {
	_, err := server.FindRedis()
	return err
}

// named returns the rival's name, which says whether it uses TLS.
func (u usesRedis) named(name string) string {
	if u.tls {
		return name + "+tls"
	}
	return name
}

// server describes the server as the start of a rival's setup.
func (u usesRedis) server() string {
	const s = "one redis-server on this machine, "
	if u.tls {
		return s + "with TLS 1.3 between it and its clients, "
	}
	return s + "without TLS, "
}

func (u usesRedis) start(ctx context.Context) (*redisServer, error) {
	start := server.StartRedis
	if u.tls {
		start = server.StartRedisTLS
	}
	s, err := start(ctx, "--maxmemory-policy", "allkeys-lru")
	if err != nil {
		return nil, err
	}
	return &redisServer{Redis: s}, nil
}

// limit bounds what the server holds. The server's limit includes what it takes while it is empty, about a megabyte,
// which other systems' limits do not. So limit is called when all clients have connected.
func (s *redisServer) limit(ctx context.Context, most int64) error {
	var err error
	if s.empty, err = s.used(ctx); err == nil {
		err = s.Client.Do(ctx, s.Client.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", strconv.FormatInt(s.empty+most, 10)).Build()).Error()
	}
	if err != nil {
		return fmt.Errorf("redis-server at %s: its memory cannot be set: %w", s.Addr, err)
	}
	return nil
}

// used returns how many bytes the server has allocated.
func (s *redisServer) used(ctx context.Context) (int64, error) {
	info, err := s.Client.Do(ctx, s.Client.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			return strconv.ParseInt(n, 10, 64)
		}
	}
	return 0, errors.New("INFO does not say used_memory")
}

func (s *redisServer) held(ctx context.Context) (int64, error) {
	n, err := s.used(ctx)
	return max(0, n-s.empty), err
}

func (s *redisServer) health() error {
	ctx, cancel := context.WithTimeout(context.Background(), serverAnswers)
	defer cancel()
	if err := s.Client.Do(ctx, s.Client.B().Ping().Build()).Error(); err != nil {
		return fmt.Errorf("redis-server does not answer: %w", err)
	}
	return nil
}

func (s *redisServer) flush(ctx context.Context) error {
	return s.Client.Do(ctx, s.Client.B().Flushall().Build()).Error()
}

func (s *redisServer) stop() { s.Stop() }

// redis is a Redis server with rueidis' cache-aside, which keeps copies on the client side.
//
// The settings are those of the README of rueidisaside v1.0.78: its example sets the address alone. Its section
// Limitation has UseLuaLock for servers before 7.0 only. It says nothing of ClientTTL, whose default is 10 s. After
// that time others take over the locks of a client that died; one that closes, as a killed node's does here, gives
// them back at once.
type redis struct{ usesRedis }

func (r redis) Name() string { return r.named("redis+rueidisaside") }
func (r redis) Setup() string {
	return r.server() + "with as many bytes as all owned tiers beside what it takes empty (allkeys-lru, nothing on disk), rueidis v1.0.79 with rueidisaside v1.0.78 as its README sets it up, client-side caching of as many bytes as a near tier; what the server itself uses is in neither the CPU nor the heap row"
}
func (redis) Limits() []string {
	return []string{noLimit, "stale copy while it refreshes or when the origin fails", "cut of its network"}
}

func (r redis) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	s, err := r.start(ctx)
	if err != nil {
		return nil, err
	}
	k := env.Scenario.Cluster
	l, err := startLocals(k.Nodes, s, func(node int) (store, error) {
		option := s.Option()
		option.CacheSizeEachConn = int(max(tier.MinBytes, k.Near))
		c, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: option})
		return &redisStore{origin: origin{env, node}, cache: c}, err
	})
	if err != nil {
		return nil, err
	}
	if err := s.limit(ctx, int64(k.Owned)*int64(k.Nodes)); err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return l, nil
}

// redisStore is a client. What it holds stays within the bytes of a near tier.
type redisStore struct {
	client
	origin
	cache rueidisaside.CacheAsideClient
}

// get detaches the whole of a get from its caller, because others on the node wait for what it stores.
func (s *redisStore) get(ctx context.Context, key string) ([]byte, error) {
	return s.leave(ctx, func() ([]byte, error) {
		ctx, cancel := s.inTime(context.WithoutCancel(ctx))
		defer cancel()
		v, err := s.cache.Get(ctx, s.ttl(), key, func(ctx context.Context, key string) (string, error) {
			b, err := s.load(ctx, key)
			return rueidis.BinaryString(b), err
		})
		return unsafe.Slice(unsafe.StringData(v), len(v)), err // not copied: a user reads the string itself
	})
}

func (s *redisStore) drop(ctx context.Context, key string) error { return s.cache.Del(ctx, key) }
func (s *redisStore) close()                                     { s.cache.Close() }
