package peertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/tier"
)

// Bubble runs f in a bubble with virtual time, on one processor: the race detector of Go 1.26
// crashes if two goroutines of a bubble look at expired timers at the same moment
// (https://go.dev/issue/78156). So bubbles of one process cannot run in parallel. After f it lets
// some virtual time pass, for memberlist's last probes end only after its Shutdown.
func Bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		defer sleep(context.Background(), 2*time.Minute)
		f(t)
	})
}

// loadTimeout is how long a load may take.
const loadTimeout = time.Second

// Options say how a cluster is made. The zero value is a small one.
type Options struct {
	Seed        uint64
	Nodes       int // 0: five
	Freshness   tier.Freshness
	Concurrency int // 0: two for each node
	Logger      *slog.Logger
	// Wrap, if set, stands between each cache and its node: a test can break things there.
	Wrap func(tier.Cluster) tier.Cluster
	// Loader, if set, stands between a cache and the origin.
	Loader func(tier.Loader[Value]) tier.Loader[Value]
}

// A Cluster is a number of nodes, each with a cache of [Value]s, over one network and one origin.
type Cluster struct {
	History *History
	Origin  *Origin
	Net     *netsim.Network

	opt   Options
	hosts []*host
}

// host is one place for a node, which may come and go.
type host struct {
	name, ip string

	mu          sync.Mutex // guards the rest
	incarnation int        // of the newest start; changes only while changing
	changing    bool       // a start or an end is under way
	node        *peer.Node // nil: down
	cache       *tier.Cache[Value]
	cancel      context.CancelFunc // ends the loads of a crashed process
}

// New makes a cluster whose nodes are all down.
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
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &History{}
	c := &Cluster{History: h, Origin: newOrigin(h, o.Seed), Net: netsim.New(o.Seed), opt: o}
	var ips []string
	for i := range o.Nodes {
		ip := fmt.Sprintf("10.0.0.%d", i+1)
		ips = append(ips, ip)
		c.hosts = append(c.hosts, &host{name: fmt.Sprintf("n%d", i), ip: ip})
	}
	c.Net.SetName("weir.test", ips...)
	return c
}

// Rules are those that the cluster's history has to keep.
func (c *Cluster) Rules() Rules {
	return Rules{Freshness: c.opt.Freshness, Concurrency: c.opt.Concurrency, Timeout: loadTimeout, Memory: 30 * time.Second, Marks: 3, Slack: 50 * time.Millisecond}
}

// Start starts the i-th node, if it is down. One node is not started twice at the same time.
func (c *Cluster) Start(ctx context.Context, i int) error {
	h := c.hosts[i]
	h.mu.Lock()
	if h.node != nil || h.changing {
		h.mu.Unlock()
		return nil
	}
	h.changing = true
	h.mu.Unlock()
	n, cache, cancel, err := c.start(ctx, i, h)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changing = false
	h.node, h.cache, h.cancel = n, cache, cancel
	return err
}

func (c *Cluster) start(ctx context.Context, i int, h *host) (*peer.Node, *tier.Cache[Value], context.CancelFunc, error) {
	n, err := peer.Start(ctx, peer.Config{
		Name: h.name, Bind: h.ip + ":7946", Join: []string{"weir.test:7946"}, Network: c.Net.Host(h.ip), MinMembers: len(c.hosts),
		Logger: c.opt.Logger.With("host", h.name), Seed: c.opt.Seed + uint64(i),
		Gossip: peer.Gossip{ProbeInterval: time.Second, ProbeTimeout: 300 * time.Millisecond},
	})
	if err != nil {
		return nil, nil, nil, err
	}
	h.incarnation++
	c.History.started(h.name, h.incarnation)
	life, cancel := context.WithCancel(context.Background())
	loader := c.Origin.loader(life, h.name, h.incarnation)
	if c.opt.Loader != nil {
		loader = c.opt.Loader(loader)
	}
	var cluster tier.Cluster = n
	if c.opt.Wrap != nil {
		cluster = c.opt.Wrap(n)
	}
	cache, err := tier.New(tier.Config[Value]{
		Cluster: cluster, Namespace: "sim", Loader: loader, Freshness: c.opt.Freshness,
		Origin:    tier.Origin{Concurrency: c.opt.Concurrency, Timeout: loadTimeout},
		NearBytes: 1 << 20, OwnedBytes: 1 << 20, Seed: c.opt.Seed + uint64(i) + 1, InvalidateTimeout: 2 * time.Second,
	})
	if err != nil {
		cancel()
		return nil, nil, nil, errors.Join(err, n.Close())
	}
	return n, cache, cancel, nil
}

