package owner_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// batches records the calls of a batch loader and gives each call to a function.
type batches struct {
	bytesRuns
	call func(ctx context.Context, fills []owner.Loading) error

	mu    sync.Mutex // guards calls
	calls [][]string
}

func (v *batches) LoadBatch(ctx context.Context, fills []owner.Loading) error {
	var keys []string
	for _, f := range fills {
		keys = append(keys, f.(*bytesRun).key)
	}
	v.mu.Lock()
	v.calls = append(v.calls, keys)
	v.mu.Unlock()
	return v.call(ctx, fills)
}

// sizes returns how many keys each call had.
func (v *batches) sizes() (sizes []int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, keys := range v.calls {
		sizes = append(sizes, len(keys))
	}
	return sizes
}

// fillAll sets all fills to their keys.
func fillAll(fills []owner.Loading) {
	for _, f := range fills {
		r := f.(*bytesRun)
		r.value, r.run.Done = []byte(r.key), true
	}
}

// batched returns an Owner with a batch loader of three keys at most.
func batched(t *testing.T, call func(ctx context.Context, fills []owner.Loading) error, change func(*setup)) (node, *batches) {
	t.Helper()
	v := &batches{call: call}
	c := alone(t, constant, func(s *setup) {
		runs := s.Values.(*bytesRuns)
		v.of, v.load = runs.of, runs.load
		s.Values, s.Batches, s.BatchSize, s.Freshness.ErrorTTL = v, true, 3, 0
		if change != nil {
			change(s)
		}
	})
	return c, v
}

// readMany reads keys as one multi-get.
func (c node) readMany(ctx context.Context, chain []uint64, keys ...string) (reads []*owner.OwnedRead) {
	for _, key := range keys {
		reads = append(reads, &owner.OwnedRead{Key: key, Hash: ring.Hash(key)})
	}
	var missing []*owner.OwnedRead
	began, wide := c.Clock.Now(), c.Fences.TagClock()
	for _, r := range reads {
		if !c.LookUp(r, chain, began) {
			missing = append(missing, r)
		}
	}
	c.JoinFlights(ctx, missing, chain)
	c.AwaitFlights(ctx, missing, chain, wide, began)
	return reads
}

// idle fails the test if something that loads was left behind.
func (c node) idle(t *testing.T) {
	t.Helper()
	synctest.Wait()
	live, running := c.Flights.Size()
	if permits := c.Governor.Running(); live != 0 || running != 0 || permits != 0 {
		t.Errorf("%d flights are live, %d loads run, %d permits are held", live, running, permits)
	}
}

// Keys that are missed together are loaded in groups of BatchSize; a key that is left alone is loaded by itself.
func TestBatchSizes(t *testing.T) {
	for n, want := range map[int][]int{1: nil, 2: {2}, 3: {3}, 4: {3}, 7: {3, 3}} {
		simtime.Test(t, func(t *testing.T) {
			c, v := batched(t, func(ctx context.Context, fills []owner.Loading) error {
				fillAll(fills)
				return owner.Sleep(ctx, time.Second)
			}, nil)
			time.Sleep(time.Minute)
			var keys []string
			for i := range n {
				keys = append(keys, fmt.Sprint(i))
			}
			began := c.Clock.Now()
			for _, r := range c.readMany(background, nil, keys...) {
				alone := n%3 == 1 && r.Key == keys[n-1]
				if cost := r.F.E.Cost; r.Err != nil || string(r.F.E.Value) != r.Key || !alone && (cost != time.Second || r.At != began+second) || r.F.E.Loaded != began {
					t.Errorf("%s: %+v, %v at %d", r.Key, r.F.E, r.Err, r.At-began)
				}
			}
			if got := v.sizes(); !slices.Equal(got, want) || c.Stats.Loads() != int64(n) || c.Stats.Batches.Load() != int64(len(want)) {
				t.Errorf("%d keys: calls of %v, %d loads", n, got, c.Stats.Loads())
			}
			c.idle(t)
		})
	}
}

