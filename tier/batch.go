package tier

import (
	"context"
	"time"

	"github.com/weircache/weir/tier/internal/owner"
)

const (
	// DefaultBatchSize is the default of Config.BatchSize.
	DefaultBatchSize = 128
	// MaxBatchSize is the largest Config.BatchSize.
	MaxBatchSize = 1 << 16
	// MaxBatchWindow is the longest Config.BatchWindow: every single miss waits for it.
	MaxBatchWindow = 100 * time.Millisecond
)

// ErrUnset says that a BatchLoader returned nil without having set or failed the fill.
var ErrUnset = owner.ErrUnset

// A BatchLoader reads the origin for many keys at once. It calls Set, Fail or KeepPrevious on each fill. The fills have
// different keys, at least one and at most Config.BatchSize, in no order. A BatchLoader may work on different fills in
// different goroutines, but it must have joined them when it returns, because the values are used then.
//
// The error that it returns applies to all fills that it has neither set nor failed; if the error is nil they fail with
// ErrUnset. So it may return ErrNotFound after it has set what the origin has, or the error of its one query. The rules
// for a Loader apply: its time, panics, and Retryable, which repeats the fills that failed with it.
//
// The fills of a batch end together. So keys that are made of other keys should be in another cache than those keys.
// Otherwise two batches may wait for each other.
type BatchLoader[V any] func(ctx context.Context, fills []*Fill[V]) error

// ByKeys adapts a plain function to a BatchLoader. A key that is not in the map it returns is not found.
func ByKeys[V any](load func(ctx context.Context, keys []string) (map[string]V, error)) BatchLoader[V] {
	if load == nil {
		return nil
	}
	return func(ctx context.Context, fills []*Fill[V]) error {
		keys := make([]string, len(fills))
		for i, f := range fills {
			keys[i] = f.Key
		}
		values, err := load(ctx, keys)
		if err != nil {
			return err
		}
		for _, f := range fills {
			if v, ok := values[f.Key]; ok {
				f.Set(v)
			}
		}
		return ErrNotFound
	}
}

// Set gives the fill its value, in a BatchLoader. The last of several calls counts.
func (f *Fill[V]) Set(value V) { f.value, f.run.Err, f.run.Done, f.run.Keep = value, nil, true, false }

// Fail gives the fill its error, in a BatchLoader. ErrNotFound means that the origin has no value for the key. err must
// not be nil.
func (f *Fill[V]) Fail(err error) {
	var zero V
	if err == nil {
		err = ErrUnset
	}
	f.value, f.run.Err, f.run.Done, f.run.Keep = zero, err, true, false
}

// batches fills in the defaults for batches.
func (cfg Config[V]) batches() Config[V] {
	if cfg.BatchSize == 0 {
		cfg.BatchSize = DefaultBatchSize
	}
	if batch := cfg.BatchLoader; batch != nil && cfg.Loader == nil {
		cfg.Loader = func(ctx context.Context, fill *Fill[V]) (V, error) {
			err := fill.run.Outcome(batch(ctx, []*Fill[V]{fill}))
			return fill.value, err
		}
	}
	return cfg
}

func (cfg *Config[V]) checkBatch(bad func(format string, args ...any)) {
	if cfg.Loader == nil && cfg.BatchLoader == nil {
		bad("Loader is nil: give the function that reads the origin, tier.ByKey adapts a plain one; or a BatchLoader")
	}
	if cfg.BatchSize < 0 || cfg.BatchSize > MaxBatchSize {
		bad("BatchSize is %d: it must be from 1 to %d; 0 means %d", cfg.BatchSize, MaxBatchSize, DefaultBatchSize)
	}
	if cfg.BatchWindow < 0 || cfg.BatchWindow > MaxBatchWindow {
		bad("BatchWindow is %v: it must be from 0, which is off, to %v", cfg.BatchWindow, MaxBatchWindow)
	}
	if cfg.BatchLoader == nil && (cfg.BatchSize != 0 || cfg.BatchWindow != 0) {
		bad("BatchSize or BatchWindow is set without a BatchLoader: there are no batches")
	}
}
