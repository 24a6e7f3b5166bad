package tier

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/placement"
)

// crowd runs n Gets of key at once and returns what they got.
func crowd(t *testing.T, c *Cache[string], key string, n int) (values []string, errs []error) {
	values, errs = make([]string, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { values[i], errs[i] = c.Get(t.Context(), key) })
	}
	wg.Wait()
	return values, errs
}

func TestAloneOneLoadForAll(t *testing.T) {
	for _, takes := range []time.Duration{0, 40 * time.Millisecond} {
		for _, near := range []int64{-1, 1 << 20} {
			bubble(t, func(t *testing.T) {
				o := slow(takes)
				cfg := plain(ByKey(o.load))
				cfg.NearBytes = near
				c := open(t, cfg)
				values, errs := crowd(t, c, "k", 200)
				for i := range values {
					if values[i] != "k#1" || errs[i] != nil {
						t.Fatalf("caller %d: %q, %v", i, values[i], errs[i])
					}
				}
				o.want(t, 1)
				if s := c.Stats(); s.Loads != 1 || s.LoadsBy["cold"] != 1 || s.ResultsBy["ok"] != 1 || s.Flights != 0 {
					t.Errorf("stats %+v", s)
				}
			})
		}
	}
}

// With an instant origin most callers come after the load. None of them may start another load, including one that
// looked before the load and starts a flight after it. The same holds for an origin that fails and for one that has
// nothing.
func TestInstantLoadForAll(t *testing.T) {
	for name, fail := range map[string]error{"ok": nil, "fails": errors.New("down"), "not found": ErrNotFound} {
		t.Run(name, func(t *testing.T) {
			for round := range 20 {
				o := &counter{}
				o.setFail(fail)
				cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
					defer runtime.Gosched()
					return o.load(ctx, key)
				}))
				cfg.Freshness.ErrorTTL = time.Minute
				c, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				_, errs := crowd(t, c, "k", 200)
				for i := range errs {
					if !errors.Is(errs[i], fail) {
						t.Fatalf("round %d, caller %d: %v", round, i, errs[i])
					}
				}
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				o.want(t, 1)
			}
		})
	}
}

// A caller that looked before a fill and joins after it gets what was filled, or its error.
func TestLateStarter(t *testing.T) {
	for name, fail := range map[string]error{"ok": nil, "fails": errors.New("down"), "not found": ErrNotFound} {
		bubble(t, func(t *testing.T) {
			o := &counter{}
			o.setFail(fail)
			c := open(t, plain(ByKey(o.load)))
			_, _ = c.Get(t.Context(), "k")
			f, err := c.own.Join(&owner.Joining{Lookup: owner.Lookup{Key: "k", Hash: ring.Hash("k")}, Class: governor.Miss, Cause: placement.Cold})
			if err != nil {
				t.Fatal(err)
			}
			<-f.Done
			if o.want(t, 1); !errors.Is(f.Res.Err, fail) && !(fail == ErrNotFound && f.Res.Err == nil) {
				t.Errorf("%s: %v", name, f.Res.Err)
			}
		})
	}
}

func TestCancelHurtsNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Second)
		c := open(t, plain(ByKey(o.load)))
		first, leave := context.WithCancel(t.Context())
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for i, x := range []struct {
			ctx  context.Context
			err  error
			when time.Duration
		}{{first, context.Canceled, 100 * time.Millisecond}, {short, context.DeadlineExceeded, 300 * time.Millisecond}, {t.Context(), nil, time.Second}} {
			began := time.Now()
			wg.Go(func() {
				_, err := c.Get(x.ctx, "k")
				if !errors.Is(err, x.err) || time.Since(began) != x.when {
					t.Errorf("caller %d: %v after %v", i, err, time.Since(began))
				}
			})
			synctest.Wait() // the caller that leaves started the flight
		}
		time.Sleep(100 * time.Millisecond)
		leave()
		wg.Wait()
		o.want(t, 1)
		if s := c.Stats(); s.Left != 2 || s.FillServed != 1 {
			t.Errorf("left %d, served %d", s.Left, s.FillServed)
		}
	})
}

func TestLoadGoesOnWhenAllLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Second)
		c := open(t, plain(ByKey(o.load)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Get(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		a, err := c.Read(t.Context(), "k", ReadOptions{MaxAge: AnyAge})
		if err != nil || a.Source != SourceOwned || a.Value != "k#1" || a.Age != time.Second+time.Millisecond {
			t.Errorf("%+v, %v", a, err)
		}
		o.want(t, 1)
	})
}

