package tier

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/demand"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/store"
)

const (
	// successorTTL bounds how long a member keeps what it filled as a stand-in owner: the unreachable owner may be back
	// in seconds.
	successorTTL = 5 * time.Second
	// sweepEvery is how often old fences are forgotten and waiting flights are checked.
	sweepEvery = time.Second
)

// A Cache serves one namespace. It is made by New and safe for concurrent use.
type Cache[V any] struct {
	core // all that does not depend on V

	loader      Loader[V]
	batchLoader BatchLoader[V]
	codec       codec.Codec[V]
	serveLoaded bool
	cloneValue  func(V) V                // nil: callers share values
	near        *near.Tier[nearEntry[V]] // nil: no near tier
	weigh       func(V) int64            // what a value refers to, in bytes of memory
	calls       *callTable[V]
	multiGets   multiGetPool[V]
}

// nearEntry is a near copy. It never changes. The fields that a hit reads come first.
type nearEntry[V any] struct {
	until    int64  // end of the lease, ns on the cache's clock: never served from then on
	checked  uint64 // the fence clock up to which no fence covers it
	size     int32  // bytes of the value's encoding
	slot     uint16 // of the fences
	notFound bool
	why      store.StaleReason // why it is served, if it is past its soft expiry
	tags     *fence.TagSet     // nil: none
	value    V
	loaded   int64  // start of the load
	soft     int64  // soft expiry
	etag     uint64 // the owner's, 0: unknown
}

// fenceRetention is the least time, in ns, for which a fence is remembered.
const fenceRetention = int64(MaxInvalidateTimeout) * 3

// New checks cfg and starts a cache. The error names every field that is wrong. Close the cache after its Cluster has
// left, for example by peer's Node.Leave: a node that leaves hands over what its caches have.
func New[V any](cfg Config[V]) (*Cache[V], error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults().watched()
	c := &Cache[V]{
		loader: cfg.Loader, batchLoader: cfg.BatchLoader, codec: cfg.Codec, serveLoaded: cfg.ServeLoaded, cloneValue: cfg.Clone,
		weigh: codec.Weigher[V](), calls: newCallTable[V](),
	}
	c.core = core{
		cfg:      cfg.settings(),
		front:    c,
		inFlight: c.calls,
		ns:       []byte(cfg.Namespace),
		nsHash:   xxhash.Sum64String(cfg.Namespace),
		schema:   cfg.schema(),
		clock:    cfg.newClock(),
		rng:      newRNG(cfg.Seed),
		flights:  newFlights(),
		stats:    counters.New(),
		evicted:  new(store.Evictions),
		loads:    new(store.OwnLoads),
		metrics:  newCollector(cfg.Namespace, wallClock(cfg.Now)),
	}
	c.carrier, _ = cfg.Tracer.(Carrier)
	c.logLost()
	incarnation := rand.Uint64() | 1
	c.seed, c.tokenOf = maphash.MakeSeed(), ring.Hash(cfg.Namespace)
	c.multiGets.seed = maphash.MakeSeed()
	c.sender, _ = cfg.Cluster.(sender)
	c.demand, c.reuse = demand.NewSketch(c.clock.Now(), cfg.ShowKeys), demand.NewReuseCurve(c.clock.Now())
	c.watch.Store(watchSome)
	c.hot.now = make(chan struct{}, 1)
	c.fences = fence.New(c.clock.Now, max(4*int64(cfg.Origin.Timeout)+2*int64(min(cfg.Freshness.NearTTL, time.Hour)), fenceRetention), incarnation)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.opened = c.clock.Now()
	if cfg.Cluster != nil {
		c.self = cfg.Cluster.Name()
		c.views.Self = c.self
	}
	c.journal = c.newJournal(incarnation)
	c.origin = cfg.SharedOrigin
	if c.origin == nil {
		c.origin = newSharedOrigin(cfg.Namespace, cfg.Origin, cfg.Now)
	}
	c.gov = c.origin.gov
	if cfg.Cluster == nil { // another cache of the process may have the same name
		c.nsHash ^= incarnation
	}
	if cfg.NearBytes > 0 && cfg.Freshness.NearTTL > 0 {
		n, err := near.New[nearEntry[V]](cfg.NearBytes)
		if err != nil {
			c.cancel()
			return nil, fmt.Errorf("weir: cache %q: near tier: %w", cfg.Namespace, err)
		}
		c.near = n
	}
	c.nearTier = c.near
	c.owned = store.New(cfg.OwnedBytes, func(key string, e *store.Entry) {
		if e.Flags&store.Failed == 0 && !e.Replica {
			c.evicted.Add(ring.Hash(key))
			c.stats.Evicted.Add(1)
		}
	})
	if err := c.origin.attach(cfg.Cluster); err != nil {
		c.cancel()
		if c.near != nil {
			c.near.Close()
		}
		c.owned.Close()
		return nil, fmt.Errorf("weir: cache %q: %w", cfg.Namespace, err)
	}
	sharer, _ := cfg.Cluster.(shareSpeaker)
	withheld := sharer != nil && sharer.SharesMove() && c.gov.WithholdShare() // before anybody can ask this cache for a value
	if cfg.Cluster != nil {
		unregister, err := cfg.Cluster.Register(cfg.Namespace, c.schema, handler{&c.core})
		if err != nil {
			c.cancel()
			if withheld {
				c.gov.WaiveShare()
			}
			c.origin.detach()
			if c.near != nil {
				c.near.Close()
			}
			c.owned.Close()
			return nil, fmt.Errorf("weir: cache %q: %w", cfg.Namespace, err)
		}
		c.unregister = unregister
	}
	c.journal.ViewChanged()
	c.spawn(c.maintain)
	if withheld {
		c.spawn(c.takeShare)
	}
	if cfg.Cluster != nil {
		c.spawn(c.keepReplicas)
	}
	if cfg.HotKeysFile == "" {
		c.hot.finished.Store(true)
	} else {
		c.spawn(c.keepHot)
	}
	return c, nil
}

