package owner_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// numbered returns a loader that takes a second and returns the number of the load.
func numbered(n *atomic.Int64) loader {
	return func(ctx context.Context, _ *owner.Run, key string) ([]byte, error) {
		i := n.Add(1)
		return fmt.Appendf(nil, "%s%d", key, i), owner.Sleep(ctx, time.Second)
	}
}

func TestOneLoadForAll(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var n atomic.Int64
		c := alone(t, numbered(&n), nil)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if v, err := c.read(background, "k"); v != "k1" || err != nil {
					t.Errorf("%q, %v", v, err)
				}
			})
		}
		wg.Wait()
		if v, err := c.read(background, "k"); v != "k1" || err != nil || n.Load() != 1 || c.Stats.Served.Load() != 100 {
			t.Errorf("%q, %v, %d loads that served %d callers", v, err, n.Load(), c.Stats.Served.Load())
		}
	})
}

// A caller that comes after a fence does not get what was loaded before it, and nothing of that is stored.
func TestFenceDetachesTheFlight(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var n atomic.Int64
		c := alone(t, numbered(&n), nil)
		var wg sync.WaitGroup
		wg.Go(func() {
			if v, err := c.read(background, "k"); v != "k1" || err != nil {
				t.Errorf("before the fence: %q, %v", v, err)
			}
		})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		c.invalidate("k")
		for range 2 { // while the first load runs, and once it has returned
			if v, err := c.read(background, "k"); v != "k2" || err != nil {
				t.Errorf("after the fence: %q, %v", v, err)
			}
		}
		wg.Wait()
		if v, _ := c.read(background, "k"); v != "k2" || n.Load() != 2 {
			t.Errorf("%q after %d loads", v, n.Load())
		}
	})
}

// A caller that comes after an invalidation of a tag does not get what was loaded before it, whether the loader declares
// the tag before or after the invalidation.
func TestTagDetachesTheFlight(t *testing.T) {
	for name, declared := range map[string]time.Duration{"before": 0, "after": 700 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var n atomic.Int64
				c := alone(t, func(ctx context.Context, r *owner.Run, key string) ([]byte, error) {
					_ = owner.Sleep(ctx, declared)
					r.AddTag(fence.TagHash("t"))
					return numbered(&n)(ctx, r, key)
				}, nil)
				var wg sync.WaitGroup
				wg.Go(func() {
					if v, err := c.read(background, "k"); v != "k1" || err != nil {
						t.Errorf("before the invalidation: %q, %v", v, err)
					}
				})
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				c.invalidateTag("t")
				began := time.Now()
				if v, err := c.read(background, "k"); v != "k2" || err != nil || time.Since(began) > declared+1200*time.Millisecond {
					t.Errorf("%q, %v after %v", v, err, time.Since(began))
				}
				wg.Wait()
			})
		})
	}
}

// A load that fails is answered with the copy that StaleIfError allows; without one the error is remembered.
func TestFailedLoads(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var n atomic.Int64
		fail := errors.New("down")
		c := alone(t, func(_ context.Context, _ *owner.Run, key string) ([]byte, error) {
			if n.Add(1) > 1 || key == "new" {
				return nil, fail
			}
			return []byte("v"), nil
		}, nil)
		if v, err := c.read(background, "old"); v != "v" || err != nil {
			t.Fatal(v, err)
		}
		time.Sleep(time.Minute + time.Second)
		if v, err := c.read(background, "old"); v != "v" || err != nil || c.Stats.Rescued.Load() != 1 {
			t.Errorf("%q, %v, %d rescued", v, err, c.Stats.Rescued.Load())
		}
		loads := n.Load()
		for range 3 {
			if _, err := c.read(background, "new"); !errors.Is(err, fail) {
				t.Error(err)
			}
		}
		if got := n.Load() - loads; got != 1 {
			t.Errorf("%d loads of a key whose error is remembered", got)
		}
		time.Sleep(time.Minute)
		if _, err := c.read(background, "old"); !errors.Is(err, fail) {
			t.Errorf("past its hard expiry: %v", err)
		}
	})
}

// A loader's panic, its end by Goexit and its overrun are errors of every waiting caller; the overrun keeps its permit.
func TestLoadersThatMisbehave(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		c := alone(t, func(_ context.Context, _ *owner.Run, key string) ([]byte, error) {
			switch key {
			case "panics":
				panic("x")
			case "hangs":
				<-hang
			}
			return []byte("v"), nil
		}, nil)
		if _, err := c.read(background, "panics"); err == nil || err.Error() != "panic: x" {
			t.Error(err)
		}
		began := time.Now()
		if _, err := c.read(background, "hangs"); !errors.Is(err, owner.ErrTimeout) || time.Since(began) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if n := c.Governor.Running(); n != 1 {
			t.Errorf("%d permits are held by a load that hangs", n)
		}
		close(hang)
		synctest.Wait()
		if n := c.Governor.Running(); n != 0 {
			t.Errorf("%d permits are held once it has returned", n)
		}
	})
}

