package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/tier"
)

// redis is a Redis server with rueidis' cache-aside, which keeps copies on the client side.
type redis struct{}

func (redis) Name() string { return "redis+rueidisaside" }
func (redis) Setup() string {
	return "one redis-server on this machine with as many bytes as all owned tiers beside what it takes empty (allkeys-lru, nothing on disk), rueidis v1.0.79 with rueidisaside v1.0.78, client-side caching of as many bytes as a near tier; what the server itself uses is in neither the CPU nor the heap row"
}
func (redis) Limits() []string {
	return []string{"limit of loads at once", "stale copy while it refreshes or when the origin fails", "cut of its network"}
}

type redisCluster struct {
	env    harness.Env
	server *server.Redis
	nodes  []atomic.Pointer[rueidisaside.CacheAsideClient]
	empty  int64 // bytes that the empty server takes
}

// redisAnswers is how long the server may take to answer the health check.
const redisAnswers = 2 * time.Second

func (redis) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	k := env.Scenario.Cluster
	c := &redisCluster{env: env, nodes: make([]atomic.Pointer[rueidisaside.CacheAsideClient], k.Nodes)}
	var err error
	if c.server, err = server.StartRedis(ctx, "--maxmemory-policy", "allkeys-lru"); err != nil {
		return nil, err
	}
	for i := range c.nodes {
		if err := c.join(i); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	// Its limit includes what the empty server takes, about a megabyte, which other systems' limits do not.
	if c.empty, err = c.used(ctx); err == nil {
		most := strconv.FormatInt(c.empty+int64(k.Owned)*int64(k.Nodes), 10)
		client := c.server.Client
		err = client.Do(ctx, client.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", most).Build()).Error()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("redis-server at %s: its memory cannot be set: %w", c.server.Addr, err), c.Close(ctx))
	}
	return c, nil
}

// used returns how many bytes the server has allocated.
func (c *redisCluster) used(ctx context.Context) (int64, error) {
	info, err := c.server.Client.Do(ctx, c.server.Client.B().Info().Section("memory").Build()).ToString()
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

// Counters returns what the server holds. What each client holds stays within the bytes of a near tier.
func (c *redisCluster) Counters() map[string]float64 {
	ctx, cancel := context.WithTimeout(context.Background(), redisAnswers)
	defer cancel()
	n, err := c.used(ctx)
	if err != nil {
		return nil // then the report omits it
	}
	return map[string]float64{harness.HeldBytes: float64(max(0, n-c.empty))}
}

func (c *redisCluster) join(i int) error {
	n, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: rueidis.ClientOption{
		InitAddress: []string{c.server.Addr}, CacheSizeEachConn: int(max(tier.MinBytes, c.env.Scenario.Cluster.Near)),
	}})
	if err == nil {
		c.nodes[i].Store(&n)
	}
	return err
}

func (c *redisCluster) Get(ctx context.Context, node int, key string) ([]byte, error) {
	n := c.nodes[node].Load()
	if n == nil {
		return nil, errDown
	}
	v, err := (*n).Get(ctx, c.env.Scenario.Cluster.Freshness.TTL.D(), key, func(ctx context.Context, key string) (string, error) {
		ctx, cancel := detached(ctx, c.env)
		defer cancel()
		b, err := c.env.Load(ctx, key)
		return rueidis.BinaryString(b), err
	})
	return []byte(v), err
}

func (c *redisCluster) Invalidate(ctx context.Context, node int, key string) error {
	n := c.nodes[node].Load()
	if n == nil {
		return errDown
	}
	return (*n).Del(ctx, key)
}

func (c *redisCluster) Fault(ctx context.Context, s harness.Step) error {
	switch s.Do {
	case harness.StepKill, harness.StepLeave:
		if n := c.nodes[s.Node].Swap(nil); n != nil {
			(*n).Close()
		}
		return nil
	case harness.StepJoin:
		return c.join(s.Node)
	case harness.StepFlush:
		return c.server.Client.Do(ctx, c.server.Client.B().Flushall().Build()).Error()
	}
	return fmt.Errorf("%w %s", harness.ErrCannot, s)
}

// Processes returns the ID of the server's process, which stalls with the machine.
func (c *redisCluster) Processes() []int { return []int{c.server.Pid()} }

// Health reports whether the server is alive.
func (c *redisCluster) Health() error {
	ctx, cancel := context.WithTimeout(context.Background(), redisAnswers)
	defer cancel()
	if err := c.server.Client.Do(ctx, c.server.Client.B().Ping().Build()).Error(); err != nil {
		return fmt.Errorf("redis-server does not answer: %w", err)
	}
	return nil
}

func (c *redisCluster) Close(context.Context) error {
	for i := range c.nodes {
		if n := c.nodes[i].Swap(nil); n != nil {
			(*n).Close()
		}
	}
	c.server.Stop()
	return nil
}
