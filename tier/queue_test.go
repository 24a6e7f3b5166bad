package tier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
)

// shedWhy is why the governor refused; shedNone: it did not.
func shedWhy(err error) shedReason {
	var over *OverloadedError
	if !errors.As(err, &over) {
		return shedNone
	}
	return over.why
}

// Arrivals at twice what the origin gives: the newest are served, the others refused after
// QueueTarget, and the origin never idles. With the queue off, in the order of their coming,
// all who are served have waited for about as long as they may: the control.
func TestOverloadServesTheNewest(t *testing.T) {
	run := func(interval time.Duration) (served, refused int, wait time.Duration, why map[shedReason]int) {
		bubble(t, func(t *testing.T) {
			g := alone(t, 10, Origin{Concurrency: 10, MinConcurrency: 10, QueueInterval: interval, Queue: 1 << 20})
			var mu sync.Mutex // guards what follows
			var waits []time.Duration
			why = make(map[shedReason]int)
			var wg sync.WaitGroup
			for range 10000 { // 10 permits of 10 ms give 1000/s, 2000/s come
				wg.Go(func() {
					ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, context.DeadlineExceeded)
					defer cancel()
					came := time.Now()
					k := new(ticket)
					err := g.acquire(ctx, k)
					waited := time.Since(came)
					mu.Lock()
					if err == nil {
						waits = append(waits, waited)
					}
					why[shedWhy(err)]++
					mu.Unlock()
					if err == nil {
						time.Sleep(10 * time.Millisecond)
						g.release(k, loadOK, 10*time.Millisecond)
					}
				})
				time.Sleep(500 * time.Microsecond)
			}
			wg.Wait()
			slices.Sort(waits)
			served, refused, wait = len(waits), 10000-len(waits), waits[len(waits)*95/100]
		})
		return served, refused, wait, why
	}
	served, refused, wait, why := run(0)
	t.Logf("CoDel: %d served, %d refused, p95 of their wait %v, %v", served, refused, wait, why)
	if served < 4900 || wait > 100*time.Millisecond || why[shedDelay] != refused {
		t.Errorf("%d served, %d refused (%v), p95 %v", served, refused, why, wait)
	}
	served, refused, wait, why = run(-1)
	t.Logf("in order: %d served, %d refused, p95 of their wait %v, %v", served, refused, wait, why)
	if wait < 900*time.Millisecond {
		t.Errorf("the control's p95 is %v: the test proves nothing", wait)
	}
}

// In a queue that has not been empty for the interval the newest goes first, and before that the oldest.
func TestNewestFirstUnderOverload(t *testing.T) {
	for _, x := range []struct {
		wait time.Duration // between the first two who come
		want []int
	}{{50 * time.Millisecond, []int{0, 1, 2, 3}}, {97 * time.Millisecond, []int{3, 2, 1}}} {
		bubble(t, func(t *testing.T) {
			g := alone(t, 1, Origin{Concurrency: 1})
			first := new(ticket)
			if err := g.acquire(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			var order []int // one holds the permit at a time
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					k := new(ticket)
					if err := g.acquire(t.Context(), k); err != nil {
						if i != 0 || shedWhy(err) != shedDelay {
							t.Error(i, err)
						}
						return
					}
					order = append(order, i)
					g.release(k, loadVoid, 0)
				})
				synctest.Wait()
				if time.Sleep(time.Millisecond); i == 0 {
					time.Sleep(x.wait)
				}
			}
			g.release(first, loadVoid, 0)
			wg.Wait()
			if !slices.Equal(order, x.want) {
				t.Errorf("%v, want %v", order, x.want)
			}
		})
	}
}

