package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
)

// Defaults and limits of Config.
const (
	// DefaultNearBytes is the default of Config.NearBytes, in bytes.
	DefaultNearBytes = 32 << 20
	// DefaultNamespace is the namespace of a cache that has neither a Config.Namespace nor a Cluster.
	DefaultNamespace = "default"
	// DefaultOwnedBytes is the default of Config.OwnedBytes, in bytes.
	DefaultOwnedBytes = 128 << 20
	// DefaultValueLimit is the default of Config.ValueLimit, in bytes.
	DefaultValueLimit = 1 << 20
	// MaxValueLimit is the largest Config.ValueLimit, in bytes.
	MaxValueLimit = 64 << 20
	// MinBytes is the smallest size of a tier that is on, in bytes: a smaller one holds nothing useful.
	MinBytes = 64 << 10
	// valueShare is the part of the owned tier that one value may take: one part in valueShare.
	valueShare = 4
	// DefaultHandoffRate is the default of Config.HandoffRate, in bytes a second.
	DefaultHandoffRate = 32 << 20
	// DefaultInvalidateTimeout is the default of Config.InvalidateTimeout.
	DefaultInvalidateTimeout = 5 * time.Second
	// MaxInvalidateTimeout is the longest Config.InvalidateTimeout: fences are remembered for longer than this.
	MaxInvalidateTimeout = 10 * time.Second
)

// Config describes a cache. Loader or BatchLoader, and Freshness.TTL, are required; the zero value of every other field
// is a documented default. New checks a Config once.
type Config[V any] struct {
	// Cluster connects the members. nil: this process is the only member.
	Cluster Cluster
	// Namespace names the cache. It is the same on every member, and has at most codec.MaxNamespace bytes of printable
	// UTF-8. It is required with a Cluster; without one, empty means DefaultNamespace. Caches of one process that share
	// a Prometheus registry need different names.
	Namespace string
	// Loader reads the origin. Required, unless there is a BatchLoader.
	Loader Loader[V]
	// BatchLoader reads the origin for many keys at once, when GetMany or Warm miss many. Single misses go to Loader if
	// that is set as well.
	BatchLoader BatchLoader[V]
	// BatchSize is the maximum number of keys in one call of BatchLoader. 0: DefaultBatchSize.
	BatchSize int
	// BatchWindow is how long a single miss waits for others, to be loaded with them in one call of BatchLoader. 0:
	// single misses are loaded at once and alone. At most MaxBatchWindow.
	BatchWindow time.Duration
	// Freshness is the contract.
	Freshness Freshness
	// Origin bounds the loads that this cache sends to the origin.
	Origin Origin
	// SharedOrigin, instead of Origin, bounds the loads that all caches with the same SharedOrigin send to the origin
	// together.
	SharedOrigin *SharedOrigin
	// Codec encodes values for the owned tier and the wire. nil: codec.Msgpack.
	Codec codec.Codec[V]
	// ServeLoaded gives the callers that waited for a fill on this node the loader's own value. Without it they get
	// what later callers will get, the value decoded from its encoding, which costs one decoding for each fill. With it
	// the loader must not use the value's memory again, fields that are not encoded differ between callers, and a value
	// that cannot be decoded is noticed late.
	ServeLoaded bool
	// Clone, if set, copies a value for each caller. Without it callers share values and must not
	// change them.
	Clone func(V) V
	// NearBytes is about how much memory this node's near tier takes, counting what values refer to as codec.Weigher
	// does. 0: DefaultNearBytes. Below 0: the near tier is off.
	NearBytes int64
	// OwnedBytes is about how much this node's owned tier holds, in encoded bytes and
	// their bookkeeping. 0: DefaultOwnedBytes.
	OwnedBytes int64
	// ValueLimit is the length of the longest encoded value, in bytes. It is at most the node's own limit and at most a
	// quarter of OwnedBytes. 0: the least of DefaultValueLimit and those two.
	ValueLimit int
	// WhenIsolated says what happens while this node has lost contact with more than half of the members and may miss
	// invalidations. 0: ServeStale.
	WhenIsolated WhenIsolated
	// InvalidateTimeout is how long Invalidate tries to reach a member. 0:
	// DefaultInvalidateTimeout.
	InvalidateTimeout time.Duration
	// HandoffRate is the maximum number of bytes of this cache that a node that leaves pushes to the new owners of its
	// keys, per second. 0: DefaultHandoffRate. Below 0: it pushes nothing, but it answers the requests of the new
	// owners.
	HandoffRate int64
	// Replicas is how many copies of the hottest entries their owner keeps on other members: 0, or 1 at the key's
	// successor, so that the loss of a node costs the origin nothing for them. Only fresh copies are pushed, in the
	// background, with up to an eighth of HandoffRate. They take at most a quarter of a member's OwnedBytes. A member
	// accepts them whatever its own setting.
	Replicas int
	// HotKeysFile is the path of a file with a list of this node's hottest keys. They are warmed in the background
	// after the next start, at the lowest class. The file is written every minute, when the node leaves and when the
	// cache closes. Only its owner may read it, because it has whole keys, whatever ShowKeys says. Caches and members
	// must not share a file. If the file cannot be read or written, the log names it and the cache goes on without it.
	// Warming does not keep a node from being ready: a member that is cold but serves is worth more than none, and the
	// governor protects the origin from both. To wait for it, watch Stats.HotKeys.Finished. "": no list.
	HotKeysFile string
	// ShowKeys allows statistics to name the hottest keys, by their first 128 bytes. Without it they show only hashes.
	ShowKeys bool
	// Logger gets what an operator should know. nil: the Cluster's own, if it has one, as *peer.Node does;
	// otherwise nothing is logged.
	Logger *slog.Logger
	// Now replaces time.Now, for tests. It must be monotonic.
	Now func() time.Time
	// Tracer, if not nil, traces what reads wait for.
	Tracer Tracer
	// Seed makes the cache's random choices (jitter, refresh ahead) repeatable, for
	// tests. 0: a random seed.
	Seed uint64

	limits    journal.Limits                      // tests make them small
	faulty    func(journal.Copies) journal.Copies // nil, or breaks what the journal does, for tests
	suspended func() (int64, bool)                // nil: the system's; tests suspend the machine
}

