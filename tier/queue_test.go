package tier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/governor"
)

// shedWhy returns why the governor rejected the fill; None if it did not.
func shedWhy(err error) governor.Reason {
	var over *OverloadedError
	if !errors.As(err, &over) {
		return governor.None
	}
	return over.why
}

// A caller that cannot be served before its deadline is rejected at once, not at the deadline.
func TestDeadlineRefusedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(100 * time.Millisecond)
		cfg := plain(ByKey(o.load))
		cfg.Origin = Origin{Concurrency: 1, QueueInterval: -1}
		c := open(t, cfg)
		get(t, c, "a", "a#1") // now the duration of a load is known
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, _ = c.Get(ctx, fmt.Sprint(i))
			})
		}
		synctest.Wait()
		ask := func(patience time.Duration) (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			_, err := c.Get(ctx, "late")
			return time.Since(began), err
		}
		took, err := ask(300 * time.Millisecond) // four wait before it
		if shedWhy(err) != governor.Deadline || took != 0 {
			t.Errorf("%v after %v", err, took)
		}
		var over *OverloadedError
		if errors.As(err, &over); over.RetryAfter < 400*time.Millisecond || over.RetryAfter > 600*time.Millisecond {
			t.Errorf("retry after %v", over.RetryAfter)
		}
		if took, err = ask(time.Second); err != nil || took != 600*time.Millisecond {
			t.Errorf("who has time enough: %v after %v", err, took)
		}
		wg.Wait()
		if s := c.Stats(); s.Ledger.ShedBy["deadline"] != 1 || s.Shed != 1 || s.Ledger.Doomed != 0 {
			t.Errorf("%+v", s.Ledger)
		}
	})
}

// A caller with a deadline beyond Origin.Timeout waits for its turn until the deadline.
func TestDeadlineBeyondTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(slow(900 * time.Millisecond).load))
		cfg.Origin = Origin{Concurrency: 1, MinConcurrency: 1, Timeout: time.Second}
		c := open(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				if _, err := c.Get(ctx, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// Loads never exceed the rate, whatever comes, and use it up.
func TestRateIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Millisecond)
		cfg := plain(ByKey(o.load))
		cfg.Origin = Origin{Concurrency: 1000, Rate: 50, Burst: 5}
		c := open(t, cfg)
		var wg sync.WaitGroup
		began := time.Now()
		for i := range 10000 {
			wg.Go(func() { _, _ = c.Get(t.Context(), fmt.Sprint(i)) })
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		if n := o.n.Load(); n < 495 || n > 511 {
			t.Errorf("%d loads in %v of 50/s", n, time.Since(began))
		}
		if g := c.Stats().Governor; g.InUse != 0 || g.Waiting != 0 {
			t.Errorf("%+v", g)
		}
	})
}

// The breaker opens while the origin fails. Then the origin is left alone, stale copies are served, and other callers
// get a time to retry after. The breaker closes by itself when the origin is back.
func TestBreakerInACache(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(10 * time.Millisecond)
		cfg := plain(ByKey(o.load))
		cfg.Freshness.StaleIfError = time.Hour
		c := open(t, cfg)
		get(t, c, "old", "old#1")
		time.Sleep(2 * time.Minute)
		o.setFail(errDown)
		before := o.n.Load()
		var refused int
		for i := range 1000 { // ten a second
			_, err := c.Get(t.Context(), fmt.Sprint(i))
			if err == nil {
				t.Fatal("a value")
			}
			var over *OverloadedError
			if errors.As(err, &over) {
				refused++
				if over.RetryAfter <= 0 || over.RetryAfter > 5*time.Second {
					t.Fatalf("retry after %v", over.RetryAfter)
				}
			}
			if v, err := c.Get(t.Context(), "old"); err != nil || v != "old#1" {
				t.Fatalf("the stale copy: %q, %v", v, err)
			}
			time.Sleep(90 * time.Millisecond)
		}
		failing := o.n.Load() - before
		t.Logf("100 s of failures: %d loads, %d refused", failing, refused)
		if failing < 20 || failing > 60 || refused < 900 {
			t.Errorf("%d loads, %d refused", failing, refused)
		}
		o.setFail(nil)
		time.Sleep(6 * time.Second)
		for i := range 10 {
			if _, err := c.Get(t.Context(), fmt.Sprint("back", i)); err != nil {
				t.Errorf("after the recovery: %v", err)
			}
		}
		if g := c.Stats().Governor; g.Breaker != "closed" || g.BreakerOpenings == 0 {
			t.Errorf("%+v", g)
		}
	})
}