// A load that failed with a retryable error is repeated, as often as Retry.Most says.
func TestRetries(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var n atomic.Int64
		c := alone(t, func(_ context.Context, _ *owner.Run, key string) ([]byte, error) {
			if i := n.Add(1); key == "never" || i < 3 {
				return nil, owner.Retryable(errors.New("busy"))
			}
			return []byte("v"), nil
		}, nil)
		if v, err := c.read(background, "third"); v != "v" || err != nil || n.Load() != 3 {
			t.Errorf("%q, %v after %d loads", v, err, n.Load())
		}
		if _, err := c.read(background, "never"); err == nil || n.Load() != 6 {
			t.Errorf("%v after %d loads", err, n.Load())
		}
	})
}

// Not more loads run than there are permits, and a caller that cannot wait is refused.
func TestPermits(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var n, running, most atomic.Int64
		c := alone(t, func(ctx context.Context, _ *owner.Run, key string) ([]byte, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			n.Add(1)
			return []byte(key), owner.Sleep(ctx, time.Second)
		}, nil)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { _, _ = c.read(background, fmt.Sprint(i)) })
		}
		time.Sleep(time.Millisecond)
		wg.Wait()
		if n.Load() != 10 || most.Load() != 2 {
			t.Errorf("%d loads, %d at once", n.Load(), most.Load())
		}
	})
}

// Flights whose keys are missed together share one call of the batch loader and one permit, and commit one by one.
func TestBatch(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, func(_ context.Context, _ *owner.Run, key string) ([]byte, error) {
			if key == "b" {
				return nil, owner.ErrNotFound
			}
			return []byte(key), nil
		}, func(cfg *setup) { cfg.Batches, cfg.BatchSize = true, 10 })
		reads := []*owner.OwnedRead{{Key: "a", Hash: ring.Hash("a")}, {Key: "b", Hash: ring.Hash("b")}, {Key: "c", Hash: ring.Hash("c")}}
		began, wide := c.Clock.Now(), c.Fences.TagClock()
		c.JoinFlights(background, reads, nil)
		c.AwaitFlights(background, reads, nil, wide, began)
		for _, r := range reads {
			missing := r.Err == nil && r.F.E.Flags&store.NotFound != 0
			if r.Err != nil || missing != (r.Key == "b") || !missing && string(r.F.E.Value) != r.Key {
				t.Errorf("%s: %+v, %v", r.Key, r.F.E, r.Err)
			}
		}
		if c.Stats.Batches.Load() != 1 || c.Stats.Loads() != 3 {
			t.Errorf("%d batches, %d loads", c.Stats.Batches.Load(), c.Stats.Loads())
		}
	})
}

// A closed Owner starts nothing, and Close waits for the loads that run.
func TestClose(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		returned := false
		c := alone(t, func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			returned = true
			return nil, ctx.Err()
		}, nil)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.read(background, "k"); !errors.Is(err, owner.ErrClosed) {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		c.Life.Close()
		c.Cancel()
		if err := c.Life.Wait(background); err != nil || !returned {
			t.Errorf("%v, the load has returned: %v", err, returned)
		}
		wg.Wait()
		if _, err := c.read(background, "other"); !errors.Is(err, owner.ErrClosed) {
			t.Error(err)
		}
	})
}

// The time of a flight ends between two attempts: after the first has returned its permit, or at the moment when the
// next one gets a permit. The flight does not load again, and leaves nothing behind.
func TestRetryTooLate(t *testing.T) {
	for name, passes := range map[string]int32{"before the next attempt": 0, "as it gets its permit": 1} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var n atomic.Int64
				var left atomic.Int32 // calls to the governor until one takes longer than the flight may
				c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) {
					n.Add(1)
					time.Sleep(500 * time.Millisecond)
					left.Store(passes + 1)
					return nil, owner.Retryable(errors.New("busy"))
				}, func(cfg *setup) {
					cfg.Origin.Retry.Backoff = 0
					cfg.Share = func() (int, int) {
						if left.Add(-1) == 0 {
							time.Sleep(20 * time.Second)
						}
						return 2, 1
					}
				})
				const flights = 20 // each of them may notice its end while it pauses, or after that
				for range flights {
					began := time.Now()
					if _, err := c.read(background, "k"); !errors.Is(err, owner.ErrTimeout) || time.Since(began) != 10*time.Second {
						t.Errorf("%v after %v", err, time.Since(began))
					}
					time.Sleep(20 * time.Second)
				}
				if n.Load() != flights {
					t.Errorf("%d loads by %d flights: a finished flight loads again", n.Load(), flights)
				}
				if retries := c.Stats.Retries.Load(); retries != flights {
					t.Errorf("%d attempts were to follow, want %d", retries, flights)
				}
				live, running := c.Flights.Size()
				if permits := c.Governor.Running(); live != 0 || running != 0 || permits != 0 {
					t.Errorf("%d flights are live, %d loads run, %d permits are held", live, running, permits)
				}
			})
		})
	}
}

// A flight that was fenced while it loaded does not load again: later callers have a flight of their own.
func TestFencedFlightDoesNotRetry(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var n atomic.Int64
		busy := errors.New("busy")
		c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) {
			n.Add(1)
			time.Sleep(time.Second)
			return nil, owner.Retryable(busy)
		}, nil)
		time.AfterFunc(500*time.Millisecond, func() { c.invalidate("k") })
		if _, err := c.read(background, "k"); !errors.Is(err, busy) || n.Load() != 1 {
			t.Errorf("%v after %d loads", err, n.Load())
		}
	})
}