// newJournal returns the journal of the invalidations.
func (c *core) newJournal(incarnation uint64) *journal.Journal {
	cfg := journal.Config{
		Self: c.self, Namespace: c.ns, Schema: c.schema, Incarnation: incarnation,
		Copies: copies{c}, Fences: c.fences, Now: c.clock.Now, Spawn: c.spawn, Closed: ErrClosed,
		OnFlush: func() {
			c.cfg.Logger.Warn("cache flushed: this node missed invalidations that no member's log still has", "event", eventFlushed, "namespace", c.cfg.Namespace)
		},
		Life: max(c.cfg.Freshness.Bound(), c.cfg.Freshness.NegativeTTL), Timeout: c.cfg.InvalidateTimeout, NewFor: newFor, Limits: c.cfg.limits,
	}
	if c.cfg.Cluster != nil {
		cfg.Peers = c.cfg.Cluster
	}
	if c.cfg.faulty != nil {
		cfg.Copies = c.cfg.faulty(cfg.Copies)
	}
	return journal.New(c.ctx, cfg)
}

// newFor is for how long a cache counts as new. It is longer than any Invalidate that began before the cache was opened.
const newFor = MaxInvalidateTimeout * 3 / 2

// spawn runs f in a goroutine that Close waits for. It returns false, and does nothing, once the cache is closed.
func (c *core) spawn(f func()) bool {
	if !c.life.begin() {
		return false
	}
	go func() {
		defer c.life.end()
		f()
	}()
	return true
}

// divide splits a cap among members so that the parts sum to it.
func divide(limit, members, rank int) int {
	if members <= 1 {
		return limit
	}
	part := limit / members
	if rank < limit%members {
		part++
	}
	return part
}

