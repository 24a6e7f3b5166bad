package tier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/tier/internal/owner"
)

// batched records the calls of a batch loader.
type batched struct {
	mu    sync.Mutex // guards the rest
	calls [][]string
}

func (b *batched) load(ctx context.Context, fills []*Fill[string]) error {
	keys := make([]string, len(fills))
	for i, f := range fills {
		keys[i] = f.Key
	}
	slices.Sort(keys)
	b.mu.Lock()
	b.calls = append(b.calls, keys)
	n := len(b.calls)
	b.mu.Unlock()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	for _, f := range fills {
		f.Set(fmt.Sprintf("%s#%d", f.Key, n))
	}
	return nil
}

func (b *batched) take() [][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := b.calls
	b.calls = nil
	return calls
}

func plainBatch(load BatchLoader[string]) Config[string] {
	cfg := plain(nil)
	cfg.BatchLoader = load
	return cfg
}

func TestBatchOneCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := new(batched)
		cfg := plainBatch(b.load)
		cfg.BatchSize = 40
		cfg.Origin.Concurrency = 3
		c := open(t, cfg)
		var peak atomic.Int64
		go func() {
			_ = pause(background, time.Second/2)
			peak.Store(int64(c.Stats().Governor.InUse))
		}()
		got, err := c.GetMany(t.Context(), keysNamed(100))
		if err != nil || len(got) != 100 {
			t.Fatalf("%d values, %v", len(got), err)
		}
		var sizes []int
		for _, keys := range b.take() {
			sizes = append(sizes, len(keys))
		}
		slices.Sort(sizes)
		if !slices.Equal(sizes, []int{20, 40, 40}) || peak.Load() != 3 {
			t.Errorf("batches of %v, %d permits", sizes, peak.Load())
		}
		synctest.Wait()
		s := c.Stats()
		if s.Loads != 100 || s.Batches != 3 || s.LoadsBy["cold"] != 100 || s.ResultsBy["ok"] != 100 || s.Ledger.OriginSeconds != 3 || s.Flights != 0 || s.Running != 0 || s.Governor.InUse != 0 {
			t.Errorf("%+v", s)
		}
		get(t, c, "single", "single#1")
		if calls := b.take(); len(calls) != 1 || len(calls[0]) != 1 {
			t.Errorf("%v", calls)
		}
	})
}

// A single miss joins the batch that is under way, and a batch leaves out keys that are being loaded.
func TestBatchJoins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := new(batched)
		c := open(t, plainBatch(b.load))
		var wg sync.WaitGroup
		wg.Go(func() { get(t, c, "key-1", "key-1#1") })
		synctest.Wait()
		wg.Go(func() {
			if got, err := c.GetMany(t.Context(), keysNamed(4)); err != nil || got["key-1"] != "key-1#1" || got["key-3"] != "key-3#2" {
				t.Errorf("%v, %v", got, err)
			}
		})
		synctest.Wait()
		wg.Go(func() { get(t, c, "key-2", "key-2#2") })
		wg.Wait()
		if calls := b.take(); len(calls) != 2 || !slices.Equal(calls[1], []string{"key-0", "key-2", "key-3"}) {
			t.Errorf("%v", calls)
		}
	})
}

func TestBatchWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := new(batched)
		cfg := plainBatch(b.load)
		cfg.BatchWindow, cfg.BatchSize = 5*time.Millisecond, 10
		c := open(t, cfg)
		for _, n := range []int{1, 7, 25} {
			var wg sync.WaitGroup
			began := time.Now()
			for i := range n {
				wg.Go(func() {
					if _, err := c.Get(t.Context(), fmt.Sprintf("%d-%d", n, i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			var sizes []int
			for _, keys := range b.take() {
				sizes = append(sizes, len(keys))
			}
			slices.Sort(sizes)
			if want := map[int][]int{1: {1}, 7: {7}, 25: {5, 10, 10}}[n]; !slices.Equal(sizes, want) {
				t.Errorf("%d misses: batches of %v, want %v", n, sizes, want)
			}
			if d := time.Since(began); d != time.Second+cfg.BatchWindow {
				t.Errorf("%d misses took %v", n, d)
			}
		}

		// A cache that closes while callers wait answers them.
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { getErr(t, c, fmt.Sprintf("closing-%d", i), ErrClosed) })
		}
		synctest.Wait()
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}

// A fill of a batch may end in each of these ways.
func TestBatchFills(t *testing.T) {
	boom := errors.New("boom")
	some := func(end func() error) BatchLoader[string] {
		return func(_ context.Context, fills []*Fill[string]) error {
			for _, f := range fills {
				switch f.Key {
				case "key-0":
					f.Set("early")
					f.Set("value")
				case "key-1":
					f.Fail(ErrNotFound)
				case "key-2":
					f.Fail(boom)
				case "key-3":
					f.Fail(nil)
				case "key-4":
					if _, err := f.KeepPrevious(); err == nil {
						return errors.New("there is no previous value")
					}
				}
			}
			return end()
		}
	}
	for _, c := range []struct {
		name  string
		end   func() error
		unset error
	}{
		{"nothing", func() error { return nil }, ErrUnset},
		{"error", func() error { return boom }, boom},
		{"not found", func() error { return ErrNotFound }, ErrNotFound},
		{"goexit", func() error { runtime.Goexit(); return nil }, ErrGoexit},
		{"panic", func() error { panic(boom) }, boom},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				cache := open(t, plainBatch(some(c.end)))
				got, err := cache.GetMany(t.Context(), keysNamed(6))
				if !maps.Equal(got, map[string]string{"key-0": "value"}) {
					t.Errorf("%v", got)
				}
				var many *ManyError
				if !errors.As(err, &many) || !errors.Is(many.Errs["key-2"], boom) || !errors.Is(many.Errs["key-3"], ErrUnset) || many.Errs["key-1"] != nil {
					t.Fatalf("%v", err)
				}
				for _, key := range []string{"key-4", "key-5"} {
					if err := many.Errs[key]; c.unset == ErrNotFound && err != nil || c.unset != ErrNotFound && !errors.Is(err, c.unset) {
						t.Errorf("%s: %v, want %v", key, err, c.unset)
					}
				}
				synctest.Wait()
				if s := cache.Stats(); s.Flights != 0 || s.Running != 0 || s.Governor.InUse != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// Tags, lifetimes, versions and previous values belong to a single fill of a batch.
func TestBatchFillsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var calls int
		cfg := plainBatch(func(_ context.Context, fills []*Fill[string]) error {
			calls++
			for _, f := range fills {
				if old, ok := f.Previous(); ok {
					if old != fmt.Sprintf("%s#%d", f.Key, 1) {
						return fmt.Errorf("%s before", old)
					}
					if _, err := f.KeepPrevious(); err != nil {
						return err
					}
					continue
				}
				f.Tag("tag-" + f.Key)
				if f.Key == "key-1" {
					f.SetTTL(time.Hour)
				}
				f.SetVersion(7)
				f.Set(fmt.Sprintf("%s#%d", f.Key, calls))
			}
			return nil
		})
		cfg.Freshness.StaleIfError = 10 * time.Hour
		c := open(t, cfg)
		keys := keysNamed(4)
		all := func(want map[string]string) {
			t.Helper()
			if got, err := c.GetMany(t.Context(), keys); err != nil || !maps.Equal(got, want) {
				t.Errorf("%v, %v; want %v", got, err, want)
			}
		}
		first := map[string]string{"key-0": "key-0#1", "key-1": "key-1#1", "key-2": "key-2#1", "key-3": "key-3#1"}
		all(first)
		_ = pause(t.Context(), 2*time.Minute)
		all(first) // kept
		if s := c.Stats(); s.Loads != 7 || calls != 2 {
			t.Errorf("%d loads in %d calls: key-1 lives longer", s.Loads, calls)
		}
		if err := c.InvalidateTag(t.Context(), "tag-key-2"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Apply(t.Context(), At(9, "key-3")); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"key-0#1", "key-1#1", "key-2#3", "key-3#4"} {
			get(t, c, keys[i], want)
		}
		if n := c.Stats().ResultsBy["behind"]; n == 0 {
			t.Error("a value behind the known version was kept")
		}
	})
}

func TestBatchTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		free := make(chan struct{})
		cfg := plainBatch(func(_ context.Context, fills []*Fill[string]) error {
			<-free
			for _, f := range fills {
				f.Set("late")
			}
			return nil
		})
		cfg.Origin.Timeout, cfg.Origin.Concurrency = time.Second, 1
		c := open(t, cfg)
		began := time.Now()
		_, err := c.GetMany(t.Context(), keysNamed(3))
		if !errors.Is(err, ErrTimeout) || time.Since(began) != time.Second {
			t.Errorf("%v, %v", err, time.Since(began))
		}
		s := c.Stats()
		if s.Governor.InUse != 1 || s.Running != 3 || s.ResultsBy["timeout"] != 3 {
			t.Errorf("%+v", s)
		}
		_, err = c.GetMany(t.Context(), []string{"other-1", "other-2"})
		if !errors.Is(err, ErrOverloaded) {
			t.Errorf("the permit is still held: %v", err)
		}
		close(free)
		synctest.Wait()
		if s := c.Stats(); s.Governor.InUse != 0 || s.Running != 0 || s.ResultsBy["overran"] != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestBatchRetries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var calls [][]string
		cfg := plainBatch(func(_ context.Context, fills []*Fill[string]) error {
			var keys []string
			for _, f := range fills {
				keys = append(keys, f.Key)
				switch {
				case f.Key == "key-0":
					f.Fail(errors.New("for good"))
				case f.Key == "key-1" && len(calls) < 2, f.Key == "key-2" && len(calls) < 1, f.Key == "key-3":
					f.Fail(Retryable(errors.New("not now")))
				default:
					f.Set(f.Key)
				}
			}
			calls = append(calls, keys)
			return nil
		})
		c := open(t, cfg)
		got, err := c.GetMany(t.Context(), keysNamed(5))
		var many *ManyError
		if len(got) != 3 || !errors.As(err, &many) || many.Errs["key-0"] == nil || many.Errs["key-3"] == nil {
			t.Errorf("%v, %v", got, err)
		}
		if len(calls) != 3 || len(calls[1]) != 3 || len(calls[2]) != 2 {
			t.Errorf("%v", calls)
		}
		synctest.Wait()
		if s := c.Stats(); s.Ledger.Retries != 5 || s.Loads != 10 || s.Governor.InUse != 0 || s.Running != 0 || s.Flights != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A key that is invalidated while its batch is under way is not kept; the rest of the batch is.
func TestBatchFenced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := new(batched)
		c := open(t, plainBatch(b.load))
		var wg sync.WaitGroup
		wg.Go(func() {
			if got, err := c.GetMany(t.Context(), keysNamed(3)); err != nil || len(got) != 3 {
				t.Errorf("%v, %v", got, err)
			}
		})
		synctest.Wait()
		if err := c.Invalidate(t.Context(), "key-1"); err != nil {
			t.Fatal(err)
		}
		get(t, c, "key-1", "key-1#2") // a load of its own, beside the fenced one
		wg.Wait()
		get(t, c, "key-0", "key-0#1")
		get(t, c, "key-1", "key-1#2")
		get(t, c, "key-2", "key-2#1")
		if calls := b.take(); len(calls) != 2 {
			t.Errorf("%v", calls)
		}
	})
}