func (cfg *Config[V]) newClock() clock.Clock {
	if cfg.suspended != nil {
		return clock.NewWith(cfg.Now, cfg.suspended)
	}
	return clock.New(cfg.Now)
}

// wallClock returns the time of day. now is Config.Now.
func wallClock(now func() time.Time) time.Time {
	if now != nil {
		return now()
	}
	return time.Now()
}

func (cfg Config[V]) withDefaults() Config[V] {
	if cfg.SharedOrigin != nil {
		cfg.Origin = cfg.SharedOrigin.o
	}
	cfg.Origin = cfg.Origin.withDefaults()
	if cfg.Namespace == "" {
		cfg.Namespace = DefaultNamespace
	}
	if cfg.Codec == nil {
		cfg.Codec = codec.Msgpack[V]()
	}
	if cfg.NearBytes == 0 {
		cfg.NearBytes = DefaultNearBytes
	}
	if cfg.OwnedBytes == 0 {
		cfg.OwnedBytes = DefaultOwnedBytes
	}
	if cfg.ValueLimit == 0 {
		cfg.ValueLimit = int(min(DefaultValueLimit, int64(cfg.carries()), cfg.OwnedBytes/valueShare))
	}
	if cfg.InvalidateTimeout == 0 {
		cfg.InvalidateTimeout = DefaultInvalidateTimeout
	}
	if cfg.HandoffRate == 0 {
		cfg.HandoffRate = DefaultHandoffRate
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
		if l, ok := cfg.Cluster.(interface{ Logger() *slog.Logger }); ok {
			cfg.Logger = l.Logger()
		}
	}
	cfg.Freshness = cfg.Freshness.withDefaults()
	return cfg.batches()
}

// carries returns the length, in bytes, of the longest value that the Cluster says it carries between members.
func (cfg *Config[V]) carries() int {
	if l, ok := cfg.Cluster.(interface{ ValueLimit() int }); ok {
		return l.ValueLimit()
	}
	return MaxValueLimit
}