// Bad keys do not shut the origin off for the other keys.
func TestBlameless(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bad := errors.New("no such format")
		for _, mark := range []bool{true, false} {
			c := open(t, plain(ByKey(func(_ context.Context, key string) (string, error) {
				if key == "good" {
					return "v", nil
				}
				if mark {
					return "", fmt.Errorf("parse: %w", Blameless(bad))
				}
				return "", bad
			})))
			for i := range 100 {
				_, err := c.Get(t.Context(), fmt.Sprint(i))
				if mark {
					if !errors.Is(err, bad) {
						t.Fatal(err)
					}
				}
			}
			if _, err := c.Get(t.Context(), "good"); (err == nil) != mark {
				t.Errorf("marked %v: the good key: %v", mark, err)
			}
		}
	})
	if Blameless(nil) != nil || Retryable(nil) != nil {
		t.Error("nil is marked")
	}
}

// At most Concurrency loads run on all members together, however loads come and whatever happens to them and to the
// members. The test includes shared origins, hung and failing loads, retries, breakers and rates.
func TestClusterCapIsNeverExceeded(t *testing.T) {
	for round := range 12 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Logf("seed %d", seed)
			bubble(t, func(t *testing.T) { clusterCap(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func clusterCap(t *testing.T, rnd *rand.Rand) {
	members := 1 + rnd.IntN(4)
	limit := members + rnd.IntN(6)
	o := Origin{Concurrency: limit, MinConcurrency: limit, Timeout: time.Second, Queue: 20, Breaker: Breaker{Failures: 0.9, Pause: time.Second}}
	if rnd.IntN(2) == 0 {
		o.Rate, o.QueueInterval = 100, -1
	}
	sim := newSim(t, members)
	var running, most atomic.Int64
	slowest := []int{100, 1500, 3000}[rnd.IntN(3)]
	loader := func(local *rand.Rand, mu *sync.Mutex) Loader[simValue] {
		return func(ctx context.Context, f *Fill[simValue]) (v simValue, err error) {
			n := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			mu.Lock()
			d, fate := time.Duration(1+local.IntN(slowest))*time.Millisecond, local.IntN(20)
			mu.Unlock()
			time.Sleep(d) // it ignores ctx, and often takes longer than the timeout
			switch fate {
			case 0:
				panic("boom")
			case 1, 2, 3:
				return v, Retryable(errDown)
			case 4:
				return v, errDown
			}
			return v, nil
		}
	}
	var caches []*Cache[simValue]
	for i, name := range sim.names {
		sim.nodes[name].divisor = [2]int{members, i}
		shared, err := NewSharedOrigin("db", o)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex // guards the loaders' randomness
		local := rand.New(rand.NewPCG(rnd.Uint64(), 3))
		for _, ns := range []string{"a", "b"} {
			caches = append(caches, sim.open(name, nil, Config[simValue]{
				Namespace: ns, SharedOrigin: shared, Loader: loader(local, &mu),
				Freshness: Freshness{TTL: time.Second, StaleWhileRevalidate: time.Second, StaleIfError: 5 * time.Second, SoftTimeout: 50 * time.Millisecond, ErrorTTL: time.Millisecond},
			}))
		}
	}
	var wg sync.WaitGroup
	for range 40 {
		local := rand.New(rand.NewPCG(rnd.Uint64(), 2))
		wg.Go(func() {
			for range 30 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+local.IntN(3000))*time.Millisecond)
				_, err := caches[local.IntN(len(caches))].Read(ctx, fmt.Sprint("k", local.IntN(60)), ReadOptions{MaxAge: time.Duration(local.IntN(3)-1) * 500 * time.Millisecond})
				if d, _ := ctx.Deadline(); time.Now().After(d) {
					t.Errorf("a read ended %v after its deadline: %v", time.Since(d), err)
				}
				cancel()
				time.Sleep(time.Duration(local.IntN(300)) * time.Millisecond)
			}
		})
	}
	wg.Go(func() { // members vanish from the view; the divisor does not follow
		for range 20 {
			time.Sleep(500 * time.Millisecond)
			gone := rnd.IntN(members + 1)
			var left []string
			for i, name := range sim.names {
				if i != gone || members == 1 {
					left = append(left, name)
				}
			}
			v := simView(t, left...)
			for _, name := range sim.names {
				sim.nodes[name].setView(v)
			}
			sim.setRule(func(from, to string, _ codec.Kind, _ bool) hop {
				return hop{delay: time.Millisecond, lost: gone < members && members > 1 && (from == sim.names[gone] || to == sim.names[gone])}
			})
		}
	})
	wg.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()
	if int(most.Load()) > limit {
		t.Errorf("limit %d over %d members: %d loads at once", limit, members, most.Load())
	}
	if int(most.Load()) < min(limit, members) {
		t.Errorf("at most %d of %d at once: the test proves nothing", most.Load(), limit)
	}
	for _, c := range caches {
		s := c.Stats()
		if g := s.Governor; g.InUse != 0 || g.Waiting != 0 || g.Peak > g.Share || s.Running != 0 || s.Flights != 0 {
			t.Errorf("left over: %+v, %d running, %d flights", g, s.Running, s.Flights)
		}
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	sim.wg.Wait()
}
