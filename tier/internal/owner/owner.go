package owner

import (
	"context"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/demand"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// AnyAge, as the age that a read accepts, is whatever the contract allows.
const AnyAge time.Duration = -1

const (
	// SuccessorTTL bounds how long a member keeps what it filled as a stand-in owner: the unreachable owner may be back
	// in seconds.
	SuccessorTTL = 5 * time.Second
	// SweepEvery is how often old fences are forgotten and waiting flights are checked.
	SweepEvery = time.Second
	// MaxSingles is how many keys of one multi-get are read one by one at the same time.
	MaxSingles = 64
	// ClockEvery is how many keys of a frame share one reading of the clock, if none of them has to wait. For the later keys
	// the reading is a few microseconds old: their copies look older, and expired sooner, than they are.
	ClockEvery = 32
	// MaxAgain is how often a request is sent again after an exchange that its answer made necessary.
	MaxAgain = 3
	// LongestInvalidate is the longest time that an invalidation may take.
	LongestInvalidate = 10 * time.Second
	// fenceRetention is the least time, in ns, for which a fence is remembered.
	fenceRetention = int64(LongestInvalidate) * 3
	// NewFor is for how long a cache counts as new. It is longer than any invalidation that began before the cache was
	// opened.
	NewFor = LongestInvalidate * 3 / 2
)

// An Owner answers for the keys that this node owns: it has their entries, their flights and their loads, and it hands
// them to new owners. It does not know the type of the values: a value is bytes here, or stays in the run of the loader
// that brought it. It is safe for concurrent use after Init.
type Owner struct {
	Config         Config
	Self           string // this node's name, empty without a cluster
	NamespaceBytes []byte // the namespace as requests carry it
	nsHash         uint64
	Clock          clock.Clock
	Random         *rng
	Owned          store.Owned
	Fences         *fence.Fences
	Flights        *flights
	Governor       *governor.Governor
	Stats          *counters.Counters
	evicted        *store.Evictions
	Loads          *store.OwnLoads
	views          placement.History
	seed           maphash.Seed // of etags
	Journal        *journal.Journal
	opened         int64 // when the cache was made, ns on its clock

	Isolation placement.Isolation
	gathered  gatherer    // single misses that wait to be loaded together
	Leaving   atomic.Bool // the node is leaving: others do not tell it of invalidations
	stoodIn   atomic.Bool // it may have entries that it filled as a stand-in owner
	tokens    tokens
	Demand    *demand.Sketch
	Reuse     *demand.ReuseCurve
	Drill     atomic.Pointer[Drill] // nil: none
	logged    eventLog
	Watch     atomic.Uint64 // near hits whose mix is below this are inspected
	watching  sync.Mutex    // serializes changes of watch

	Ctx    context.Context // ends when the cache closes
	Cancel context.CancelFunc
	Life   lifetime
}

// Config are what an Owner is made of. All fields without a comment are those of the public Config, defaults filled in.
type Config struct {
	Cluster           cluster // nil: this process is the only member
	Namespace         string
	BatchSize         int
	BatchWindow       time.Duration
	Freshness         Contract
	Origin            OriginRules
	OwnedBytes        int64
	ValueLimit        int
	WhenIsolated      WhenIsolated
	InvalidateTimeout time.Duration
	HandoffRate       int64
	Replicas          int
	ShowKeys          bool
	Logger            *slog.Logger

	Schema       uint64 // of the values
	Clock        clock.Clock
	Seed         uint64                              // of the random choices; 0: none
	Batches      bool                                // there is a batch loader
	Governor     *governor.Governor                  // perhaps that of several caches
	SharesOrigin bool                                // it is
	Share        func() (permits, members int)       // this node's part of the cluster-wide cap on loads
	Values       values                              // the part that knows the type of the values
	Near         nearTier                            // may hold a nil pointer, but is not nil
	Calls        callDetacher                        // calls to other members in flight
	Errors       typedErrors                         // the public errors that have fields
	Tracing      tracing                             // nil: none
	OnDrain      func()                              // called when this node begins to leave
	Limits       journal.Limits                      // tests make them small
	Faulty       func(journal.Copies) journal.Copies // nil, or breaks what the journal does, for tests
}

// cluster is what an Owner needs of the public Cluster.
type cluster interface {
	Name() string
	View() *ring.View
	ViewChanged() <-chan struct{}
	Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error
}

// OriginRules are the rules of the public Origin that the governor does not need.
type OriginRules struct {
	Timeout time.Duration // of a load, its retries included
	Retry   RetryRules
}

// RetryRules say how often a load is repeated, and how long it waits before that.
type RetryRules struct {
	Most    int
	Backoff time.Duration
}

// values makes runs of the loader.
type values interface {
	// NewFill returns a run of the loader for a flight.
	NewFill(f *Flight) Loading
	// LoadBatch runs the batch loader.
	LoadBatch(ctx context.Context, fills []Loading) error
}

// nearTier is what an Owner needs of the near tier.
type nearTier interface {
	Hits() int64
	Clear()
}

// callDetacher is what an Owner needs of the calls to other members in flight, which callers join.
type callDetacher interface {
	// Detach makes later callers of key start a new call if the one in flight began before the fence with the given stamp.
	Detach(key string, hash, stamp uint64)
	// DetachAll is Detach for all keys.
	DetachAll(fn *fence.Fences)
}

// typedErrors makes and recognizes those public errors that have fields.
type typedErrors interface {
	// Failed returns the error of a fill that failed at the owner, which is empty without a cluster.
	Failed(key, owner string, err error) error
	// AsFailed finds such an error in err.
	AsFailed(err error) (owner string, reason error, ok bool)
	// Panicked returns the error for a panic of the loader or a codec.
	Panicked(value any, stack []byte) error
	// Refused returns the error for a load that got no permit.
	Refused(r *governor.Refusal) error
	// AsRefused finds such an error in err.
	AsRefused(err error) (r Refusal, ok bool)
}

// Refusal is what a caller is told when there was no permit.
type Refusal struct {
	Why        governor.Reason
	Text       string // for people
	RetryAfter time.Duration
	Bare       bool // there is no other error around it
}

// tracing follows work from one member to another.
type tracing interface {
	// Trace returns the work that ctx belongs to, or the zero Trace.
	Trace(ctx context.Context) codec.Trace
	// Within returns ctx as part of a load that work t has caused.
	Within(ctx context.Context, t codec.Trace) context.Context
	// Serve traces what another member's request causes on this node. The caller calls end with the answer.
	Serve(ctx context.Context, req *codec.Request) (_ context.Context, end func(resp *codec.Response))
}

// Init makes an Owner ready for Start. It starts nothing.
func (c *Owner) Init(cfg Config) {
	incarnation := rand.Uint64() | 1
	c.Config, c.Clock, c.Governor = cfg, cfg.Clock, cfg.Governor
	c.NamespaceBytes, c.nsHash = []byte(cfg.Namespace), xxhash.Sum64String(cfg.Namespace)
	if cfg.Cluster == nil { // another cache of the process may have the same name
		c.nsHash ^= incarnation
	} else {
		c.Self = cfg.Cluster.Name()
		c.views.Self = c.Self
	}
	c.Random, c.seed = newRNG(cfg.Seed), maphash.MakeSeed()
	c.Flights, c.Stats, c.evicted, c.Loads = NewFlights(), counters.New(), new(store.Evictions), new(store.OwnLoads)
	c.opened = c.Clock.Now()
	c.Demand, c.Reuse = demand.NewSketch(c.opened, cfg.ShowKeys), demand.NewReuseCurve(c.opened)
	c.Watch.Store(WatchSome)
	c.Fences = fence.New(c.Clock.Now, max(4*int64(cfg.Origin.Timeout)+2*int64(min(cfg.Freshness.NearTTL, time.Hour)), fenceRetention), incarnation)
	c.Ctx, c.Cancel = context.WithCancel(context.Background())
	c.Journal = c.newJournal(incarnation)
	c.Owned = store.New(cfg.OwnedBytes, func(key string, e *store.Entry) {
		if e.Flags&store.Failed == 0 && !e.Replica {
			c.evicted.Add(ring.Hash(key))
			c.Stats.Evicted.Add(1)
		}
	})
}

// Discard gives back what Init took. It is for an Owner that was never started.
func (c *Owner) Discard() {
	c.Cancel()
	c.Owned.Close()
}

// Withhold keeps this node's share of the origin's cap back, if the cluster's members wait for one another's words. It
// must be called before any member can ask this node for a value. Start then takes the share in time.
func (c *Owner) Withhold() bool {
	s, ok := c.Config.Cluster.(shareSpeaker)
	return ok && s.SharesMove() && c.Governor.WithholdShare()
}

// Start starts the periodic work, which Cancel ends and Life counts. withheld is the result of Withhold.
func (c *Owner) Start(withheld bool) {
	c.Journal.ViewChanged()
	c.Spawn(c.maintain)
	if withheld {
		c.Spawn(c.takeShare)
	}
	if c.Config.Cluster != nil {
		c.Spawn(c.keepReplicas)
	}
}

// fillError returns the error of a fill that failed here.
func (c *Owner) fillError(key string, err error) error {
	return c.Config.Errors.Failed(key, c.Self, err)
}

// Reads returns how many reads of callers on this node have been answered.
func (c *Owner) Reads() int64 {
	s := c.Stats
	return c.NearHits() + s.Owned.Load() + s.Filled.Load() + s.Errors.Load()
}

// NearHits returns how many reads the near tier has answered.
func (c *Owner) NearHits() int64 { return max(c.Config.Near.Hits()-c.Stats.NearUnused.Load(), 0) }