// Who cannot be served within his deadline is refused at once, not after it.
func TestDeadlineRefusedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(100 * time.Millisecond)
		cfg := plain(ByKey(o.load))
		cfg.Origin = Origin{Concurrency: 1, QueueInterval: -1}
		c := open(t, cfg)
		get(t, c, "a", "a#1") // now it is known how long a load takes
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
		if shedWhy(err) != shedDeadline || took != 0 {
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

// Arrivals at twice what the origin gives, from callers with a second: the origin works for callers that are still there
// when it has done, and those for whom there is no time are refused at once. With NewestFirst they are refused early instead.
func TestOverloadOfCallersWithDeadlines(t *testing.T) {
	for _, newest := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			g := alone(t, 10, Origin{Concurrency: 10, MinConcurrency: 10, NewestFirst: newest, Queue: 1 << 20})
			rnd := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex // guards what follows
			var served, late, refusedLate int
			why := make(map[shedReason]int)
			var wg sync.WaitGroup
			for range 10000 { // 10 permits of 10 ms give 1000/s, 2000/s come
				takes := time.Duration(rnd.ExpFloat64() * float64(10*time.Millisecond))
				wg.Go(func() {
					came := time.Now()
					k := &ticket{until: g.now() + int64(time.Second)}
					err := g.acquire(t.Context(), k)
					if err == nil {
						time.Sleep(takes)
						g.release(k, loadOK, takes)
					}
					took := time.Since(came)
					mu.Lock()
					defer mu.Unlock()
					why[shedWhy(err)]++
					switch {
					case err != nil && took > 100*time.Millisecond:
						refusedLate++
					case err == nil && took <= time.Second:
						served++
					case err == nil:
						late++
					}
				})
				time.Sleep(500 * time.Microsecond)
			}
			wg.Wait()
			t.Logf("newest first %v: %d served, %d too late, %d refused late, %v", newest, served, late, refusedLate, why)
			if served < 4500 || late > 500 || !newest && refusedLate > 500 || newest != (why[shedDelay] > 0) {
				t.Error("not as it should be")
			}
		})
	}
}

// Callers with and without deadlines share the permits when there are too few.
func TestDeadlinesShareWithNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := alone(t, 10, Origin{Concurrency: 10, MinConcurrency: 10})
		var served [2]atomic.Int64
		var wg sync.WaitGroup
		for i := range 8000 {
			wg.Go(func() {
				k := new(ticket)
				if i%2 == 0 {
					k.until = g.now() + int64(time.Second)
				}
				if g.acquire(t.Context(), k) == nil {
					served[i%2].Add(1)
					time.Sleep(10 * time.Millisecond)
					g.release(k, loadOK, 10*time.Millisecond)
				}
			})
			time.Sleep(500 * time.Microsecond)
		}
		wg.Wait()
		with, without := served[0].Load(), served[1].Load()
		if with < 1500 || without < 1500 || with+without < 3800 {
			t.Errorf("%d with a deadline, %d without", with, without)
		}
	})
}

// A caller with a deadline beyond Origin.Timeout waits for its turn until then.
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

// In a full queue the least urgent gives way to the more urgent.
func TestFullQueueMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := alone(t, 1, Origin{Concurrency: 1, Queue: 2, QueueInterval: -1})
		first := new(ticket)
		if err := g.acquire(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		errs := make(map[string]error)
		var mu sync.Mutex // guards errs
		var wg sync.WaitGroup
		for _, x := range []struct {
			name string
			c    class
		}{{"refresh", classRefresh}, {"stale", classStale}, {"miss", classMiss}, {"warm", classWarm}, {"miss2", classMiss}} {
			wg.Go(func() {
				k := &ticket{class: x.c}
				err := g.acquire(t.Context(), k)
				if err == nil {
					g.release(k, loadOK, 0)
				}
				mu.Lock()
				defer mu.Unlock()
				errs[x.name] = err
			})
			synctest.Wait()
		}
		g.release(first, loadOK, 0)
		wg.Wait()
		for name, want := range map[string]shedReason{"refresh": shedFull, "stale": shedFull, "warm": shedFull, "miss": shedNone, "miss2": shedNone} {
			if got := shedWhy(errs[name]); got != want || want == shedNone && errs[name] != nil {
				t.Errorf("%s: %v", name, errs[name])
			}
		}
	})
}

// A rate of loads is kept with whatever comes, and used up.
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

// The breaker opens while the origin fails: it is left alone, stale copies are served, others get a time
// to retry after; and it closes by itself when the origin is back.
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

// Bad keys do not shut the origin off for the others.
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

// However loads come, and whatever becomes of them and of the members, no more than Concurrency run on
// all members together: shared origins, hung and failing loads, retries, breakers and rates included.
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
			time.Sleep(d) // deaf to ctx, and often past the timeout
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