// maintain does the periodic work that no caller does. It ends with c.ctx.
func (c *core) maintain() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var changed <-chan struct{}
	if c.cfg.Cluster != nil {
		changed = c.cfg.Cluster.ViewChanged()
		c.views.Observe(c.cfg.Cluster.View(), c.clock.Now())
		c.checkIsolation()
	}
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-changed:
			changed = c.cfg.Cluster.ViewChanged()
			c.views.Observe(c.cfg.Cluster.View(), c.clock.Now())
			c.journal.Tick()
			c.checkIsolation()
		case <-tick.C:
			c.clock.Tick()
			c.fences.Sweep()
			c.logBreaker()
			c.journal.Tick()
			if c.cfg.Cluster != nil {
				c.checkIsolation()
			}
			c.demand.Mark(c.nearTier.Hits()-c.stats.NearUnused.Load(), c.clock.Now())
			c.stats.Ages.Mark(c.clock.Now())
			c.reuse.Halve(c.clock.Now(), c.stats.OwnedReads())
			c.stats.Ledger.Mark(c.reads(), c.stats.Loads(), c.clock.Now())
		}
		c.gov.Recheck()
	}
}

// Close stops the cache: new calls return ErrClosed, waiting calls are answered, and loads are cancelled. It waits for
// everything that the cache started. If ctx ends first, Close returns an error that says how many loads have not
// returned, and a second call waits again. Stored values are dropped.
func (c *Cache[V]) Close(ctx context.Context) error {
	first := c.life.close()
	if first && c.unregister != nil {
		c.unregister()
	}
	c.cancel()
	if first && c.near != nil {
		c.near.Close() // Get reads the near tier before it checks whether the cache is closed
	}
	err := c.life.wait(ctx)
	if err != nil {
		_, running := c.flights.size()
		err = fmt.Errorf("weir: cache %q: closing: %d loads have not returned: %w", c.cfg.Namespace, running, err)
	}
	if first {
		c.origin.detach()
		c.owned.Close()
	}
	return err
}

// Namespace returns the cache's name.
func (c *Cache[V]) Namespace() string { return c.cfg.Namespace }

// Freshness returns the contract in force, defaults filled in.
func (c *Cache[V]) Freshness() Freshness { return c.cfg.Freshness }

// chainID identifies a fill of this namespace among the fills that wait for one another.
func (c *core) chainID(hash uint64) uint64 { return hash ^ c.nsHash*0x9E3779B97F4A7C15 }

// lifetime counts what Close has to wait for.
type lifetime struct {
	closed atomic.Bool // set under mu

	mu   sync.Mutex // guards the rest
	n    int
	idle chan struct{} // closed when n reaches 0 after close
}

// begin counts one more. It returns false after close.
func (l *lifetime) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return false
	}
	l.n++
	return true
}

func (l *lifetime) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	if l.closed.Load() && l.n == 0 {
		close(l.idle)
	}
}

func (l *lifetime) isClosed() bool { return l.closed.Load() }

// close makes begin return false from now on. It returns true the first time.
func (l *lifetime) close() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Swap(true) {
		return false
	}
	l.idle = make(chan struct{})
	if l.n == 0 {
		close(l.idle)
	}
	return true
}

func (l *lifetime) wait(ctx context.Context) error {
	select {
	case <-l.idle:
		return nil
	default:
	}
	select {
	case <-l.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rng is the source of the cache's random choices: the global one, or a seeded one. It is safe for concurrent use.
type rng struct {
	mu  sync.Mutex // guards src
	src *rand.Rand // nil: the global source
}

func newRNG(seed uint64) *rng {
	if seed == 0 {
		return &rng{}
	}
	return &rng{src: rand.New(rand.NewPCG(seed, seed))}
}

// float64 returns a number in [0, 1).
func (r *rng) float64() float64 {
	if r.src == nil {
		return rand.Float64()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Float64()
}

func (r *rng) uint64() uint64 {
	if r.src == nil {
		return rand.Uint64()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Uint64()
}

// isContext reports whether err is the end of ctx itself. A deadline that has passed counts even if the timer has not
// fired yet: a nested read does not wait for the timer.
func isContext(ctx context.Context, err error) bool {
	return ended(ctx) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}