// A batch does not wait for a key that already has too many running loads: that key flies by itself.
func TestBatchBusyKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		free := make(chan struct{})
		cfg := plainBatch(func(_ context.Context, fills []*Fill[string]) error {
			if len(fills) == 1 {
				<-free
			}
			for _, f := range fills {
				f.Set(f.Key)
			}
			return nil
		})
		cfg.Origin.Timeout, cfg.Freshness.ErrorTTL = time.Second, -1
		c := open(t, cfg)
		for range owner.MaxRunning {
			getErr(t, c, "key-1", ErrTimeout)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		got, err := c.GetMany(ctx, keysNamed(3))
		var many *ManyError
		if len(got) != 2 || !errors.As(err, &many) || many.Errs["key-1"] != context.DeadlineExceeded {
			t.Errorf("%v, %v", got, err)
		}
		close(free)
		synctest.Wait()
		if s := c.Stats(); s.Governor.InUse != 0 || s.Running != 0 || s.Flights != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A caller that joins a flight lends its patience to the flight, whether the flight is then loaded alone, with others,
// or alone after it was gathered with others.
func TestPatienceOfThoseWhoJoin(t *testing.T) {
	for _, window := range []time.Duration{0, 100 * time.Millisecond} {
		for _, keys := range [][]string{{"p"}, {"p", "q"}, {"p", "hung"}} {
			t.Run(fmt.Sprint(window, keys), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					b := new(batched)
					hang := make(chan struct{})
					cfg := plainBatch(func(ctx context.Context, fills []*Fill[string]) error {
						if len(fills) == 1 && fills[0].Key == "hung" {
							<-hang
						}
						return b.load(ctx, fills)
					})
					cfg.BatchWindow = window
					cfg.Freshness.ErrorTTL = -1
					cfg.Origin = Origin{Concurrency: 3, MinConcurrency: 3, QueueInterval: -1, Timeout: 10 * time.Second, Breaker: Breaker{Failures: -1}}
					c := open(t, cfg)
					var wg sync.WaitGroup
					defer wg.Wait()
					defer close(hang)
					for range owner.MaxRunning { // these hold two of three permits for good
						getErr(t, c, "hung", ErrTimeout)
					}
					for i := range 30 { // the governor learns that a load takes a second
						get(t, c, fmt.Sprint("warm", i), fmt.Sprintf("warm%d#%d", i, i+1))
					}
					wg.Go(func() { _, _ = c.Get(background, "busy") })
					_ = pause(background, 110*time.Millisecond) // it loads, for a second
					for _, key := range keys {
						wg.Go(func() {
							ctx, cancel := context.WithTimeout(background, 3500*time.Millisecond)
							defer cancel()
							_, _ = c.Get(ctx, key)
						})
						synctest.Wait()
						patient := func() {
							if v, err := c.Get(background, key); err != nil && key != "hung" {
								t.Errorf("the patient caller of %s: %q, %v", key, v, err)
							}
						}
						wg.Go(patient)
					}
					for i := range 5 { // more than an impatient caller would wait for
						wg.Go(func() { _, _ = c.Get(background, fmt.Sprint("before", i)) })
					}
					_ = pause(background, 15*time.Second)
				})
			})
		}
	}
}

