package peertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

const (
	// loadTimeout is how long a load may take, unless Options.Timeout says otherwise.
	loadTimeout = time.Second
	// maxDrift is the share by which a clock may be fast or slow.
	maxDrift = 0.02
	// partitions is small, so that views are built quickly.
	partitions = 97
)

// Options configure a cluster. The zero value is a small cluster.
type Options struct {
	Seed        uint64
	Nodes       int // 0: five
	Freshness   tier.Freshness
	LongTTL     time.Duration // the TTL that loaders give the values of LongLived keys; 0: the contract's
	Concurrency int           // 0: two for each node
	MinMembers  int           // as peer.Config has it; 0: Nodes
	Replicas    int           // as tier.Config has it
	Timeout     time.Duration // of a load; 0: loadTimeout
	Zones       int           // number of zones that the nodes are assigned to in turn; 0: no zones
	Secret      peer.Secret   // nil: neither gossip nor data is encrypted
	Logger      *slog.Logger
	HoldDown    time.Duration // as peer.Gossip has it
	Probe       time.Duration // between two probes; 0: a second
	// Wrap, if set, wraps each cache's Cluster: a test can break things there.
	Wrap func(tier.Cluster) tier.Cluster
	// Nested makes the loaders of keys that begin with p read the key without that letter through the cache, before or
	// after they turn to the origin.
	Nested bool
	hidden bool // the cache cannot tell that such a read comes from a loader
	// Loader, if set, wraps the origin's loader.
	Loader func(tier.Loader[Value]) tier.Loader[Value]
}

// A Cluster is a set of nodes over one network and one origin. Each node has a cache of [Value]s.
type Cluster struct {
	History *History
	Origin  *Origin
	Net     *netsim.Network

	opt   Options
	hosts []*host
	// outsider is the cache of a process outside the cluster that writes to the same origin and issues tokens.
	outsider *tier.Cache[Value]
	base     netsim.ConnFaults // the faults of a healthy network

	held            held
	names           atomic.Int64 // names and addresses assigned after the initial ones
	clocks, outages atomic.Int64 // faults of clocks, and of the origin as a whole
	drawn           [kinds]atomic.Int64
	planned         atomic.Int64 // faults that the plan has reached, including those that it leaves out
}

// host is a slot for a node, which may come and go.
type host struct {
	mu       sync.Mutex // guards the rest
	name, ip string     // modified only while changing
	changing bool       // a start or a stop is in progress
	starts   int        // so far; modified only while changing
	// shadowed says that another node has, or has had, this node's name. Until the cluster has settled, clients have no
	// guarantees from it.
	shadowed bool
	instance // empty: down
}

// instance is one start of a node.
type instance struct {
	node   *peer.Node
	cache  *tier.Cache[Value]
	clock  *Clock
	cancel context.CancelCauseFunc // ends the loads of a crashed process
}

// New returns a cluster whose nodes are all down.
func New(o Options) *Cluster {
	if o.Nodes == 0 {
		o.Nodes = 5
	}
	if o.Concurrency == 0 {
		o.Concurrency = 2 * o.Nodes
	}
	if o.Freshness.TTL == 0 {
		o.Freshness = tier.Freshness{TTL: 2 * time.Second, StaleWhileRevalidate: 3 * time.Second, StaleIfError: 6 * time.Second, NearTTL: 500 * time.Millisecond}
	}
	o.MinMembers = cmp.Or(o.MinMembers, o.Nodes)
	o.Probe = cmp.Or(o.Probe, time.Second)
	o.Timeout = cmp.Or(o.Timeout, loadTimeout)
	o.Freshness.NearTTL = cmp.Or(o.Freshness.NearTTL, min(o.Freshness.TTL, time.Second))
	o.Freshness.NegativeTTL = cmp.Or(o.Freshness.NegativeTTL, min(o.Freshness.TTL, 5*time.Second))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &History{}
	c := &Cluster{History: h, Origin: NewOrigin(h, o.Seed, o.Timeout+overrunFor), Net: netsim.New(o.Seed), opt: o}
	c.Origin.long = o.LongTTL
	var ips []string
	for i := range o.Nodes {
		ip := fmt.Sprintf("10.0.0.%d", i+1)
		ips = append(ips, ip)
		c.hosts = append(c.hosts, &host{name: fmt.Sprintf("n%d", i), ip: ip})
	}
	c.Net.SetName("weir.test", ips...)
	return c
}

// Rules returns the rules for the cluster's history.
func (c *Cluster) Rules() Rules {
	return Rules{
		Freshness: c.opt.Freshness, Concurrency: c.opt.Concurrency, Timeout: c.opt.Timeout,
		Carry: 15 * time.Second,
		Moved: 0.01,
		Turns: 2, Asks: 7, Patience: c.patience(), Drift: maxDrift, Slack: 50 * time.Millisecond,
	}
}