// Single misses wait for BatchWindow, or until BatchSize of them are there, and are then loaded together. A miss that a load
// waits for does not wait.
func TestBatchWindow(t *testing.T) {
	for name, x := range map[string]struct {
		window time.Duration
		keys   int
		chain  []uint64
		want   []int
		after  time.Duration
	}{
		"the window ends":          {time.Second, 2, nil, []int{2}, time.Second},
		"as many as a batch takes": {time.Second, 3, nil, []int{3}, 0},
		"one more":                 {time.Second, 4, nil, []int{3}, time.Second},
		"one key":                  {time.Second, 1, nil, nil, time.Second},
		"no window":                {0, 3, nil, nil, 0},
		"for a load":               {time.Second, 2, []uint64{1}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c, v := batched(t, func(_ context.Context, fills []owner.Loading) error { fillAll(fills); return nil }, func(s *setup) { s.BatchWindow = x.window })
				began := time.Now()
				var wg sync.WaitGroup
				for i := range x.keys {
					wg.Go(func() {
						key := fmt.Sprint(i)
						f, err := c.GetOwnedFor(background, &owner.Lookup{Key: key, Hash: ring.Hash(key), MaxAge: owner.AnyAge, Chain: x.chain})
						if err != nil || string(f.E.Value) != key {
							t.Errorf("%+v, %v", f, err)
						}
					})
				}
				wg.Wait()
				if got := v.sizes(); !slices.Equal(got, x.want) || time.Since(began) != x.after || c.Stats.Loads() != int64(x.keys) {
					t.Errorf("calls of %v after %v, %d loads", got, time.Since(began), c.Stats.Loads())
				}
				time.Sleep(2 * time.Second) // an earlier window's end does not close a later group
				began = time.Now()
				if _, err := c.read(background, "later"); err != nil || time.Since(began) != x.window {
					t.Errorf("a later miss: %v after %v", err, time.Since(began))
				}
				c.idle(t)
			})
		})
	}
}

// The window of a group that was full does not close the next one early.
func TestWindowOfAFullGroup(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c, v := batched(t, func(_ context.Context, fills []owner.Loading) error { fillAll(fills); return nil }, func(s *setup) { s.BatchWindow = time.Second })
		var wg sync.WaitGroup
		read := func(key string) { wg.Go(func() { _, _ = c.read(background, key) }) }
		read("a")
		time.Sleep(600 * time.Millisecond)
		read("b")
		read("c")
		read("d")
		time.Sleep(600 * time.Millisecond)
		read("e")
		wg.Wait()
		if got := v.sizes(); !slices.Equal(got, []int{3, 2}) {
			t.Errorf("calls of %v", got)
		}
	})
}

// How one fill ends does not affect the others of its batch; what the loader does to all of them does.
func TestBatchOutcomes(t *testing.T) {
	each := func(f owner.Loading, err error) { s := f.State(); s.Err, s.Done = err, true }
	for name, x := range map[string]struct {
		call   func(ctx context.Context, fills []owner.Loading) error
		want   [3]error // by key: the error, nil for the value
		result counters.Result
		opens  bool // the breaker
	}{
		"all": {func(_ context.Context, fills []owner.Loading) error { fillAll(fills); return nil }, [3]error{}, counters.ResultOK, false},
		"one is absent": {func(_ context.Context, fills []owner.Loading) error {
			fillAll(fills)
			each(fills[1], owner.ErrNotFound)
			return nil
		}, [3]error{1: owner.ErrNotFound}, counters.ResultNotFound, false},
		"one fails": {func(_ context.Context, fills []owner.Loading) error {
			fillAll(fills)
			each(fills[1], errOrigin)
			return nil
		}, [3]error{1: errOrigin}, counters.ResultError, false},
		"each fails": {func(_ context.Context, fills []owner.Loading) error {
			for _, f := range fills {
				each(f, errOrigin)
			}
			return nil
		}, [3]error{errOrigin, errOrigin, errOrigin}, counters.ResultError, true},
		"one is left out":        {func(_ context.Context, fills []owner.Loading) error { fillAll(fills[:2]); return nil }, [3]error{2: owner.ErrUnset}, counters.ResultError, false},
		"the call fails":         {func(_ context.Context, fills []owner.Loading) error { fillAll(fills[:1]); return errOrigin }, [3]error{1: errOrigin, 2: errOrigin}, counters.ResultError, true},
		"the call is blamed not": {func(context.Context, []owner.Loading) error { return owner.Blameless(errOrigin) }, [3]error{errOrigin, errOrigin, errOrigin}, counters.ResultError, false},
		"the loader panics":      {func(context.Context, []owner.Loading) error { panic("x") }, [3]error{errPanic, errPanic, errPanic}, counters.ResultError, true},
		"it ends its goroutine":  {func(context.Context, []owner.Loading) error { runtime.Goexit(); return nil }, [3]error{owner.ErrGoexit, owner.ErrGoexit, owner.ErrGoexit}, counters.ResultError, true},
		"its time ends": {func(ctx context.Context, _ []owner.Loading) error { <-ctx.Done(); return ctx.Err() },
			[3]error{owner.ErrTimeout, owner.ErrTimeout, owner.ErrTimeout}, counters.ResultTimeout, true},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c, _ := batched(t, x.call, func(s *setup) { s.Permits.Breaker.Minimum = 1 })
				reads := c.readMany(background, nil, "0", "1", "2")
				var failed int64
				for i, r := range reads {
					err := r.Err
					if err == nil && r.F.E.Flags&store.NotFound != 0 {
						err = owner.ErrNotFound
					}
					if x.want[i] == errPanic {
						if err == nil || errors.Unwrap(err).Error() != "panic: x" {
							t.Errorf("%s: %v", r.Key, err)
						}
						failed++
					} else if !errors.Is(err, x.want[i]) || err == nil && string(r.F.E.Value) != r.Key {
						t.Errorf("%s: %v", r.Key, err)
					} else if err != nil || x.result == counters.ResultOK {
						failed++
					}
				}
				if got := c.Stats.Results[x.result].Load(); got != failed {
					t.Errorf("%d counted as %s, want %d", got, counters.ResultNames[x.result], failed)
				}
				c.idle(t)
				if closed, _ := c.Governor.Breaker(); closed == x.opens {
					t.Errorf("the breaker is closed: %v", closed)
				}
			})
		})
	}
}

