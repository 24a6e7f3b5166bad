package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/weircache/weir/bench/member"
	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// namespace is the name of the harness's cache.
const namespace = "bench"

// secret is the secret of the nodes that the harness starts. It protects nothing, because it stands here: it is for what
// a service pays off the loopback, which is TLS between the nodes and encrypted gossip.
const secret = "only for measuring on a loopback"

// Weir is weir itself. The scenario's kind of cluster selects how: all nodes in this process, over real sockets on
// the loopback; a process for each node; or services that already run.
type Weir struct {
	// Exe is the command that starts a node's process. NodeArg and further arguments are appended. nil: this
	// binary, with "bench" before NodeArg.
	Exe []string
}

// Name returns "weir".
func (Weir) Name() string { return "weir" }

// Setup says that nothing is tuned, and that TLS is on.
func (Weir) Setup() string {
	return "as it comes: near and owned tier, the scenario's freshness and concurrency; with a Secret, so TLS 1.3 between the nodes that the harness starts"
}

// Limits returns nil.
func (Weir) Limits() []string { return nil }

// node is one member. It is replaced when the node joins again.
type node = member.Member[[]byte]

// weirCluster is the nodes in this process. Faults are sequential.
type weirCluster struct {
	env   Env
	wires *wires // nil: the scenario has no cuts, and the nodes use the system's network
	nodes []atomic.Pointer[node]
}

// cacheConfig returns the configuration of a cache for a node, as the scenario describes it.
func cacheConfig(env Env) tier.Config[[]byte] {
	c := env.Scenario.Cluster
	return tier.Config[[]byte]{
		Namespace: namespace, Loader: tier.ByKey(env.Load), Codec: codec.Raw[[]byte](),
		Freshness: freshness(c.Freshness),
		Origin:    tier.Origin{Concurrency: c.Concurrency, Timeout: c.Timeout.D()},
		NearBytes: int64(c.Near), OwnedBytes: int64(c.Owned),
		WhenIsolated: map[string]tier.WhenIsolated{"bypass": tier.Bypass, "fail": tier.Fail}[c.WhenIsolated],
	}
}

// nodeConfig returns the configuration of node i of a number of nodes.
func nodeConfig(i, nodes int) peer.Config {
	return peer.Config{
		Name: fmt.Sprintf("n%d", i), Bind: "127.0.0.1:0", ClusterName: "bench", MinMembers: nodes,
		ValueLimit: tier.DefaultValueLimit, Secret: peer.Secret(secret),
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
	c := &weirCluster{env: env, nodes: make([]atomic.Pointer[node], env.Scenario.Cluster.Nodes)}
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
		if err := member.AwaitView(ctx, c.nodes[i].Load().Node, len(c.nodes)); err != nil {
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
	cfg := nodeConfig(i, len(c.nodes))
	for k := range c.nodes {
		if n := c.nodes[k].Load(); n != nil {
			cfg.Join = append(cfg.Join, n.Node.Addr())
		}
	}
	if c.wires != nil {
		cfg.Network = c.wires.network(i)
	}
	n, err := member.Start(ctx, cfg, cacheConfig(c.env))
	if err != nil {
		return err
	}
	c.nodes[i].Store(n)
	return nil
}

// Get reads a key on a node.
func (c *weirCluster) Get(ctx context.Context, i int, key string) ([]byte, error) {
	n := c.nodes[i].Load()
	if n == nil {
		return nil, tier.ErrClosed
	}
	return n.Cache.Get(ctx, key)
}

// Many reads keys on a node with GetMany.
func (c *weirCluster) Many(ctx context.Context, i int, keys []string) ([][]byte, error) {
	n := c.nodes[i].Load()
	if n == nil {
		return nil, tier.ErrClosed
	}
	return getMany(ctx, n.Cache, keys)
}

func getMany(ctx context.Context, c *tier.Cache[[]byte], keys []string) ([][]byte, error) {
	found, err := c.GetMany(ctx, keys)
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = found[key]
	}
	return values, err
}

// Invalidate invalidates a key from a node.
func (c *weirCluster) Invalidate(ctx context.Context, i int, key string) error {
	n := c.nodes[i].Load()
	if n == nil {
		return tier.ErrClosed
	}
	return n.Cache.Invalidate(ctx, key)
}

// sees returns the nodes in a node's view.
func (c *weirCluster) sees(i int) nodeSet {
	n := c.nodes[i].Load()
	if n == nil {
		return 0
	}
	seen := nodeSet(0)
	for _, m := range n.Node.View().Members() {
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
		return n.Kill(ctx)
	case StepLeave:
		n := c.nodes[s.Node].Swap(nil)
		if n == nil {
			return fmt.Errorf("node %d is down already", s.Node)
		}
		return n.Leave(ctx)
	case StepJoin:
		if err := c.join(ctx, s.Node); err != nil {
			return err
		}
		return member.AwaitReady(ctx, c.nodes[s.Node].Load().Node)
	case StepCut:
		c.wires.cut(s.Nodes)
		return nil
	case StepHeal:
		c.wires.heal()
		return nil
	}
	return fmt.Errorf("%w %s", ErrCannot, s)
}

// Close ends all nodes.
func (c *weirCluster) Close(ctx context.Context) error {
	var errs []error
	if c.wires != nil {
		c.wires.heal()
	}
	for i := range c.nodes {
		if n := c.nodes[i].Swap(nil); n != nil {
			errs = append(errs, n.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// Counters adds up the nodes' own counters.
func (c *weirCluster) Counters() map[string]float64 {
	out := make(map[string]float64)
	for i := range c.nodes {
		if n := c.nodes[i].Load(); n != nil {
			count(out, n.Cache.Stats())
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
