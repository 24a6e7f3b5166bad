package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/groupcache/groupcache-go/v3"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/groupcache/groupcache-go/v3/transport/peer"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/rivals/server"
)

// grouped is groupcache-go.
type grouped struct{}

func (grouped) Name() string { return "groupcache-go" }
func (grouped) Setup() string {
	return "groupcache-go v3.2.0, a daemon a node over HTTP with 512 idle connections to a peer, as many bytes as weir's two tiers, an eighth of them for copies of other nodes' keys (it counts keys and values; bookkeeping comes on top), xxhash and 512 points a node on its ring for an even one (fnv1 gave one node up to two thirds of the keys), each node with the same address when it comes back; who the peers are is told to all at once, which a user would have to build"
}
func (grouped) Limits() []string {
	return []string{"membership of its own", "limit of loads at once", "stale copy while it refreshes or when the origin fails", "cut of its network"}
}

// groupNode is one daemon.
type groupNode struct {
	daemon *groupcache.Daemon
	group  transport.Group
	addr   string
	client *http.Transport
}

type groupCluster struct {
	env   harness.Env
	nodes []atomic.Pointer[groupNode]
	addrs []string // of the nodes, from which the ring is made. Only Start and Fault use it, sequentially.
}

func (grouped) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	c := &groupCluster{env: env, nodes: make([]atomic.Pointer[groupNode], env.Scenario.Cluster.Nodes), addrs: make([]string, env.Scenario.Cluster.Nodes)}
	for i := range c.nodes {
		if err := c.join(ctx, i); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	return c, c.introduce(ctx)
}

func (c *groupCluster) join(ctx context.Context, i int) error {
	addr := c.addrs[i]
	if addr == "" {
		var err error
		if addr, _, err = server.FreePort(); err != nil {
			return err
		}
	}
	n := &groupNode{addr: addr, client: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 512}}
	var err error
	n.daemon, err = groupcache.ListenAndServe(ctx, addr, groupcache.Options{
		HashFn: xxhash.Sum64, Replicas: 512,
		Logger:    slog.New(slog.DiscardHandler),
		Transport: transport.NewHttpTransport(transport.HttpTransportOptions{Client: &http.Client{Transport: n.client}, Logger: slog.New(slog.DiscardHandler)}),
	})
	if err != nil {
		return err
	}
	n.group, err = n.daemon.NewGroup("bench", bytesOf(c.env), groupcache.GetterFunc(func(ctx context.Context, key string, dest transport.Sink) error {
		ctx, cancel := detached(ctx, c.env)
		defer cancel()
		expires := until(c.env) // ages count from the start of the load
		b, err := c.env.Load(ctx, key)
		if err != nil {
			return err
		}
		return dest.SetBytes(b, expires)
	}))
	if err != nil {
		return err
	}
	c.addrs[i] = addr
	c.nodes[i].Store(n)
	return nil
}

// introduce tells all nodes which nodes are up.
func (c *groupCluster) introduce(ctx context.Context) error {
	var peers []peer.Info
	for i := range c.nodes {
		if n := c.nodes[i].Load(); n != nil {
			peers = append(peers, peer.Info{Address: n.addr})
		}
	}
	var errs []error
	for i := range c.nodes {
		if n := c.nodes[i].Load(); n != nil {
			errs = append(errs, n.daemon.SetPeers(ctx, peers))
		}
	}
	return errors.Join(errs...)
}

func (c *groupCluster) Get(ctx context.Context, node int, key string) ([]byte, error) {
	n := c.nodes[node].Load()
	if n == nil {
		return nil, errDown
	}
	var b []byte
	err := n.group.Get(ctx, key, transport.AllocatingByteSliceSink(&b))
	return b, err
}

func (c *groupCluster) Invalidate(ctx context.Context, node int, key string) error {
	n := c.nodes[node].Load()
	if n == nil {
		return errDown
	}
	return n.group.Remove(ctx, key)
}

// Counters returns what the running nodes hold.
func (c *groupCluster) Counters() map[string]float64 {
	sum := 0.0
	for i := range c.nodes {
		if n := c.nodes[i].Load(); n != nil {
			mine, copies := n.group.UsedBytes()
			sum += float64(mine + copies)
		}
	}
	return map[string]float64{harness.HeldBytes: sum}
}

func (c *groupCluster) Fault(ctx context.Context, s harness.Step) error {
	switch s.Do {
	case harness.StepKill, harness.StepLeave:
		n := c.nodes[s.Node].Swap(nil)
		if n == nil {
			return errDown
		}
		err := c.introduce(ctx)
		// Shutdown waits for seconds for idle connections of peers; a real process would have ended by then.
		soon, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		if e := n.close(soon); !errors.Is(e, context.DeadlineExceeded) {
			err = errors.Join(err, e)
		}
		return err
	case harness.StepJoin:
		if err := c.join(ctx, s.Node); err != nil {
			return err
		}
		return c.introduce(ctx)
	}
	return fmt.Errorf("%w %s", harness.ErrCannot, s)
}

func (n *groupNode) close(ctx context.Context) error {
	n.client.CloseIdleConnections()
	return n.daemon.Shutdown(ctx)
}

func (c *groupCluster) Close(ctx context.Context) error {
	var up []*groupNode
	for i := range c.nodes {
		if n := c.nodes[i].Swap(nil); n != nil {
			n.client.CloseIdleConnections()
			up = append(up, n)
		}
	}
	var errs []error
	for _, n := range up {
		errs = append(errs, n.close(ctx))
	}
	return errors.Join(errs...)
}
