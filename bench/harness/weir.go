package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// namespace is the name of the harness's cache.
const namespace = "bench"

// Weir is weir itself. The scenario's kind of cluster selects how: all nodes in this process, over real sockets on
// the loopback; a process for each node; or services that already run.
type Weir struct {
	// Exe is the command that starts a node's process. NodeArg and further arguments are appended. nil: this
	// binary, with "bench" before NodeArg.
	Exe []string
	// Logger receives the logs of the nodes. nil: they are discarded.
	Logger *slog.Logger
}

// Name returns "weir".
func (Weir) Name() string { return "weir" }

// Setup says that nothing is tuned.
func (Weir) Setup() string {
	return "as it comes: near and owned tier, the scenario's freshness and concurrency"
}

// Limits returns nil.
func (Weir) Limits() []string { return nil }

// node is one member. It is immutable, and is replaced when the node joins again.
type node struct {
	peer  *peer.Node
	cache *tier.Cache[[]byte]
}

// weirCluster is the nodes in this process. Faults are sequential.
type weirCluster struct {
	env    Env
	logger *slog.Logger
	wires  *wires // nil: the scenario has no cuts, and the nodes use the system's network
	nodes  []atomic.Pointer[node]
}

// cacheConfig returns the configuration of a cache for a node, as the scenario describes it.
func cacheConfig(env Env, p *peer.Node, logger *slog.Logger) tier.Config[[]byte] {
	c := env.Scenario.Cluster
	return tier.Config[[]byte]{
		Cluster: p, Namespace: namespace, Loader: tier.ByKey(env.Load), Codec: codec.Raw[[]byte](),
		Freshness: Freshness(c.Freshness),
		Origin:    tier.Origin{Concurrency: c.Concurrency, Timeout: c.Timeout.D()},
		NearBytes: int64(c.Near), OwnedBytes: int64(c.Owned), Logger: logger,
		WhenIsolated: map[string]tier.WhenIsolated{"bypass": tier.Bypass, "fail": tier.Fail}[c.WhenIsolated],
	}
}