// patience is a timeout long enough for every read. A miss waits for its turn as long as it has time, behind storms of cold
// keys while the origin hangs, at an owner with a small share of the cap. On top of that, two members may fail to answer.
func (c *Cluster) patience() time.Duration { return time.Minute + 10*c.opt.Timeout }

// Start starts the i-th node if it is down. Calls for one node must not overlap.
func (c *Cluster) Start(ctx context.Context, i int) error {
	h := c.hosts[i]
	h.mu.Lock()
	if h.node != nil || h.changing {
		h.mu.Unlock()
		return nil
	}
	h.changing = true
	h.mu.Unlock()
	var p instance
	err := p.start(ctx, c, i, h)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changing = false
	h.instance = p
	return err
}

// Rename gives the i-th node, which must be down, a name that has not been in use before. With moved it gives it a new
// address as well. A node whose name another one has, or has had, keeps its name until the cluster has settled: otherwise
// there would be more members than MinMembers, and one that starts without seeing the others would take too large a share.
func (c *Cluster) Rename(i int, moved bool) {
	h, n := c.hosts[i], c.names.Add(1)
	h.mu.Lock()
	if h.node == nil && !h.changing {
		if !h.shadowed {
			h.name = fmt.Sprintf("n%d-%d", i, n)
		}
		if moved {
			h.ip = fmt.Sprintf("10.0.%d.%d", 1+n/250, 1+n%250)
		}
	}
	h.mu.Unlock()
	var ips []string
	for i := range c.hosts {
		ips = append(ips, c.IP(i))
	}
	c.Net.SetName("weir.test", ips...)
}

// start makes p a running node of h, which is the i-th host or has its name. After an error p is empty.
func (p *instance) start(ctx context.Context, c *Cluster, i int, h *host) error {
	zone := ""
	if c.opt.Zones > 0 {
		zone = fmt.Sprintf("z%d", i%c.opt.Zones)
	}
	n, err := peer.Start(ctx, peer.Config{
		Zone: zone, Name: h.name, Bind: h.ip + ":7946", Join: []string{"weir.test:7946"}, Network: c.Net.Host(h.ip), MinMembers: c.opt.MinMembers,
		Logger: c.opt.Logger.With("host", h.name), Seed: c.opt.Seed + uint64(i) + 1, Secret: c.opt.Secret,
		Ring:   ring.Config{Partitions: partitions},
		Gossip: peer.Gossip{ProbeInterval: c.opt.Probe, ProbeTimeout: c.opt.Probe * 3 / 10, HoldDown: c.opt.HoldDown},
	})
	if err != nil {
		return err
	}
	h.starts++
	incarnation := h.starts
	c.History.Started(h.name, incarnation)
	life, cancel := context.WithCancelCause(context.Background())
	clock := NewClock()
	loader := c.Origin.Loader(life, h.name, incarnation)
	if c.opt.Loader != nil {
		loader = c.opt.Loader(loader)
	}
	made := make(chan struct{}) // closed once cache is set
	var cache *tier.Cache[Value]
	if c.opt.Nested {
		loader = c.nested(h.name, loader, func() *tier.Cache[Value] { <-made; return cache })
	}
	defer close(made)
	var cluster tier.Cluster = watched{n, c.History, &c.held}
	if c.opt.Wrap != nil {
		cluster = c.opt.Wrap(cluster)
	}
	cache, err = tier.New(tier.Config[Value]{
		Cluster: cluster, Namespace: "sim", Loader: loader, Freshness: c.opt.Freshness,
		Origin:    tier.Origin{Concurrency: c.opt.Concurrency, Timeout: c.opt.Timeout},
		NearBytes: 1 << 20, OwnedBytes: 1 << 20, Seed: c.opt.Seed + uint64(i) + 1, InvalidateTimeout: 2 * time.Second,
		Now: clock.Now, Replicas: c.opt.Replicas,
	})
	if err != nil {
		cancel(errEnded)
		return errors.Join(err, n.Close())
	}
	*p = instance{node: n, cache: cache, clock: clock, cancel: cancel}
	return nil
}

// errEnded is the cause of a failed load whose process is gone.
var errEnded = errors.New("the process is gone")

// stop shuts the i-th node down by calling end.
func (c *Cluster) stop(i int, end func(p instance) error) error {
	h := c.hosts[i]
	h.mu.Lock()
	p := h.instance
	if p.node == nil || h.changing {
		h.mu.Unlock()
		return nil
	}
	h.instance, h.changing = instance{}, true
	h.mu.Unlock()
	err := end(p)
	p.cancel(errEnded)
	h.mu.Lock()
	defer h.mu.Unlock()
	c.History.Gone(h.name)
	h.changing = false
	return err
}

// Crash ends the i-th node abruptly: its sockets and its loads are gone.
func (c *Cluster) Crash(i int) error {
	return c.stop(i, func(p instance) error {
		c.History.Note("%s crashes", p.node.Name())
		p.cancel(errEnded)
		c.Net.Crash(c.IP(i))
		return errors.Join(closeCache(p.cache), p.node.Close())
	})
}