var errPanic = errors.New("panic")

// Only the fills of a batch that failed with a retryable error are loaded again, as often as Retry.Most says, and the retries
// of a batch count as one for the budget.
func TestBatchRetries(t *testing.T) {
	for name, x := range map[string]struct {
		fails   map[string]int // how often each key fails before it is loaded
		most    int
		budget  float64
		backoff time.Duration
		fenced  bool // key 1, while the first call runs
		want    []int
		errs    [3]bool
		noRetry int64
	}{
		"none":               {nil, 2, 1, 0, false, []int{3}, [3]bool{}, 0},
		"one":                {map[string]int{"1": 1}, 2, 1, 0, false, []int{3, 1}, [3]bool{}, 0},
		"as often as it may": {map[string]int{"0": 1, "1": 2}, 2, 1, 0, false, []int{3, 2, 1}, [3]bool{}, 0},
		"once too often":     {map[string]int{"1": 3}, 2, 1, 0, false, []int{3, 1, 1}, [3]bool{1: true}, 0},
		"never":              {map[string]int{"1": 1}, 0, 1, 0, false, []int{3}, [3]bool{1: true}, 0},
		"no budget":          {map[string]int{"0": 1, "1": 1}, 2, -1, 0, false, []int{3}, [3]bool{0: true, 1: true}, 1},
		"not in time":        {map[string]int{"1": 1}, 2, 1, 9 * time.Second, false, []int{3}, [3]bool{1: true}, 0},
		"just in time":       {map[string]int{"1": 1}, 2, 1, 9*time.Second - 1, false, []int{3, 1}, [3]bool{}, 0},
		"fenced meanwhile":   {map[string]int{"0": 1, "1": 1}, 2, 1, 0, true, []int{3, 1}, [3]bool{1: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				tries := make(map[string]int)
				var runs atomic.Int64
				var c node
				c, v := batched(t, func(ctx context.Context, fills []owner.Loading) error {
					runs.Add(1)
					_ = owner.Sleep(ctx, time.Second)
					for _, f := range fills {
						r := f.(*bytesRun)
						r.run.Done, r.value = true, []byte(r.key)
						if tries[r.key]++; tries[r.key] <= x.fails[r.key] {
							r.run.Err = owner.Retryable(errOrigin)
						}
					}
					return nil
				}, func(s *setup) {
					s.Origin.Retry, s.Permits.RetryBudget, s.Seed = owner.RetryRules{Most: x.most, Backoff: x.backoff}, x.budget, 1
				})
				time.AfterFunc(500*time.Millisecond, func() {
					if x.fenced {
						c.invalidate("1")
					}
				})
				for i, r := range c.readMany(background, nil, "0", "1", "2") {
					if errors.Is(r.Err, errOrigin) != x.errs[i] || r.Err == nil && string(r.F.E.Value) != r.Key {
						t.Errorf("%s: %v", r.Key, r.Err)
					}
				}
				var again, loads int64
				for i, n := range x.want {
					if loads += int64(n); i > 0 {
						again += int64(n)
					}
				}
				if got := v.sizes(); !slices.Equal(got, x.want) || c.Stats.Retries.Load() != again || c.Stats.NoRetry.Load() != x.noRetry || c.Stats.Loads() != loads {
					t.Errorf("calls of %v, %d retries, %d without budget, %d loads", got, c.Stats.Retries.Load(), c.Stats.NoRetry.Load(), c.Stats.Loads())
				}
				c.idle(t)
			})
		})
	}
}