// stop takes the i-th node down by end.
func (c *Cluster) stop(i int, end func(n *peer.Node, cache *tier.Cache[Value], cancel func()) error) error {
	h := c.hosts[i]
	h.mu.Lock()
	n, cache, cancel := h.node, h.cache, h.cancel
	if n == nil || h.changing {
		h.mu.Unlock()
		return nil
	}
	h.node, h.cache, h.changing = nil, nil, true
	h.mu.Unlock()
	err := end(n, cache, cancel)
	cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changing = false
	return err
}

// Crash ends the i-th node without a word: its sockets and its loads are gone.
func (c *Cluster) Crash(i int) error {
	return c.stop(i, func(n *peer.Node, cache *tier.Cache[Value], cancel func()) error {
		cancel()
		c.Net.Crash(c.IP(i))
		return errors.Join(closeCache(cache), n.Close())
	})
}

// Leave ends the i-th node gracefully.
func (c *Cluster) Leave(ctx context.Context, i int) error {
	return c.stop(i, func(n *peer.Node, cache *tier.Cache[Value], _ func()) error {
		err := n.Leave(ctx)
		return errors.Join(err, closeCache(cache), n.Close())
	})
}

func closeCache(c *tier.Cache[Value]) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.Close(ctx)
}

// Node returns the i-th node and its cache, nil if it is down.
func (c *Cluster) Node(i int) (*peer.Node, *tier.Cache[Value]) {
	h := c.hosts[i]
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.node, h.cache
}

// IP returns the address of the i-th node.
func (c *Cluster) IP(i int) string { return c.hosts[i].ip }

// seesAll reports whether every node that is up is in n's view.
func (c *Cluster) seesAll(n *peer.Node) bool {
	v := n.View()
	for i, h := range c.hosts {
		if _, in := v.Member(h.name); !in && !c.down(i) {
			return false
		}
	}
	return true
}

// down reports whether the i-th node is down and not about to be up.
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

// Agreed reports whether all nodes that are up have one view, of all of them, and nothing in flight.
func (c *Cluster) Agreed() error {
	up, print := c.up(), uint64(0)
	for i := range c.hosts {
		n, cache := c.Node(i)
		if n == nil {
			continue
		}
		v := n.View()
		if v.Len() != up {
			return fmt.Errorf("%s sees %d members, %d are up", n.Name(), v.Len(), up)
		}
		if print != 0 && v.Fingerprint() != print {
			return fmt.Errorf("%s has another view than the others", n.Name())
		}
		print = v.Fingerprint()
		if s := cache.Stats(); s.Flights != 0 || s.Running != 0 {
			return fmt.Errorf("%s has %d flights and %d loads", n.Name(), s.Flights, s.Running)
		}
	}
	return nil
}

// Settle waits until Agreed is content, for at most so long.
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

// Read is a recorded read of key on the i-th node, with a deadline. false: the node is down.
func (c *Cluster) Read(i int, key string, maxAge, timeout time.Duration) bool {
	_, cache := c.Node(i)
	if cache == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r := &Read{Key: key, Node: c.hosts[i].name, MaxAge: maxAge}
	c.History.beginRead(r)
	r.Deadline = r.BeganAt.Add(timeout)
	a, err := cache.Read(ctx, key, tier.ReadOptions{MaxAge: maxAge})
	r.Value, r.Age, r.Source, r.Err = a.Value, a.Age, a.Source, err
	c.History.endRead(r)
	return true
}

// Write writes key at the origin and invalidates it from the i-th node. false: the node is down.
func (c *Cluster) Write(i int, key string) bool {
	n, cache := c.Node(i)
	if cache == nil {
		return false
	}
	c.Origin.write(key)
	inv := c.History.beginInvalidation(key, c.hosts[i].name)
	whole := c.seesAll(n)
	err := cache.Invalidate(context.Background(), key)
	c.History.endInvalidation(inv, whole && c.seesAll(n), err)
	return true
}

// random returns a source of the cluster's seed for the given purpose.
func (c *Cluster) random(purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(c.opt.Seed, purpose))
}
