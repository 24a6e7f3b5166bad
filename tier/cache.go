package tier

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/near"
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