// check reports every problem at once. It is called before withDefaults.
func (cfg *Config[V]) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case cfg.Namespace == "" && cfg.Cluster != nil:
		bad("Namespace is empty: give the cache a name that is the same on every member")
	case len(cfg.Namespace) > codec.MaxNamespace:
		bad("Namespace is %d bytes long: the most is %d", len(cfg.Namespace), codec.MaxNamespace)
	case !utf8.ValidString(cfg.Namespace):
		bad("Namespace %q is not valid UTF-8: it becomes a metric's label", cfg.Namespace)
	case strings.ContainsFunc(cfg.Namespace, func(r rune) bool { return !unicode.IsPrint(r) }):
		bad("Namespace %q has characters that cannot be printed: it becomes a metric's label", cfg.Namespace)
	}
	if v := reflect.ValueOf(cfg.Cluster); v.Kind() == reflect.Pointer && v.IsNil() {
		bad("Cluster is a nil %T: leave the field empty for a process alone", cfg.Cluster)
	} else if l := cfg.carries(); cfg.ValueLimit > l {
		bad("ValueLimit is %d: the node carries values of at most %d, raise its ValueLimit too", cfg.ValueLimit, l)
	}
	if k, ok := cfg.Codec.(codec.Checker); ok {
		if err := k.Check(); err != nil {
			bad("Codec %s: %w", cfg.Codec.Name(), err)
		}
	} else if cfg.Codec == nil {
		if err := codec.Msgpack[V]().(codec.Checker).Check(); err != nil {
			bad("Codec is empty, so it is msgpack: %w", err)
		}
	}
	cfg.checkBatch(bad)
	if err := cfg.Freshness.check(); err != nil {
		errs = append(errs, err)
	}
	if err := cfg.Origin.check(); err != nil {
		errs = append(errs, err)
	}
	if cfg.SharedOrigin != nil && cfg.Origin != (Origin{}) {
		bad("both Origin and SharedOrigin are set: the shared one's settings were given to NewSharedOrigin, leave Origin empty")
	}
	if cfg.NearBytes > 0 && cfg.NearBytes < MinBytes {
		bad("NearBytes is %d: the least is %d; below 0 turns the near tier off", cfg.NearBytes, MinBytes)
	}
	if cfg.OwnedBytes < 0 || cfg.OwnedBytes > 0 && cfg.OwnedBytes < MinBytes {
		bad("OwnedBytes is %d: the least is %d; 0 means %d", cfg.OwnedBytes, MinBytes, DefaultOwnedBytes)
	}
	if cfg.ValueLimit < 0 || cfg.ValueLimit > MaxValueLimit {
		bad("ValueLimit is %d: it must be from 1 to %d bytes; 0 means %d", cfg.ValueLimit, MaxValueLimit, DefaultValueLimit)
	}
	owned := cmp.Or(cfg.OwnedBytes, DefaultOwnedBytes)
	if limit := int64(cfg.ValueLimit); owned >= MinBytes && limit > owned/valueShare {
		bad("ValueLimit %d is over a quarter of OwnedBytes %d: a few values would fill the tier; raise OwnedBytes", limit, owned)
	}
	if cfg.Replicas < 0 || cfg.Replicas > 1 {
		bad("Replicas is %d: it must be 0 or 1", cfg.Replicas)
	} else if cfg.Replicas > 0 && cfg.HandoffRate < 0 {
		bad("Replicas is %d, but HandoffRate is below 0: nothing may be pushed; leave one of them 0", cfg.Replicas)
	}
	if cfg.WhenIsolated > Fail {
		bad("WhenIsolated is %d: it must be ServeStale, Bypass or Fail", uint8(cfg.WhenIsolated))
	}
	if cfg.InvalidateTimeout < 0 || cfg.InvalidateTimeout > MaxInvalidateTimeout {
		bad("InvalidateTimeout is %v: it must be from 0 to %v", cfg.InvalidateTimeout, MaxInvalidateTimeout)
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("weir: cache %q: %w", cfg.Namespace, errors.Join(errs...))
}

// schema is the fingerprint of what all members must agree on to exchange values.
func (cfg *Config[V]) schema() uint64 {
	f := cfg.Freshness
	s := fmt.Sprintf("1|%s|%016x|%d %d %d %d %d %d %d",
		cfg.Codec.Name(), codec.SchemaHash[V](),
		f.TTL, f.StaleWhileRevalidate, f.StaleIfError, f.NegativeTTL, f.ErrorTTL, f.NearTTL, f.SoftTimeout)
	if f.MaxTTL != 0 { // added later: contracts without it keep the fingerprint that they had
		s += fmt.Sprintf(" %d", f.MaxTTL)
	}
	return xxhash.Sum64String(s)
}

// A Loader reads the origin for one key. It runs in a goroutine of its own, detached from the callers that wait for it.
// ctx ends after Origin.Timeout or when the cache closes. A loader should return then: until it does, it holds its
// permit. ErrNotFound is an answer, not a failure. A panic becomes the error of the waiting callers. The value is
// encoded after the loader has returned. Until then its memory must not be used for anything else. With
// Config.ServeLoaded callers get the value itself, and its memory must never be used for anything else.
//
// A loader may read other keys, of this cache or another, if it passes ctx on. While it waits for them, its load does
// not count as one at the origin: it gives its permit back. A read that had to wait returns when the load has a permit
// again, which may be past the read's own deadline but not past the load's. So keys may be made of keys, up to
// codec.MaxChain deep, with any Origin.Concurrency. Read several of them with one GetMany or at the same time, and call
// the origin before or after: a loader that calls the origin in one goroutine while another one waits does so outside
// of the cap.
type Loader[V any] func(ctx context.Context, fill *Fill[V]) (V, error)

// ByKey adapts a plain function to a Loader.
func ByKey[V any](load func(ctx context.Context, key string) (V, error)) Loader[V] {
	if load == nil {
		return nil
	}
	return func(ctx context.Context, fill *Fill[V]) (V, error) { return load(ctx, fill.Key) }
}

// WhenIsolated says what a cache does while its node is isolated: it has lost sight of, or hears nothing from, more
// than half of the members of the last view that stood for 30 seconds. It cannot learn of their invalidations then.
type WhenIsolated uint8

// What a cache does when its node is isolated.
const (
	// ServeStale serves as usual. Copies end at their hard expiry at the latest.
	ServeStale WhenIsolated = iota
	// Bypass loads for each read, within the governor's limits. Reads that come while a load waits for its permit share
	// that load. No copy from before the read is served.
	Bypass
	// Fail returns ErrIsolated.
	Fail
)

// String returns "serve stale", "bypass" or "fail".
func (w WhenIsolated) String() string { return owner.WhenIsolated(w).String() }
