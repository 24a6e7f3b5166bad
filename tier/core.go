package tier

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/hotkeys"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/owner"
)

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
