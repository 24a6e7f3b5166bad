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
	"github.com/groupcache/groupcache-go/v3/contrib"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/groupcache/groupcache-go/v3/transport/peer"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/rivals/server"
)

// grouped is groupcache-go.
//
// The README of groupcache-go v3.2.0 advises the cache of its package contrib, with otter, for servers with over 40 CPUs
// and much contention (section Pluggable Internal Cache). So that is a rival of its own. Values are copied from it, because
// the library does not hand out its own bytes.
type grouped struct{ otter bool }

func (g grouped) Name() string {
	if g.otter {
		return "groupcache-go+otter"
	}
	return "groupcache-go"
}

func (g grouped) Setup() string {
	s := "groupcache-go v3.2.0, a daemon a node over HTTP with 512 idle connections to a peer, as many bytes as weir's two tiers, an eighth of them for copies of other nodes' keys (it counts keys and values; bookkeeping comes on top), xxhash and 512 points a node on its ring for an even one (fnv1 gave one node up to two thirds of the keys), each node with the same address when it comes back; who the peers are is told to all at once, which a user would have to build"
	if g.otter {
		s += "; the cache is contrib.OtterCache, which counts the bytes of values alone and does not tell how many it holds"
	}
	return s
}
func (grouped) Limits() []string {
	return []string{"membership of its own", noLimit, "stale copy while it refreshes or when the origin fails", "cut of its network"}
}

// groupNode is one daemon.
type groupNode struct {
	origin
	daemon *groupcache.Daemon
	group  transport.Group
	addr   string
	client *http.Transport
	owned  []*contrib.OtterCache
}

type groupCluster struct {
	env   harness.Env
	otter bool
	nodes []atomic.Pointer[groupNode]
	addrs []string // of the nodes, from which the ring is made. Only Start and Fault use it, sequentially.
}

func (g grouped) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	c := &groupCluster{env: env, otter: g.otter, nodes: make([]atomic.Pointer[groupNode], env.Scenario.Cluster.Nodes), addrs: make([]string, env.Scenario.Cluster.Nodes)}
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
	n := &groupNode{origin: origin{c.env, i}, addr: addr, client: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 512}}
	o := groupcache.Options{
		HashFn: xxhash.Sum64, Replicas: 512,
		Logger:    slog.New(slog.DiscardHandler),
		Transport: transport.NewHttpTransport(transport.HttpTransportOptions{Client: &http.Client{Transport: n.client, Timeout: n.timeout()}, Logger: slog.New(slog.DiscardHandler)}),
	}
	if c.otter {
		o.CacheFactory = func(most int64) (groupcache.Cache, error) { return n.own(contrib.NewOtterCache(most)) }
	}
	var err error
	if n.daemon, err = groupcache.ListenAndServe(ctx, addr, o); err != nil {
		return err
	}
	n.group, err = n.daemon.NewGroup("bench", bytesOf(c.env), groupcache.GetterFunc(func(ctx context.Context, key string, dest transport.Sink) error {
		expires := time.Now().Add(n.ttl()) // ages count from the start of the load
		b, err := n.loadForAll(ctx, key)
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

// own keeps a cache that must be closed with the node.
func (n *groupNode) own(c *contrib.OtterCache, err error) (groupcache.Cache, error) {
	if err == nil {
		n.owned = append(n.owned, c)
	}
	return c, err
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
	return n.leave(ctx, func() ([]byte, error) {
		var b []byte
		err := n.group.Get(context.WithoutCancel(ctx), key, transport.AllocatingByteSliceSink(&b))
		return b, err
	})
}

func (c *groupCluster) Invalidate(ctx context.Context, node int, key string) error {
	n := c.nodes[node].Load()
	if n == nil {
		return errDown
	}
	return n.group.Remove(ctx, key)
}

// Counters returns what the running nodes hold, if that is known.
func (c *groupCluster) Counters() map[string]float64 {
	if c.otter {
		return nil
	}
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
	err := n.daemon.Shutdown(ctx)
	for _, c := range n.owned {
		c.Close()
	}
	return err
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