// Leave ends the i-th node gracefully.
func (c *Cluster) Leave(ctx context.Context, i int) error {
	return c.stop(i, func(p instance) error {
		c.History.Note("%s leaves", p.node.Name())
		err := p.node.Leave(ctx)
		return errors.Join(err, closeCache(p.cache), p.node.Close())
	})
}

func closeCache(c *tier.Cache[Value]) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.Close(ctx)
}

// Node returns the i-th node and its cache, or nil if it is down.
func (c *Cluster) Node(i int) (*peer.Node, *tier.Cache[Value]) {
	h := c.hosts[i]
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.node, h.cache
}

// Clock returns the clock of the i-th node's cache, or nil if it is down. Each start creates a new one.
func (c *Cluster) Clock(i int) *Clock {
	h := c.hosts[i]
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clock
}

// IP returns the address of the i-th node.
func (c *Cluster) IP(i int) string {
	h := c.hosts[i]
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ip
}

// nameOf returns the name of the i-th node.
func (c *Cluster) nameOf(i int) string {
	h := c.hosts[i]
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.name
}

// serving returns the i-th node and its cache for a client's call, or nil if the node is down or shares its name.
func (c *Cluster) serving(i int) (*peer.Node, *tier.Cache[Value]) {
	h := c.hosts[i]
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shadowed {
		return nil, nil
	}
	return h.node, h.cache
}

// seesAll reports whether every node that is up is in n's view. Of two nodes with one name the earlier one does not count.
func (c *Cluster) seesAll(n *peer.Node) bool {
	v := n.View()
	if slices.ContainsFunc(c.hosts, func(h *host) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.shadowed
	}) {
		return false
	}
	for i := range c.hosts {
		if _, in := v.Member(c.nameOf(i)); !in && !c.down(i) {
			return false
		}
	}
	return true
}

// down reports whether the i-th node is down and not starting.
func (c *Cluster) down(i int) bool {
	h := c.hosts[i]
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.node == nil && !h.changing
}

// up returns how many nodes are up.
func (c *Cluster) up() (n int) {
	for i := range c.hosts {
		if node, _ := c.Node(i); node != nil {
			n++
		}
	}
	return n
}

// Agreed returns nil if all nodes that are up have one view of exactly their current starts, none of them rests, and
// nothing is in flight.
func (c *Cluster) Agreed() error {
	up := c.up()
	var first []ring.Member
	for i := range c.hosts {
		n, cache := c.Node(i)
		if n == nil {
			continue
		}
		v := n.View()
		if k := slices.IndexFunc(v.Members(), func(m ring.Member) bool { return m.Resting }); k >= 0 {
			return fmt.Errorf("%s sees %s rest", n.Name(), v.Members()[k].Name)
		}
		if v.Len() != up {
			return fmt.Errorf("%s sees %d members, %d are up", n.Name(), v.Len(), up)
		}
		if first == nil { // two views of different starts of one name have equal fingerprints
			first = v.Members()
		}
		if !slices.Equal(v.Members(), first) {
			return fmt.Errorf("%s has another view than the others", n.Name())
		}
		if s := cache.Stats(); s.Flights != 0 || s.Running != 0 {
			return fmt.Errorf("%s has %d flights and %d loads", n.Name(), s.Flights, s.Running)
		}
	}
	return nil
}

// Settle waits until Agreed returns nil, for at most limit.
func (c *Cluster) Settle(limit time.Duration) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		err := c.Agreed()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// Faults returns how many faults have been injected so far into the network and the nodes' clocks, and how many times the
// origin failed as a whole.
func (c *Cluster) Faults() (net netsim.Counts, clocks, outages int64) {
	return c.Net.Faults(), c.clocks.Load(), c.outages.Load()
}

// Kinds returns how many faults of each kind the plan has injected so far.
func (c *Cluster) Kinds() map[string]int64 {
	out := make(map[string]int64)
	for k := range kinds {
		out[k.String()] = c.drawn[k].Load()
	}
	return out
}

// Planned returns how many faults the plan has reached so far, including those that Plan.Without leaves out.
func (c *Cluster) Planned() int { return int(c.planned.Load()) }

// Digest returns a number that stands for everything that happened: what clients, loaders and invalidations saw, and every
// packet and write. Two runs with the same number were very likely identical.
func (c *Cluster) Digest() uint64 {
	net, clocks, outages := c.Faults()
	d := xxhash.New()
	_, _ = fmt.Fprintf(d, "%d %d %+v %d %d", c.History.Digest(), c.Net.Digest(), net, clocks, outages) // writing to a hash never fails
	return d.Sum64()
}

// random returns an rng derived from the cluster's seed for the given purpose.
func (c *Cluster) random(purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(c.opt.Seed, purpose))
}
