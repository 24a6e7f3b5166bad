package tier

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/hotkeys"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
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
		cfg:     cfg.options(),
		front:   c,
		origin:  cfg.SharedOrigin,
		tokenOf: ring.Hash(cfg.Namespace),
		metrics: newCollector(cfg.Namespace, wallClock(cfg.Now)),
	}
	c.sender, _ = cfg.Cluster.(sender)
	c.multiGets.seed = maphash.MakeSeed()
	c.logLost()
	if c.origin == nil {
		c.origin = newSharedOrigin(cfg.Namespace, cfg.Origin, cfg.Now)
	}
	if cfg.NearBytes > 0 && cfg.Freshness.NearTTL > 0 {
		n, err := near.New[nearEntry[V]](cfg.NearBytes)
		if err != nil {
			return nil, fmt.Errorf("weir: cache %q: near tier: %w", cfg.Namespace, err)
		}
		c.near = n
	}
	c.nearTier = c.near
	c.hot.Init(c.hotKeys())
	c.own.Init(c.settings(&cfg))
	if err := c.register(&cfg); err != nil {
		if c.near != nil {
			c.near.Close()
		}
		c.own.Discard()
		return nil, fmt.Errorf("weir: cache %q: %w", cfg.Namespace, err)
	}
	if cfg.HotKeysFile != "" {
		c.own.Spawn(func() { c.hot.Keep(c.own.Ctx) })
	}
	return c, nil
}

// register makes the cache known to its origin and its cluster, and starts it. After an error it is known to neither.
func (c *Cache[V]) register(cfg *Config[V]) error {
	if err := c.origin.attach(cfg.Cluster); err != nil {
		return err
	}
	withheld := c.own.Withhold() // before anybody can ask this cache for a value
	if cfg.Cluster != nil {
		unregister, err := cfg.Cluster.Register(cfg.Namespace, c.own.Cfg.Schema, c.handler())
		if err != nil {
			if withheld {
				c.own.Gov.WaiveShare()
			}
			c.origin.detach()
			return err
		}
		c.unregister = unregister
	}
	c.own.Start(withheld)
	return nil
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

// Close stops the cache: new calls return ErrClosed, waiting calls are answered, and loads are cancelled. It waits for
// everything that the cache started. If ctx ends first, Close returns an error that says how many loads have not
// returned, and a second call waits again. Stored values are dropped.
func (c *Cache[V]) Close(ctx context.Context) error {
	first := c.own.Life.Close()
	if first && c.unregister != nil {
		c.unregister()
	}
	c.own.Cancel()
	if first && c.near != nil {
		c.near.Close() // Get reads the near tier before it checks whether the cache is closed
	}
	err := c.own.Life.Wait(ctx)
	if err != nil {
		_, running := c.own.Flights.Size()
		err = fmt.Errorf("weir: cache %q: closing: %d loads have not returned: %w", c.cfg.Namespace, running, err)
	}
	if first {
		c.origin.detach()
		c.own.Owned.Close()
	}
	return err
}

// Namespace returns the cache's name.
func (c *Cache[V]) Namespace() string { return c.cfg.Namespace }

// Freshness returns the contract in force, defaults filled in.
func (c *Cache[V]) Freshness() Freshness { return c.cfg.Freshness }

// core is the part of a cache that does not know the type of its values, so that it is compiled once, and not for each
// type of value.
type core struct {
	cfg    options
	front  front
	own    owner.Owner
	origin *SharedOrigin // whose governor admits the loads
	sender sender        // nil: Cluster is not a sender
	// tokenOf is the namespace in tokens.
	tokenOf uint64

	nearTier   nearStats
	metrics    *collector
	followed   followStats
	hot        hotkeys.Keeper
	drilling   atomic.Pointer[drilling] // the drill under way; nil: none
	lastDrill  atomic.Pointer[DrillReport]
	unregister func()
}

// front is what core needs of the part that knows the type of the values.
type front interface {
	// warmKeys is Cache.Warm.
	warmKeys(ctx context.Context, keys []string) (WarmReport, error)
	// nearCopy describes the near copy of a key, if there is one that could be served now.
	nearCopy(key string, now int64) (Copy, bool)
}

// nearStats is what core needs of the near tier. It works on a nil *near.Tier.
type nearStats interface {
	Stats() near.Stats
}

// options are the fields of a Config that do not depend on the type of the values, defaults filled in.
type options struct {
	Cluster           Cluster
	Namespace         string
	BatchSize         int
	BatchWindow       time.Duration
	Freshness         Freshness
	Origin            Origin
	SharedOrigin      *SharedOrigin
	OwnedBytes        int64
	ValueLimit        int
	WhenIsolated      WhenIsolated
	InvalidateTimeout time.Duration
	HandoffRate       int64
	Replicas          int
	HotKeysFile       string
	ShowKeys          bool
	Logger            *slog.Logger
	Now               func() time.Time

	batches bool // there is a BatchLoader
}

func (cfg *Config[V]) options() options {
	return options{
		Cluster: cfg.Cluster, Namespace: cfg.Namespace, BatchSize: cfg.BatchSize, BatchWindow: cfg.BatchWindow, Freshness: cfg.Freshness,
		Origin: cfg.Origin, SharedOrigin: cfg.SharedOrigin, OwnedBytes: cfg.OwnedBytes, ValueLimit: cfg.ValueLimit,
		WhenIsolated: cfg.WhenIsolated, InvalidateTimeout: cfg.InvalidateTimeout, HandoffRate: cfg.HandoffRate, Replicas: cfg.Replicas,
		HotKeysFile: cfg.HotKeysFile, ShowKeys: cfg.ShowKeys, Logger: cfg.Logger, Now: cfg.Now,
		batches: cfg.BatchLoader != nil,
	}
}

// settings returns what the owner of the keys has to know of a Config with its defaults filled in.
func (c *Cache[V]) settings(cfg *Config[V]) owner.Config {
	s := owner.Config{
		Namespace: cfg.Namespace, BatchSize: cfg.BatchSize, BatchWindow: cfg.BatchWindow,
		Freshness: owner.Contract(cfg.Freshness), Origin: owner.OriginRules{Timeout: cfg.Origin.Timeout, Retry: owner.RetryRules{Most: cfg.Origin.Retry.Most, Backoff: cfg.Origin.Retry.Backoff}},
		OwnedBytes: cfg.OwnedBytes, ValueLimit: cfg.ValueLimit, WhenIsolated: owner.WhenIsolated(cfg.WhenIsolated),
		InvalidateTimeout: cfg.InvalidateTimeout, HandoffRate: cfg.HandoffRate, Replicas: cfg.Replicas, ShowKeys: cfg.ShowKeys, Logger: cfg.Logger,
		Schema: cfg.schema(), Clock: cfg.newClock(), Seed: cfg.Seed, Batches: cfg.BatchLoader != nil,
		Governor: c.origin.gov, SharesOrigin: cfg.SharedOrigin != nil, Share: c.origin.share,
		Values: loadings[V]{c}, Near: c.near, Calls: c.calls, Errors: typed{cfg.Namespace}, OnDrain: c.hot.Save,
		Limits: cfg.limits, Faulty: cfg.faulty,
	}
	if cfg.Cluster != nil {
		s.Cluster = cfg.Cluster
	}
	if t, ok := cfg.Tracer.(Carrier); ok {
		s.Tracing = follows{t, cfg.Namespace}
	}
	return s
}
