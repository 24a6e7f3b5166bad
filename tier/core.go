package tier

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/demand"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// core is the part of a cache that does not know the type of its values: the keys that this node owns with their
// flights and loads, what other members ask for, invalidations and counters. It is compiled once, and not for each type
// of value. A value is bytes here, or stays in the run of the loader that brought it.
type core struct {
	cfg      settings
	front    front
	nearTier nearTier
	inFlight callDetacher
	self     string // this node's name, empty without a cluster
	ns       []byte // the namespace as requests carry it
	nsHash   uint64
	schema   uint64
	clock    clock.Clock
	rng      *rng
	owned    store.Owned
	fences   *fence.Fences
	flights  *flights
	gov      *governor.Governor
	origin   *SharedOrigin // to which gov belongs
	stats    *counters.Counters
	metrics  *collector
	followed followStats
	carrier  Carrier // nil: no tracer, or one that is not a Carrier
	evicted  *store.Evictions
	loads    *store.OwnLoads
	views    placement.History
	seed     maphash.Seed // of etags
	sender   sender       // nil: Cluster is not a sender
	tokenOf  uint64       // the namespace in tokens
	journal  *journal.Journal
	opened   int64 // when the cache was made, ns on its clock

	isolation placement.Isolation
	gathered  gatherer    // single misses that wait to be loaded together
	leaving   atomic.Bool // the node is leaving: others do not tell it of invalidations
	stoodIn   atomic.Bool // it may have entries that it filled as a stand-in owner
	tokens    tokens
	demand    *demand.Sketch
	reuse     *demand.ReuseCurve
	drill     atomic.Pointer[drill] // nil: none
	lastDrill atomic.Pointer[DrillReport]
	logged    eventLog
	hot       hotKeys
	watch     atomic.Uint64 // near hits whose mix is below this are inspected
	watching  sync.Mutex    // serializes changes of watch

	ctx        context.Context // ends when the cache closes
	cancel     context.CancelFunc
	unregister func()
	life       lifetime
}

// front is what core needs of the part that knows the type of the values.
type front interface {
	// newFill returns a run of the loader for a flight.
	newFill(f *flight) loading
	// loadBatch runs the batch loader.
	loadBatch(ctx context.Context, fills []loading) error
	// warmKeys is Cache.Warm.
	warmKeys(ctx context.Context, keys []string) (WarmReport, error)
	// nearCopy describes the near copy of a key, if there is one that could be served now.
	nearCopy(key string, now int64) (Copy, bool)
}

// nearTier is what core needs of the near tier. All of it works on a nil *near.Tier.
type nearTier interface {
	Hits() int64
	Stats() near.Stats
	Clear()
}

// callDetacher is what core needs of the calls to other members in flight, which callers join.
type callDetacher interface {
	// detach makes later callers of key start a new call if the one in flight began before the fence with the given stamp.
	detach(key string, hash, stamp uint64)
	// detachAll is detach for all keys.
	detachAll(fn *fence.Fences)
}

// settings are the fields of a Config that do not depend on the type of the values, defaults filled in.
type settings struct {
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
	limits  journal.Limits
	faulty  func(journal.Copies) journal.Copies
}

func (cfg *Config[V]) settings() settings {
	return settings{
		Cluster: cfg.Cluster, Namespace: cfg.Namespace, BatchSize: cfg.BatchSize, BatchWindow: cfg.BatchWindow, Freshness: cfg.Freshness,
		Origin: cfg.Origin, SharedOrigin: cfg.SharedOrigin, OwnedBytes: cfg.OwnedBytes, ValueLimit: cfg.ValueLimit,
		WhenIsolated: cfg.WhenIsolated, InvalidateTimeout: cfg.InvalidateTimeout, HandoffRate: cfg.HandoffRate, Replicas: cfg.Replicas,
		HotKeysFile: cfg.HotKeysFile, ShowKeys: cfg.ShowKeys, Logger: cfg.Logger, Now: cfg.Now,
		batches: cfg.BatchLoader != nil, limits: cfg.limits, faulty: cfg.faulty,
	}
}