// A batch loader that reads one of its own keys gets ErrCycle.
func TestBatchCycle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var c *Cache[string]
		var errs []error
		cfg := plainBatch(func(ctx context.Context, fills []*Fill[string]) error {
			for _, f := range fills {
				if len(fills) > 1 {
					_, err := c.Get(ctx, f.Key)
					_, err2 := c.GetMany(ctx, []string{f.Key, "other"})
					errs = append(errs, err, err2)
				}
				f.Set(f.Key)
			}
			return nil
		})
		c = open(t, cfg)
		began := time.Now()
		if got, err := c.GetMany(t.Context(), keysNamed(30)); err != nil || len(got) != 30 {
			t.Errorf("%v, %v", got, err)
		}
		for _, err := range errs {
			if !errors.Is(err, ErrCycle) {
				t.Errorf("%v", err)
			}
		}
		if len(errs) != 60 || time.Since(began) != 0 {
			t.Errorf("%d errors after %v", len(errs), time.Since(began))
		}
	})
}

func TestByKeys(t *testing.T) {
	if ByKeys[int](nil) != nil {
		t.Error("nil has become a loader")
	}
	bubble(t, func(t *testing.T) {
		fail := false
		cfg := plainBatch(ByKeys(func(_ context.Context, keys []string) (map[string]string, error) {
			if fail {
				return nil, errors.New("broken")
			}
			out := map[string]string{"stranger": "x"}
			for _, key := range keys {
				if !strings.HasPrefix(key, "none") {
					out[key] = "v"
				}
			}
			return out, nil
		}))
		c := open(t, cfg)
		if got, err := c.GetMany(t.Context(), []string{"a", "none", "b"}); err != nil || len(got) != 2 {
			t.Errorf("%v, %v", got, err)
		}
		getErr(t, c, "none-2", ErrNotFound)
		fail = true
		if got, err := c.GetMany(t.Context(), []string{"a", "c"}); err == nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestBatchConfig(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ok := func(context.Context, []*Fill[string]) error { return nil }
	for want, change := range map[string]func(*Config[string]){
		"Loader is nil":           func(c *Config[string]) { c.BatchLoader = nil },
		"BatchSize is -1":         func(c *Config[string]) { c.BatchSize = -1 },
		"BatchSize is 65537":      func(c *Config[string]) { c.BatchSize = MaxBatchSize + 1 },
		"BatchWindow is -1ns":     func(c *Config[string]) { c.BatchWindow = -1 },
		"BatchWindow is 1s":       func(c *Config[string]) { c.BatchWindow = time.Second },
		"set without a BatchLoad": func(c *Config[string]) { c.BatchLoader, c.BatchWindow = nil, 1 },
	} {
		cfg := plainBatch(ok)
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