// A key whose earlier loads have not returned does not keep the others of its batch waiting, nor does one that was filled
// meanwhile; a batch that gets no permit is rejected as a whole.
func TestBatchMembersThatCannotLoad(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var permits atomic.Int64
		permits.Store(9)
		c, v := batched(t, func(_ context.Context, fills []owner.Loading) error {
			if fills[0].(*bytesRun).key == "busy" {
				<-hang
			}
			fillAll(fills)
			return nil
		}, func(s *setup) {
			s.Permits.Concurrency, s.Share = 9, func() (int, int) { return int(permits.Load()), 1 }
		})
		for range owner.MaxRunning {
			for _, r := range c.readMany(background, nil, "busy", "busy too") {
				if !errors.Is(r.Err, owner.ErrTimeout) {
					t.Error(r.Err)
				}
			}
		}
		began := time.Now()
		reads := c.readMany(background, nil, "a", "busy", "b")
		if reads[0].Err != nil || reads[2].Err != nil || !errors.Is(reads[1].Err, owner.ErrOverloaded) || time.Since(began) != 10*time.Second {
			t.Errorf("%v, %v, %v after %v", reads[0].Err, reads[1].Err, reads[2].Err, time.Since(began))
		}
		if e, _ := c.Owned.Get("a"); e == nil || time.Duration(c.Clock.Now()-e.Loaded) != 10*time.Second {
			t.Errorf("%+v", e)
		}
		for _, r := range c.readMany(background, nil, "busy", "busy too") { // none of them can be loaded together
			if !errors.Is(r.Err, owner.ErrOverloaded) {
				t.Error(r.Err)
			}
		}
		close(hang)
		c.idle(t)
		calls := len(v.sizes())
		late := []*owner.OwnedRead{{Key: "x", Hash: ring.Hash("x")}, {Key: "y", Hash: ring.Hash("y")}, {Key: "z", Hash: ring.Hash("z")}}
		c.plant("x", store.Entry{Value: []byte("x"), Soft: second, SWR: second, Hard: second})
		c.plant("y", store.Entry{Flags: store.Failed, Soft: second, SWR: second, Hard: second, Rare: &store.Rare{Err: errRemembered}})
		c.plant("z", store.Entry{Value: []byte("expired"), Soft: 0, SWR: second, Hard: second})
		c.JoinFlights(background, late, nil)
		c.AwaitFlights(background, late, nil, c.Fences.TagClock(), c.Clock.Now())
		if late[0].Err != nil || late[0].F.E.Cost != 0 || !errors.Is(late[1].Err, errRemembered) || late[2].Err != nil || string(late[2].F.E.Value) != "z" || len(v.sizes()) != calls+1 {
			t.Errorf("%v, %v, %v; calls of %v", late[0].Err, late[1].Err, late[2].Err, v.sizes())
		}
		permits.Store(0)
		for _, r := range c.readMany(background, nil, "p", "q") {
			if refusal, ok := (plainErrors{}).AsRefused(r.Err); !ok || refusal.Why != governor.NoShare {
				t.Error(r.Err)
			}
		}
		permits.Store(9)
		for _, r := range c.readMany(background, nil, "p", "q") {
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
		c.idle(t)
	})
}

// A load of a batch that reads a key of the same batch waits for itself.
func TestCycleWithinABatch(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var c node
		var nested, many error
		c, _ = batched(t, func(ctx context.Context, fills []owner.Loading) error {
			chain := governor.ChainOf(ctx)
			_, nested = c.GetOwnedFor(ctx, &owner.Lookup{Key: "b", Hash: ring.Hash("b"), MaxAge: owner.AnyAge, Chain: chain})
			many = c.readMany(ctx, chain, "b")[0].Err
			if r := c.readMany(ctx, chain, "other")[0]; r.Err != nil {
				t.Error(r.Err)
			}
			fillAll(fills)
			return nil
		}, nil)
		for _, r := range c.readMany(background, nil, "a", "b") {
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
		if !errors.Is(nested, owner.ErrCycle) || !errors.Is(many, owner.ErrCycle) {
			t.Errorf("%v, %v", nested, many)
		}
		c.idle(t)
	})
}

// A batch that ends because its cache closes says nothing against the origin, and its callers learn why.
func TestCloseDuringABatch(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c, _ := batched(t, func(ctx context.Context, _ []owner.Loading) error { <-ctx.Done(); return ctx.Err() },
			func(s *setup) { s.Permits.Breaker.Minimum = 1 })
		time.AfterFunc(time.Second, func() { c.Life.Close(); c.Cancel() })
		for _, r := range c.readMany(background, nil, "a", "b") {
			if !errors.Is(r.Err, owner.ErrClosed) {
				t.Error(r.Err)
			}
		}
		_ = c.Life.Wait(background)
		if closed, _ := c.Governor.Breaker(); !closed {
			t.Error("the breaker has opened")
		}
		for _, r := range c.readMany(background, nil, "a", "b") {
			if r.Err != owner.ErrClosed {
				t.Error(r.Err)
			}
		}
	})
}
