package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/olric-data/olric"
	"github.com/olric-data/olric/config"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/rivals/server"
)

// dmap is embedded olric.
//
// The README of olric v0.7.3 and the samples of its configuration have 271 partitions, one replica, which is the owner's,
// and quorums of 1 for a cache on a few nodes. A table of a partition is as large as its share of the bytes, and at most
// the default of 1 MiB, as its author advises for little data (issue 106 of olric-data/olric: a table is allocated
// whole). An entry must fit a table, so it is never smaller than two of the largest values.
type dmap struct{}

func (dmap) Name() string { return "olric" }
func (dmap) Setup() string {
	return "olric v0.7.3 embedded in each node, one DMap with as many bytes as weir's two tiers and LRU, which is no bound: a put evicts one key at most, so that values of unlike sizes outgrow it, and its tables are allocated on top (each as large as its partition's share of the bytes), 271 partitions, one replica, cache-aside with x/sync/singleflight on each node"
}
func (dmap) Limits() []string {
	return []string{"loading (cache-aside around it)", "copies near the caller", "shared load of a key between nodes", noLimit,
		"stale copy while it refreshes or when the origin fails", "death without a word within one process", "cut of its network"}
}

type olricNode struct {
	db   *olric.Olric
	own  *olric.EmbeddedClient
	addr string // of its server; it is the node's identity
	dm   olric.DMap
	flights
	peer  string // memberlist's address
	ended chan error
}

type olricCluster struct {
	env   harness.Env
	nodes []atomic.Pointer[olricNode]
}

func (dmap) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	c := &olricCluster{env: env, nodes: make([]atomic.Pointer[olricNode], env.Scenario.Cluster.Nodes)}
	for i := range c.nodes {
		if err := c.join(ctx, i); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	return c, nil
}

func (c *olricCluster) join(ctx context.Context, i int) error {
	cfg := config.New("local")
	var ports [2]int
	for k := range ports {
		var err error
		if _, ports[k], err = server.FreePort(); err != nil {
			return err
		}
	}
	cfg.BindAddr, cfg.BindPort = "127.0.0.1", ports[0]
	cfg.MemberlistConfig.BindAddr, cfg.MemberlistConfig.BindPort = "127.0.0.1", ports[1]
	cfg.MemberlistConfig.AdvertisePort = ports[1]
	cfg.Logger = log.New(io.Discard, "", 0)
	cfg.DMaps.MaxInuse = int(bytesOf(c.env))
	cfg.DMaps.EvictionPolicy = config.LRUEviction
	cfg.PartitionCount, cfg.ReplicaCount, cfg.ReadQuorum, cfg.WriteQuorum = config.DefaultPartitionCount, 1, 1, 1
	cfg.DMaps.Engine = config.NewEngine()
	cfg.DMaps.Engine.Config["tableSize"] = tableSize(c.env)
	for k := range c.nodes {
		if n := c.nodes[k].Load(); n != nil {
			cfg.Peers = append(cfg.Peers, n.peer)
		}
	}
	started := make(chan struct{})
	cfg.Started = func() { close(started) }
	db, err := olric.New(cfg)
	if err != nil {
		return err
	}
	n := &olricNode{db: db, flights: flights{origin: origin{c.env, i}}, own: db.NewEmbeddedClient(), addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])), peer: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1])), ended: make(chan error, 1)}
	go func() { n.ended <- db.Start() }()
	select {
	case <-started:
	case err := <-n.ended:
		return fmt.Errorf("olric ended at its start: %w", err)
	case <-ctx.Done():
		return errors.Join(ctx.Err(), db.Shutdown(context.WithoutCancel(ctx)))
	}
	if n.dm, err = n.own.NewDMap("bench"); err != nil {
		return err
	}
	c.nodes[i].Store(n)
	return nil
}

// tableSize returns the size of a partition's table, in bytes.
func tableSize(env harness.Env) uint64 {
	const least, most = 4 << 10, 1 << 20
	share := bytesOf(env) * int64(env.Scenario.Cluster.Nodes) / config.DefaultPartitionCount
	v := env.Scenario.Values
	largest := int64(max(v.Size, v.Max))
	return uint64(max(min(max(share, least), most), 2*largest))
}

func (c *olricCluster) Get(ctx context.Context, node int, key string) ([]byte, error) {
	n := c.nodes[node].Load()
	if n == nil {
		return nil, errDown
	}
	if b, err := n.look(ctx, key); err == nil || !errors.Is(err, olric.ErrKeyNotFound) {
		return b, err
	}
	return n.do(ctx, key, func(ctx context.Context) ([]byte, error) {
		if b, err := n.look(ctx, key); err == nil {
			return b, nil
		}
		b, err := n.load(ctx, key)
		if err != nil {
			return nil, err
		}
		return b, n.dm.Put(ctx, key, b, olric.PX(n.ttl()))
	})
}

func (n *olricNode) look(ctx context.Context, key string) ([]byte, error) {
	r, err := n.dm.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return r.Byte()
}

func (c *olricCluster) Invalidate(ctx context.Context, node int, key string) error {
	n := c.nodes[node].Load()
	if n == nil {
		return errDown
	}
	_, err := n.dm.Delete(ctx, key)
	return err
}

// Counters returns what the running nodes hold, and what their tables take.
func (c *olricCluster) Counters() map[string]float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	held, allocated := 0.0, 0.0
	for i := range c.nodes {
		n := c.nodes[i].Load()
		if n == nil {
			continue
		}
		s, err := n.own.Stats(ctx, n.addr)
		if err != nil {
			return nil // then the report omits it
		}
		for _, p := range s.Partitions {
			for _, d := range p.DMaps {
				held += float64(d.SlabInfo.Inuse)
				allocated += float64(d.SlabInfo.Allocated)
			}
		}
	}
	return map[string]float64{harness.HeldBytes: held, harness.AllocatedBytes: allocated}
}

func (c *olricCluster) Fault(ctx context.Context, s harness.Step) error {
	switch s.Do {
	case harness.StepLeave:
		n := c.nodes[s.Node].Swap(nil)
		if n == nil {
			return errDown
		}
		return n.close(ctx)
	case harness.StepJoin:
		if c.nodes[s.Node].Load() != nil {
			return fmt.Errorf("%w join node %d, which could not be killed", harness.ErrCannot, s.Node)
		}
		return c.join(ctx, s.Node)
	}
	return fmt.Errorf("%w %s", harness.ErrCannot, s)
}

func (n *olricNode) close(ctx context.Context) error {
	return errors.Join(n.db.Shutdown(ctx), <-n.ended)
}

func (c *olricCluster) Close(ctx context.Context) error {
	var errs []error
	for i := range c.nodes {
		if n := c.nodes[i].Swap(nil); n != nil {
			errs = append(errs, n.close(ctx))
		}
	}
	return errors.Join(errs...)
}