// A panic of the loader, or the end of its goroutine, is an error for every waiting caller and does no other harm.
func TestLoaderDies(t *testing.T) {
	cause := errors.New("cause")
	for name, x := range map[string]struct {
		die  func()
		want error
	}{
		"panic error":  {func() { panic(cause) }, cause},
		"panic string": {func() { panic("boom") }, nil},
		"panic nil":    {func() { panic(nil) }, nil},
		"goexit":       {runtime.Goexit, ErrGoexit},
		"nested":       {func() { defer func() { panic(cause) }(); runtime.Goexit() }, cause},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var die atomic.Bool
				die.Store(true)
				c := open(t, plain(ByKey(func(context.Context, string) (string, error) {
					time.Sleep(time.Millisecond)
					if die.Load() {
						x.die()
					}
					return "v", nil
				})))
				_, errs := crowd(t, c, "k", 50)
				for _, err := range errs {
					var fe *FillError
					var pe *PanicError
					if !errors.As(err, &fe) || fe.Key != "k" || x.want != nil && !errors.Is(err, x.want) {
						t.Fatalf("got %v", err)
					}
					if x.want != ErrGoexit && (!errors.As(err, &pe) || len(pe.Stack) == 0) {
						t.Fatalf("no stack in %v", err)
					}
				}
				if s := c.Stats(); s.Running != 0 || s.Flights != 0 || s.Governor.InUse != 0 || s.Loads != 1 || s.ResultsBy["error"] != 1 {
					t.Errorf("stats %+v", s)
				}
				die.Store(false)
				time.Sleep(time.Second + time.Millisecond) // ErrorTTL
				get(t, c, "k", "v")
			})
		})
	}
}

// Callers stop waiting at Origin.Timeout, with the same error, whether or not the loader heeds its context.
func TestTimeout(t *testing.T) {
	for round := range 20 {
		for _, deaf := range []bool{false, true} {
			bubble(t, func(t *testing.T) {
				cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
					if deaf {
						time.Sleep(5 * time.Second)
						return "late", nil
					}
					<-ctx.Done()
					return "", fmt.Errorf("query: %w", ctx.Err())
				}))
				cfg.Origin.Timeout = time.Second
				c := open(t, cfg)
				began := time.Now()
				_, errs := crowd(t, c, "k", 10)
				if took := time.Since(began); took != time.Second {
					t.Fatalf("round %d: waited %v", round, took)
				}
				for _, err := range errs {
					if !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("round %d, deaf %v: %v", round, deaf, err)
					}
				}
				synctest.Wait()
				if s := c.Stats(); s.ResultsBy["timeout"] != 1 || deaf != (s.Governor.InUse == 1) || deaf != (s.Running == 1) {
					t.Fatalf("round %d, deaf %v: %+v", round, deaf, s)
				}
				time.Sleep(4 * time.Second)
				synctest.Wait()
				if s := c.Stats(); s.Governor.InUse != 0 || s.Running != 0 {
					t.Fatalf("permits: %+v", s.Governor)
				}
			})
		}
	}
}

// Loads that hang hold their permits, and at most owner.MaxRunning loads of one key run.
func TestHungLoadsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		free := make(chan struct{})
		var running, most atomic.Int64
		cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
			if key == "other" {
				return "v", nil
			}
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-free
			return "late", nil
		}))
		cfg.Origin = Origin{Concurrency: 10, Timeout: time.Second}
		cfg.Freshness.ErrorTTL = -1
		c := open(t, cfg)
		for i := range 6 {
			began := time.Now()
			_, err := c.Get(t.Context(), "k")
			if want := []error{ErrTimeout, ErrOverloaded}[min(i/owner.MaxRunning, 1)]; !errors.Is(err, want) {
				t.Errorf("call %d: %v, want %v", i, err, want)
			}
			if took := time.Since(began); took != time.Second {
				t.Errorf("call %d took %v", i, took)
			}
		}
		if g := c.Stats().Governor; g.InUse != owner.MaxRunning || most.Load() != owner.MaxRunning {
			t.Errorf("in use %d, most at once %d", g.InUse, most.Load())
		}
		get(t, c, "other", "v")
		waits := make(chan error)
		go func() { _, err := c.Get(t.Context(), "k"); waits <- err }()
		synctest.Wait()
		close(free) // the flight that waits for its turn gets it
		if err := <-waits; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if s := c.Stats(); s.Governor.InUse != 0 || s.Running != 0 || s.ResultsBy["overran"] != 2 {
			t.Errorf("%+v", s)
		}
	})
}