// Start starts the nodes and waits until each sees all.
func (w Weir) Start(ctx context.Context, env Env) (Cluster, error) {
	switch env.Scenario.Cluster.Kind {
	case scenario.Existing:
		return startExisting(ctx, env.Scenario)
	case scenario.Processes:
		exe := w.Exe
		if exe == nil {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			exe = []string{self, "bench"}
		}
		return startProcesses(ctx, env, exe)
	}
	c := &weirCluster{env: env, logger: w.Logger, nodes: make([]atomic.Pointer[node], env.Scenario.Cluster.Nodes)}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	for _, f := range env.Scenario.Faults {
		if f.Do == scenario.Cut && c.wires == nil {
			c.wires = newWires()
		}
	}
	for i := range c.nodes {
		if err := c.join(ctx, i); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	for i := range c.nodes {
		if err := c.nodes[i].Load().await(ctx, len(c.nodes)); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	return c, nil
}

// join starts node i, which joins the nodes that are up.
func (c *weirCluster) join(ctx context.Context, i int) error {
	if c.nodes[i].Load() != nil {
		return fmt.Errorf("node %d is up already", i)
	}
	cfg := peer.Config{
		Name: fmt.Sprintf("n%d", i), Bind: "127.0.0.1:0", ClusterName: "bench", MinMembers: len(c.nodes), Logger: c.logger,
		ValueLimit: tier.DefaultValueLimit,
	}
	for k := range c.nodes {
		if n := c.nodes[k].Load(); n != nil {
			cfg.Join = append(cfg.Join, n.peer.Addr())
		}
	}
	if c.wires != nil {
		cfg.Network = c.wires.network(i)
	}
	n, err := newNode(ctx, c.env, cfg)
	if err != nil {
		return err
	}
	c.nodes[i].Store(n)
	return nil
}

// newNode starts a member with its cache.
func newNode(ctx context.Context, env Env, cfg peer.Config) (*node, error) {
	p, err := peer.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	cache, err := tier.New(cacheConfig(env, p, cfg.Logger))
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &node{p, cache}, nil
}

// await waits until the node sees the given number of members.
func (n *node) await(ctx context.Context, members int) error {
	for {
		changed := n.peer.ViewChanged()
		if n.peer.View().Len() == members {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s sees %d of %d members: %w", n.peer.Name(), n.peer.View().Len(), members, ctx.Err())
		}
	}
}

// ready waits until the node takes part, as a load balancer would.
func (n *node) ready(ctx context.Context) error {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := n.peer.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// Get reads a key on a node.
func (c *weirCluster) Get(ctx context.Context, i int, key string) ([]byte, error) {
	n := c.nodes[i].Load()
	if n == nil {
		return nil, tier.ErrClosed
	}
	return n.cache.Get(ctx, key)
}

// Invalidate invalidates a key from a node.
func (c *weirCluster) Invalidate(ctx context.Context, i int, key string) error {
	n := c.nodes[i].Load()
	if n == nil {
		return tier.ErrClosed
	}
	return n.cache.Invalidate(ctx, key)
}

// sees returns the nodes in a node's view.
func (c *weirCluster) sees(i int) nodeSet {
	n := c.nodes[i].Load()
	if n == nil {
		return 0
	}
	seen := nodeSet(0)
	for _, m := range n.peer.View().Members() {
		if k, err := strconv.Atoi(strings.TrimPrefix(m.Name, "n")); err == nil && k < len(c.nodes) {
			seen |= 1 << k
		}
	}
	return seen
}

// Fault executes a step.
func (c *weirCluster) Fault(ctx context.Context, s Step) error {
	switch s.Do {
	case StepKill:
		n := c.nodes[s.Node].Swap(nil)
		if n == nil {
			return fmt.Errorf("node %d is down already", s.Node)
		}
		// The network first: a killed process does not announce its end.
		return errors.Join(n.peer.Close(), n.cache.Close(ctx))
	case StepLeave:
		n := c.nodes[s.Node].Swap(nil)
		if n == nil {
			return fmt.Errorf("node %d is down already", s.Node)
		}
		return n.leave(ctx)
	case StepJoin:
		if err := c.join(ctx, s.Node); err != nil {
			return err
		}
		return c.nodes[s.Node].Load().ready(ctx)
	case StepCut:
		c.wires.cut(s.Nodes)
		return nil
	case StepHeal:
		c.wires.heal()
		return nil
	}
	return fmt.Errorf("%w %s", ErrCannot, s)
}

// leave ends a node gracefully: it leaves the cluster while its cache still answers.
func (n *node) leave(ctx context.Context) error {
	return errors.Join(n.peer.Leave(ctx), n.cache.Close(ctx))
}

// Close ends all nodes.
func (c *weirCluster) Close(ctx context.Context) error {
	var errs []error
	if c.wires != nil {
		c.wires.heal()
	}
	for i := range c.nodes {
		if n := c.nodes[i].Swap(nil); n != nil {
			errs = append(errs, n.cache.Close(ctx), n.peer.Close())
		}
	}
	return errors.Join(errs...)
}

// Counters adds up the nodes' own counters.
func (c *weirCluster) Counters() map[string]float64 {
	out := make(map[string]float64)
	for i := range c.nodes {
		if n := c.nodes[i].Load(); n != nil {
			count(out, n.cache.Stats())
		}
	}
	return out
}

// count adds a cache's counters to sum.
func count(sum map[string]float64, s tier.Stats) {
	for name, n := range map[string]int64{
		"near": s.Near, "owned": s.Owned, "fill": s.Fill, "stale": s.Stale, "rescued": s.Rescued, "bypassed": s.Bypassed,
		"unreachable": s.Unreachable, "shed": s.Shed, "near_bytes": s.NearBytes, "owned_bytes": s.OwnedBytes, HeldBytes: s.NearBytes + s.OwnedBytes,
		"owned_entries": int64(s.OwnedEntries), "owned_evicted": s.OwnedEvicted, "unconfirmed": s.Unconfirmed,
	} {
		sum[name] += float64(n)
	}
	for cause, n := range s.LoadsBy {
		sum["loads_"+cause] += float64(n)
	}
	sum["load_seconds"] += s.LoadSeconds
}
