package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"github.com/weircache/weir/bench/harness"
)

// errDown is the error of a node that is down.
var errDown = errors.New("the node is down")

// store is a cache of one process, without knowledge of other nodes.
type store interface {
	get(ctx context.Context, key string) ([]byte, error)
	drop(key string)
	clear()
	close()
	held() int64 // bytes, by its own count
}

// locals are nodes with independent stores.
type locals struct {
	make  func() (store, error)
	nodes []atomic.Pointer[store]

	mu   sync.Mutex // guards gone
	gone []store    // closed at the end, because calls may still use them
}

// noPeers lists what stores lack that do not communicate.
func noPeers() []string {
	return []string{"word of an invalidation to other nodes (their copies stay until they expire)", "shared load of a key between nodes",
		"limit of loads at once", "stale copy when the origin fails"}
}

func startLocals(n int, build func() (store, error)) (harness.Cluster, error) {
	l := &locals{make: build, nodes: make([]atomic.Pointer[store], n)}
	for i := range l.nodes {
		if err := l.join(i); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *locals) join(i int) error {
	s, err := l.make()
	if err == nil {
		l.nodes[i].Store(&s)
	}
	return err
}

func (l *locals) Get(ctx context.Context, node int, key string) ([]byte, error) {
	s := l.nodes[node].Load()
	if s == nil {
		return nil, errDown
	}
	return (*s).get(ctx, key)
}

func (l *locals) Invalidate(_ context.Context, node int, key string) error {
	s := l.nodes[node].Load()
	if s == nil {
		return errDown
	}
	(*s).drop(key)
	return nil
}

func (l *locals) Fault(_ context.Context, s harness.Step) error {
	switch s.Do {
	case harness.StepKill, harness.StepLeave:
		if s := l.nodes[s.Node].Swap(nil); s != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.gone = append(l.gone, *s)
		}
		return nil
	case harness.StepJoin:
		return l.join(s.Node)
	case harness.StepCut, harness.StepHeal:
		return nil // the nodes do not communicate anyway
	case harness.StepFlush:
		for i := range l.nodes {
			if s := l.nodes[i].Load(); s != nil {
				(*s).clear()
			}
		}
		return nil
	}
	return fmt.Errorf("%w %s", harness.ErrCannot, s)
}

// Counters returns what the running nodes hold.
func (l *locals) Counters() map[string]float64 {
	sum := 0.0
	for i := range l.nodes {
		if s := l.nodes[i].Load(); s != nil {
			sum += float64((*s).held())
		}
	}
	return map[string]float64{harness.HeldBytes: sum}
}

func (l *locals) Close(context.Context) error {
	for i := range l.nodes {
		if s := l.nodes[i].Swap(nil); s != nil {
			(*s).close()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.gone {
		s.close()
	}
	return nil
}

// bytesOf returns the capacity of a node: as much as weir's near and owned tier together.
func bytesOf(env harness.Env) int64 {
	c := env.Scenario.Cluster
	return max(0, int64(c.Near)) + int64(c.Owned)
}

// overhead is the assumed cost of an entry besides its key and its value, in bytes, for stores that let the adapter
// define it.
const overhead = 128

// costOf returns the cost of such an entry.
func costOf(key string, b []byte) int64 { return int64(len(key) + len(b) + overhead) }

// detached returns a context for a load that other callers wait for as well: it does not end with the caller.
func detached(ctx context.Context, env harness.Env) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), env.Scenario.Cluster.Timeout.D())
}

// await returns the value of a flight, unless ctx ends first.
func await(ctx context.Context, flight <-chan singleflight.Result) ([]byte, error) {
	select {
	case r := <-flight:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.([]byte), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// aside is cache-aside over ristretto: look up, load, store. With shared, callers on one node share a load through
// x/sync/singleflight.
type aside struct{ shared bool }

func (a aside) Name() string {
	if a.shared {
		return "ristretto+singleflight"
	}
	return "cache-aside"
}

func (a aside) Setup() string {
	s := "ristretto v2.4.2 on each node, as many bytes as weir's two tiers (key, value and 128 for an entry), 10 counters for an entry, Wait after each Set so that none is lost"
	if a.shared {
		s += ", x/sync/singleflight before the origin, loads detached from their callers"
	}
	return s
}

func (a aside) Limits() []string {
	if a.shared {
		return noPeers()
	}
	return append(noPeers(), "shared load of a key on a node")
}

func (a aside) Start(_ context.Context, env harness.Env) (harness.Cluster, error) {
	return startLocals(env.Scenario.Cluster.Nodes, func() (store, error) {
		most := bytesOf(env)
		c, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
			NumCounters: min(max(10*most/(256+overhead), 10_000), 50_000_000), MaxCost: most, BufferItems: 64,
			IgnoreInternalCost: true,
		})
		return &asideStore{env: env, shared: a.shared, cache: c}, err
	})
}

