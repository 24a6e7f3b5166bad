package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/harness"
)

// redis is a Redis server with rueidis' cache-aside, which keeps copies on the clients' side.
type redis struct{}

func (redis) Name() string { return "redis+rueidisaside" }
func (redis) Setup() string {
	return "one redis-server on this machine with as many bytes as all owned tiers (allkeys-lfu, nothing on disk), rueidis v1.0.79 with rueidisaside v1.0.78, client-side caching of as many bytes as a near tier; what the server itself uses is in neither the CPU nor the heap row"
}
func (redis) Limits() []string {
	return []string{"limit of loads at once", "stale copy while it refreshes or when the origin fails", "cut of its network"}
}

type redisCluster struct {
	env    harness.Env
	server *bench.Process
	addr   string
	nodes  []atomic.Pointer[rueidisaside.CacheAsideClient]
	watch  rueidis.Client
}

func (redis) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("redis-server is not installed: apt-get install redis-server")
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	k := env.Scenario.Cluster
	c := &redisCluster{env: env, addr: addr, nodes: make([]atomic.Pointer[rueidisaside.CacheAsideClient], k.Nodes)}
	port := addr[len("127.0.0.1:"):]
	c.server, err = bench.Command(path, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no",
		"--maxmemory", strconv.FormatInt(int64(k.Owned)*int64(k.Nodes), 10), "--maxmemory-policy", "allkeys-lfu")
	if err != nil {
		return nil, err
	}
	for {
		if c.watch, err = rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true}); err == nil {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("redis-server at %s does not answer: %w", addr, err), c.server.Stop())
		}
	}
	for i := range c.nodes {
		if err := c.join(i); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	return c, nil
}

func (c *redisCluster) join(i int) error {
	n, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: rueidis.ClientOption{
		InitAddress: []string{c.addr}, CacheSizeEachConn: int(max(1<<20, c.env.Scenario.Cluster.Near)),
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
		return c.watch.Do(ctx, c.watch.B().Flushall().Build()).Error()
	}
	return fmt.Errorf("%w %s", harness.ErrCannot, s)
}

// Health tells whether the server lives.
func (c *redisCluster) Health() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := c.watch.Do(ctx, c.watch.B().Ping().Build()).Error(); err != nil {
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
	c.watch.Close()
	return c.server.Stop()
}
