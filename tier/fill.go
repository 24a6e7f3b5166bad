package tier

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// A Fill is one run of a loader for one key, as the loader sees it. Its methods, except Step, must be called from one
// goroutine at a time, and never after the loader has returned.
type Fill[V any] struct {
	// Key is what to load.
	Key string

	values *values[V]
	run    owner.Run
	value  V
	// shared is what callers get. The cache sets it when the load has returned, so a loader that wrongly keeps the Fill does
	// not change it.
	shared V
}

// values is what a cache does with the type of its values: it loads, encodes and decodes them.
type values[V any] struct {
	load        Loader[V]
	loadBatch   BatchLoader[V]
	codec       codec.Codec[V]
	serveLoaded bool
	limit       int // of the encoding, in bytes
	own         *owner.Owner
}

// NewFill returns a run of the loader for a flight.
func (v *values[V]) NewFill(f *owner.Flight) owner.Loading {
	return filling[V]{&Fill[V]{Key: f.Key, values: v, run: owner.NewRun(v.own, f)}}
}

// LoadBatch runs the BatchLoader for fills, each of which then has its own result.
func (v *values[V]) LoadBatch(ctx context.Context, fills []owner.Loading) error {
	own := make([]*Fill[V], len(fills))
	for i, f := range fills {
		own[i] = f.(filling[V]).f
	}
	return v.loadBatch(ctx, own)
}

// filling is a Fill as the owner of its key sees it.
type filling[V any] struct{ f *Fill[V] }

func (x filling[V]) State() *owner.Run { return &x.f.run }

func (x filling[V]) Load(ctx context.Context) (err error) {
	x.f.value, err = x.f.values.load(ctx, x.f)
	return err
}

// Pack encodes the value. Without ServeLoaded callers get the value decoded again, as later callers will get it. So
// the first callers see no fields that are not encoded and share no memory with the loader, and a value that cannot be
// decoded is not kept.
func (x filling[V]) Pack() ([]byte, error) {
	value := x.f.value
	b, err := x.f.values.encode(value)
	if err != nil || x.f.values.serveLoaded {
		x.f.shared = value
		return b, err
	}
	return b, x.Unpack(b)
}

func (x filling[V]) Unpack(b []byte) (err error) {
	x.f.shared, err = x.f.values.decode(b)
	return err
}

// Previous returns the stale copy that the fill replaces, if there is one, for a conditional read of the origin. Each
// call decodes a new value, which the loader owns.
func (f *Fill[V]) Previous() (value V, ok bool) {
	if f.run.Prev == nil || f.run.Prev.Flags&(store.NotFound|store.Failed) != 0 {
		return value, false
	}
	value, err := f.values.decode(f.run.Prev.Value)
	return value, err == nil
}

// KeepPrevious says that the previous value is still the origin's ("not modified"), so that it becomes fresh again. A
// Loader returns what KeepPrevious returns; in a BatchLoader the call settles the fill.
func (f *Fill[V]) KeepPrevious() (V, error) {
	value, ok := f.Previous()
	if !ok {
		return value, owner.ErrNoPrevious
	}
	f.run.Keep = true
	f.value, f.run.Err, f.run.Done = value, nil, true
	return value, nil
}

// SetTTL replaces Freshness.TTL for this value; it is not jittered. The windows for stale answers follow it unchanged.
// A d of 0 or below means DoNotKeep. If Freshness.MaxTTL is set and d is above it, the fill fails with ErrTTLTooLong.
func (f *Fill[V]) SetTTL(d time.Duration) {
	if d <= 0 {
		f.DoNotKeep()
		return
	}
	f.run.TTL = max(min(d, maxTTL), 1)
}

// DoNotKeep says that the result is only for the callers that wait for this fill: they get it, and nothing is stored,
// so that the next caller starts another load. It also applies to ErrNotFound. An earlier copy is removed.
func (f *Fill[V]) DoNotKeep() { f.run.Drop = true }