type asideStore struct {
	env    harness.Env
	shared bool
	cache  *ristretto.Cache[string, []byte]
	group  singleflight.Group
}

func (s *asideStore) get(ctx context.Context, key string) ([]byte, error) {
	if b, ok := s.cache.Get(key); ok {
		return b, nil
	}
	if !s.shared {
		ctx, cancel := context.WithTimeout(ctx, s.env.Scenario.Cluster.Timeout.D())
		defer cancel()
		return s.load(ctx, key)
	}
	answers := s.group.DoChan(key, func() (any, error) {
		ctx, cancel := detached(ctx, s.env)
		defer cancel()
		if b, ok := s.cache.Get(key); ok { // a flight that has just ended may have stored it
			return b, nil
		}
		return s.load(ctx, key)
	})
	return await(ctx, answers)
}

func (s *asideStore) load(ctx context.Context, key string) ([]byte, error) {
	b, err := s.env.Load(ctx, key)
	if err == nil {
		s.cache.SetWithTTL(key, b, costOf(key, b), s.env.Scenario.Cluster.Freshness.TTL.D())
		s.cache.Wait()
	}
	return b, err
}

func (s *asideStore) drop(key string) { s.cache.Del(key) }
func (s *asideStore) clear()          { s.cache.Clear() }
func (s *asideStore) close()          { s.cache.Close() }
func (s *asideStore) held() int64     { return s.cache.MaxCost() - s.cache.RemainingCost() }

// loading is plain otter, with its own loading and refreshing.
type loading struct{}

func (loading) Name() string { return "otter" }
func (loading) Setup() string {
	return "otter v2.4.0 on each node with its loader, as many bytes as weir's two tiers (key, value and 128 for an entry); it refreshes from the TTL on where the scenario allows stale answers"
}
func (loading) Limits() []string { return noPeers()[:3] }

func (loading) Start(_ context.Context, env harness.Env) (harness.Cluster, error) {
	return startLocals(env.Scenario.Cluster.Nodes, func() (store, error) {
		f := env.Scenario.Cluster.Freshness
		stale := max(f.StaleWhileRevalidate.D(), f.StaleIfError.D())
		o := &otter.Options[string, []byte]{
			MaximumWeight:    uint64(bytesOf(env)),
			Weigher:          func(key string, b []byte) uint32 { return uint32(costOf(key, b)) },
			ExpiryCalculator: otter.ExpiryWriting[string, []byte](f.TTL.D() + stale),
			Logger:           &otter.NoopLogger{},
		}
		if stale > 0 {
			o.RefreshCalculator = otter.RefreshWriting[string, []byte](f.TTL.D())
		}
		c, err := otter.New(o)
		return &otterStore{env: env, cache: c}, err
	})
}

type otterStore struct {
	env   harness.Env
	cache *otter.Cache[string, []byte]
}

func (s *otterStore) get(ctx context.Context, key string) ([]byte, error) {
	return s.cache.Get(ctx, key, s)
}

// Load and Reload implement otter's Loader, without a closure for each get.
func (s *otterStore) Load(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := detached(ctx, s.env)
	defer cancel()
	return s.env.Load(ctx, key)
}

func (s *otterStore) Reload(ctx context.Context, key string, _ []byte) ([]byte, error) {
	return s.Load(ctx, key)
}

func (s *otterStore) drop(key string) { s.cache.Invalidate(key) }
func (s *otterStore) clear()          { s.cache.InvalidateAll() }
func (s *otterStore) close()          { s.cache.StopAllGoroutines() }
func (s *otterStore) held() int64     { return int64(s.cache.WeightedSize()) }

// until returns the expiry of a value that is loaded now.
func until(env harness.Env) time.Time { return time.Now().Add(env.Scenario.Cluster.Freshness.TTL.D()) }
