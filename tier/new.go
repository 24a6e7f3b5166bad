package tier

import (
	"fmt"
	"hash/maphash"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/owner"
)

// New checks cfg and starts a cache. The error names every field that is wrong. Close the cache after its Cluster has
// left, for example by peer's Node.Leave: a node that leaves hands over what its caches have.
func New[V any](cfg Config[V]) (*Cache[V], error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults().watched()
	c := &Cache[V]{
		cloneValue: cfg.Clone, weigh: codec.Weigher[V](), calls: newCallTable[V](),
	}
	c.values = values[V]{load: cfg.Loader, loadBatch: cfg.BatchLoader, codec: cfg.Codec, serveLoaded: cfg.ServeLoaded, limit: cfg.ValueLimit, own: &c.own}
	c.core = core{
		cfg:     cfg.options(),
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
	c.hot.Init(hotKeys(&c.core, c))
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
		unregister, err := cfg.Cluster.Register(cfg.Namespace, c.own.Config.Schema, newHandler(c))
		if err != nil {
			if withheld {
				c.own.Governor.WaiveShare()
			}
			c.origin.detach()
			return err
		}
		c.unregister = unregister
	}
	c.own.Start(withheld)
	return nil
}

// logLost logs which parts of a value its callers will never see.
func (c *Cache[V]) logLost() {
	l, ok := c.values.codec.(codec.Loser)
	if !ok {
		return
	}
	if lost := l.Lost(); len(lost) > 0 {
		c.cfg.Logger.Warn("some fields of the values are not encoded: callers find them empty; export them, or give the type methods that encode it",
			"namespace", c.cfg.Namespace, "codec", c.values.codec.Name(), "fields", lost[:min(len(lost), 10)], "count", len(lost))
	}
}

func (cfg *Config[V]) options() options {
	return options{
		Cluster: cfg.Cluster, Namespace: cfg.Namespace, Freshness: cfg.Freshness, Origin: cfg.Origin, OwnedBytes: cfg.OwnedBytes,
		WhenIsolated: cfg.WhenIsolated, InvalidateTimeout: cfg.InvalidateTimeout, HotKeysFile: cfg.HotKeysFile, Logger: cfg.Logger, Now: cfg.Now,
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
		Values: &c.values, Near: c.near, Calls: c.calls, Errors: typed{cfg.Namespace}, OnDrain: c.hot.Save,
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