// Step marks the start of a call to a dependency of the loader. The function that it returns marks the end: defer
// fill.Step("postgres")(). That function accepts the call's error. The stats show how often each dependency was called,
// how long it took and how often it failed. Safe for concurrent use. Up to 64 names are counted separately, the rest
// together as "other".
func (f *Fill[V]) Step(name string) func(err ...error) {
	began := f.values.own.Clock.Now()
	return func(err ...error) {
		failed := false
		for _, e := range err {
			failed = failed || e != nil
		}
		f.values.own.Stats.Step(name, time.Duration(f.values.own.Clock.Now()-began), failed)
	}
}

// SetVersion reports the origin's own version of the value: a number that grows with each change of the key, such as a
// row's version or a log's position. If an invalidation or a Put has reported a higher version, see At, this value
// comes from a replica that lags: the waiting callers get it, and it is not kept. 0: unknown. With KeepPrevious the
// previous value's version stays if none is reported. It also applies to ErrNotFound.
func (f *Fill[V]) SetVersion(version uint64) { f.run.Version = version }

// encode and decode turn a panic in a user's codec into an error.
func (v *values[V]) encode(x V) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	b, err = v.codec.Append(nil, x)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if len(b) > v.limit {
		return nil, fmt.Errorf("%w: %d bytes encoded, Config.ValueLimit is %d", ErrValueTooLarge, len(b), v.limit)
	}
	return b, nil
}

func (v *values[V]) decode(b []byte) (x V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &undecodable{&PanicError{Value: p, Stack: debug.Stack()}}
		}
	}()
	x, err = v.codec.Decode(b)
	if err != nil {
		return x, &undecodable{err}
	}
	return x, nil
}

// Stale is how long one value may be served after its soft expiry.
type Stale struct {
	WhileRevalidate time.Duration // while one refresh runs
	IfError         time.Duration // if the refill fails or gets no permit
}

// SetStale shortens Freshness.StaleWhileRevalidate and Freshness.StaleIfError for this value. A longer duration has
// no effect. The zero Stale keeps the value from being served after its soft expiry. On a member that got a copy from
// the key's owner, Freshness.StaleWhileRevalidate applies for as long as the longer of the two allows.
func (f *Fill[V]) SetStale(s Stale) { f.run.Stale = (*owner.Staleness)(&s) }

// Tag adds the value to the sets that the tags name: InvalidateTag with one of them covers the value. Callers that
// come after such an InvalidateTag do not wait for the load that runs. So call Tag as soon as a tag is known, ideally
// before reading the origin. The tags apply to ErrNotFound as well. With KeepPrevious the previous value's tags stay,
// and these are added. A value has at most codec.MaxTags tags of at most codec.MaxTag bytes each. If a tag is empty
// or too long, or there are more tags, the fill fails with ErrBadTag: a value that misses a tag could outlive the
// tag's invalidation.
func (f *Fill[V]) Tag(tags ...string) {
	for _, tag := range tags {
		if err := owner.CheckTag(tag); err != nil {
			f.run.TagErr = errors.Join(f.run.TagErr, err)
			continue
		}
		f.run.AddTag(fence.TagHash(tag))
	}
}

// undecodable is the error of a copy whose bytes the codec cannot decode. Such a copy is in the owned tier only if
// another member gave it: what is loaded or put here has been decoded once. It is dropped, counted and loaded again.
// The read that finds it tries once more, and only once, so that a codec that always fails does not ask the origin
// again and again.
type undecodable struct{ err error }

func (e *undecodable) Error() string { return fmt.Sprintf("decode: %v", e.err) }
func (e *undecodable) Unwrap() error { return e.err }

// isUndecodable reports whether err says that a copy cannot be decoded.
func isUndecodable(err error) bool {
	var u *undecodable
	return errors.As(err, &u)
}
