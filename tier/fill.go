package tier

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/weircache/weir/tier/internal/store"
)

// errNoPrevious is what KeepPrevious returns if there is nothing to keep.
var errNoPrevious = errors.New("weir: KeepPrevious, but there is no previous value")

// A Fill is one run of a loader for one key, as the loader sees it. Its methods, except Step, must be called from one
// goroutine at a time, and never after the loader has returned.
type Fill[V any] struct {
	// Key is what to load.
	Key string

	c *Cache[V]
	run
	value V
	// shared is what callers get. The cache sets it when the load has returned, so a loader that wrongly keeps the Fill does
	// not change it.
	shared V
}

// run is what a run of a loader has beside the value.
type run struct {
	core   *core
	flight *flight
	prev   *store.Entry
	ttl    time.Duration
	keep   bool
	drop   bool // the value is only for the waiting callers

	tags    []uint32
	tagErr  error
	version uint64
	stale   *Stale // nil: Freshness applies

	// set by a batch loader
	err  error
	done bool
}

// loading is a run of a loader for code that does not know the type of its value: a *Fill[V], which keeps the value.
type loading interface {
	state() *run
	// load runs the Loader.
	load(ctx context.Context) error
	// pack encodes the value, and decides what callers get.
	pack() ([]byte, error)
	// unpack decodes what callers get from b.
	unpack(b []byte) error
}

// newFill returns a run of the loader for a flight.
func (c *Cache[V]) newFill(f *flight) loading {
	return &Fill[V]{Key: f.key, c: c, run: run{core: &c.core, flight: f, prev: f.prev}}
}

func (f *Fill[V]) state() *run { return &f.run }

func (f *Fill[V]) load(ctx context.Context) (err error) {
	f.value, err = f.c.loader(ctx, f)
	return err
}

// pack implements loading. Without ServeLoaded callers get the value decoded again, as later callers will get it. So
// the first callers see no fields that are not encoded and share no memory with the loader, and a value that cannot be
// decoded is not kept.
func (f *Fill[V]) pack() ([]byte, error) {
	value := f.value
	b, err := f.c.encode(value)
	if err != nil || f.c.serveLoaded {
		f.shared = value
		return b, err
	}
	return b, f.unpack(b)
}

func (f *Fill[V]) unpack(b []byte) (err error) {
	f.shared, err = f.c.decode(b)
	return err
}

// loadBatch runs the BatchLoader for fills, each of which then has its own result.
func (c *Cache[V]) loadBatch(ctx context.Context, fills []loading) error {
	own := make([]*Fill[V], len(fills))
	for i, f := range fills {
		own[i] = f.(*Fill[V])
	}
	return c.batchLoader(ctx, own)
}

// Previous returns the stale copy that the fill replaces, if there is one, for a conditional read of the origin. Each
// call decodes a new value, which the loader owns.
func (f *Fill[V]) Previous() (value V, ok bool) {
	if f.prev == nil || f.prev.Flags&(store.NotFound|store.Failed) != 0 {
		return value, false
	}
	value, err := f.c.decode(f.prev.Value)
	return value, err == nil
}

// KeepPrevious says that the previous value is still the origin's ("not modified"), so that it becomes fresh again. A
// Loader returns what KeepPrevious returns; in a BatchLoader the call settles the fill.
func (f *Fill[V]) KeepPrevious() (V, error) {
	value, ok := f.Previous()
	if !ok {
		return value, errNoPrevious
	}
	f.keep = true
	f.value, f.err, f.done = value, nil, true
	return value, nil
}

// SetTTL replaces Freshness.TTL for this value; it is not jittered. The windows for stale answers follow it unchanged.
// A d of 0 or below means DoNotKeep. If Freshness.MaxTTL is set and d is above it, the fill fails with ErrTTLTooLong.
func (f *Fill[V]) SetTTL(d time.Duration) {
	if d <= 0 {
		f.DoNotKeep()
		return
	}
	f.ttl = max(min(d, maxTTL), 1)
}

// DoNotKeep says that the result is only for the callers that wait for this fill: they get it, and nothing is stored,
// so that the next caller starts another load. It also applies to ErrNotFound. An earlier copy is removed.
func (f *Fill[V]) DoNotKeep() { f.drop = true }

// Step marks the start of a call to a dependency of the loader. The function that it returns marks the end: defer
// fill.Step("postgres")(). That function accepts the call's error. The stats show how often each dependency was called,
// how long it took and how often it failed. Safe for concurrent use. Up to 64 names are counted separately, the rest
// together as "other".
func (f *Fill[V]) Step(name string) func(err ...error) {
	began := f.core.clock.Now()
	return func(err ...error) {
		failed := false
		for _, e := range err {
			failed = failed || e != nil
		}
		f.core.stats.Step(name, time.Duration(f.core.clock.Now()-began), failed)
	}
}

// SetVersion reports the origin's own version of the value: a number that grows with each change of the key, such as a
// row's version or a log's position. If an invalidation or a Put has reported a higher version, see At, this value
// comes from a replica that lags: the waiting callers get it, and it is not kept. 0: unknown. With KeepPrevious the
// previous value's version stays if none is reported. It also applies to ErrNotFound.
func (f *Fill[V]) SetVersion(version uint64) { f.version = version }

func (f *run) versionOf() uint64 {
	if f.version == 0 && f.keep {
		return f.prev.Version
	}
	return f.version
}

// encode and decode turn a panic in a user's codec into an error.
func (c *Cache[V]) encode(v V) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	b, err = c.codec.Append(nil, v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if len(b) > c.cfg.ValueLimit {
		return nil, fmt.Errorf("%w: %d bytes encoded, Config.ValueLimit is %d", ErrValueTooLarge, len(b), c.cfg.ValueLimit)
	}
	return b, nil
}

func (c *Cache[V]) decode(b []byte) (v V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &undecodable{&PanicError{Value: p, Stack: debug.Stack()}}
		}
	}()
	v, err = c.codec.Decode(b)
	if err != nil {
		return v, &undecodable{err}
	}
	return v, nil
}
