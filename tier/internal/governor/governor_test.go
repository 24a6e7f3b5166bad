package governor_test

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/tier/internal/governor"
)

// stopwatch returns a function that returns the ns since the call of stopwatch.
func stopwatch() func() int64 {
	began := time.Now()
	return func() int64 { return int64(time.Since(began)) }
}

// rest fills in the limits that a test does not care about.
func rest(l governor.Limits) governor.Limits {
	l.MinConcurrency = cmp.Or(l.MinConcurrency, max(l.Concurrency/4, 1))
	l.Burst = cmp.Or(l.Burst, max(int(l.Rate/10), 1))
	l.Timeout = cmp.Or(l.Timeout, 10*time.Second)
	l.Queue = cmp.Or(l.Queue, 16384)
	l.QueueInterval = cmp.Or(l.QueueInterval, 100*time.Millisecond)
	l.QueueTarget = cmp.Or(l.QueueTarget, 5*time.Millisecond)
	l.RetryBudget = cmp.Or(l.RetryBudget, 0.2)
	if l.Breaker == (governor.BreakerRules{}) {
		l.Breaker = governor.BreakerRules{Failures: 0.5, Minimum: 20, Window: 10 * time.Second, Pause: 5 * time.Second, Probes: 3}
	}
	return l
}

// alone returns a governor with its own share, on a virtual clock.
func alone(t *testing.T, share int, o governor.Limits) *governor.Governor {
	now := stopwatch()
	g := governor.New(rest(o), now, func() (int, int) { return share, 1 })
	t.Cleanup(g.Close)
	return g
}

// line lets tickets queue behind one permit and returns the order in which they get it.
func line(t *testing.T, change func(g *governor.Governor, tickets map[string]*governor.Ticket), names ...string) (order []string) {
	g := alone(t, 1, governor.Limits{Concurrency: 1, QueueInterval: -1})
	first := new(governor.Ticket)
	if err := g.Acquire(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	tickets := make(map[string]*governor.Ticket)
	var mu sync.Mutex // guards order
	var wg sync.WaitGroup
	for _, name := range names {
		k := &governor.Ticket{Class: map[byte]governor.Class{'m': governor.Miss, 's': governor.Stale, 'r': governor.Refresh}[name[0]]}
		tickets[name] = k
		wg.Go(func() {
			if err := g.Acquire(t.Context(), k); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			g.Release(k, governor.OK, 0)
		})
		synctest.Wait()
	}
	if change != nil {
		change(g, tickets)
	}
	g.Release(first, governor.OK, 0)
	wg.Wait()
	if s := g.Snapshot(); s.InUse != 0 || s.Peak != 1 || s.Waiting != 0 {
		t.Errorf("governor %+v", s)
	}
	return order
}

func TestClassOrder(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		got := line(t, nil, "r1", "s1", "m1", "r2", "m2", "s2")
		if want := []string{"m1", "m2", "s1", "s2", "r1", "r2"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestPromotion(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		got := line(t, func(g *governor.Governor, k map[string]*governor.Ticket) {
			g.Promote(k["r2"], governor.Miss, 0, 0)
			g.Promote(k["m1"], governor.Refresh, 0, 0) // never less urgent
		}, "r1", "s1", "m1", "r2")
		if want := []string{"m1", "r2", "s1", "r1"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestShareChanges(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var share atomic.Int64
		o := rest(governor.Limits{Concurrency: 3, MinConcurrency: 3, QueueInterval: -1})
		now := stopwatch()
		g := governor.New(o, now, func() (int, int) { return int(share.Load()), 1 })
		defer g.Close()
		holders := make(chan *governor.Ticket, 4)
		release := func() { g.Release(<-holders, governor.Void, 0) }
		if err := g.Acquire(t.Context(), new(governor.Ticket)); refusedFor(err) != governor.NoShare {
			t.Fatalf("without a share: %v", err)
		}
		share.Store(1)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				k := new(governor.Ticket)
				if err := g.Acquire(t.Context(), k); err != nil {
					t.Error(err)
				}
				holders <- k
			})
		}
		check := func(used, waiting int) {
			t.Helper()
			synctest.Wait()
			if s := g.Snapshot(); s.InUse != used || s.Waiting != waiting {
				t.Fatalf("%+v, want %d in use, %d waiting", s, used, waiting)
			}
		}
		check(1, 3)
		share.Store(3)
		g.Recheck()
		check(3, 1)
		share.Store(1)
		release()
		release()
		check(1, 1) // less than before: no new loads until enough have returned
		release()
		check(1, 0)
		release()
		wg.Wait()
		check(0, 0)
	})
}

// refusedFor returns why the governor rejected the fill; None if it did not.
func refusedFor(err error) governor.Reason {
	if r, ok := errors.AsType[*governor.Refusal](err); ok {
		return r.Why
	}
	return governor.None
}

// At twice the arrival rate that the origin can serve, the newest tickets are served, the others are rejected after
// QueueTarget, and the origin never idles. As a control, with the queue's policy off and tickets served in order of
// arrival, all served tickets have waited for about as long as they may.
func TestOverloadServesTheNewest(t *testing.T) {
	run := func(interval time.Duration) (served, refused int, wait time.Duration, why map[governor.Reason]int) {
		simtime.Test(t, func(t *testing.T) {
			g := alone(t, 10, governor.Limits{Concurrency: 10, MinConcurrency: 10, QueueInterval: interval, Queue: 1 << 20})
			var mu sync.Mutex // guards what follows
			var waits []time.Duration
			why = make(map[governor.Reason]int)
			var wg sync.WaitGroup
			for range 10000 { // 10 permits of 10 ms give 1000/s, 2000/s come
				wg.Go(func() {
					ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, context.DeadlineExceeded)
					defer cancel()
					came := time.Now()
					k := new(governor.Ticket)
					err := g.Acquire(ctx, k)
					waited := time.Since(came)
					mu.Lock()
					if err == nil {
						waits = append(waits, waited)
					}
					why[refusedFor(err)]++
					mu.Unlock()
					if err == nil {
						time.Sleep(10 * time.Millisecond)
						g.Release(k, governor.OK, 10*time.Millisecond)
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
	if served < 4900 || wait > 100*time.Millisecond || why[governor.QueueDelay] != refused {
		t.Errorf("%d served, %d refused (%v), p95 %v", served, refused, why, wait)
	}
	served, refused, wait, why = run(-1)
	t.Logf("in order: %d served, %d refused, p95 of their wait %v, %v", served, refused, wait, why)
	if wait < 900*time.Millisecond {
		t.Errorf("the control's p95 is %v: the test proves nothing", wait)
	}
}

// In a queue that has not been empty for the interval the newest ticket goes first; before that the oldest does.
func TestNewestFirstUnderOverload(t *testing.T) {
	for _, x := range []struct {
		wait time.Duration // between the first two tickets
		want []int
	}{{50 * time.Millisecond, []int{0, 1, 2, 3}}, {97 * time.Millisecond, []int{3, 2, 1}}} {
		simtime.Test(t, func(t *testing.T) {
			g := alone(t, 1, governor.Limits{Concurrency: 1})
			first := new(governor.Ticket)
			if err := g.Acquire(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			var order []int // only the permit's holder appends
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					k := new(governor.Ticket)
					if err := g.Acquire(t.Context(), k); err != nil {
						if i != 0 || refusedFor(err) != governor.QueueDelay {
							t.Error(i, err)
						}
						return
					}
					order = append(order, i)
					g.Release(k, governor.Void, 0)
				})
				synctest.Wait()
				if time.Sleep(time.Millisecond); i == 0 {
					time.Sleep(x.wait)
				}
			}
			g.Release(first, governor.Void, 0)
			wg.Wait()
			if !slices.Equal(order, x.want) {
				t.Errorf("%v, want %v", order, x.want)
			}
		})
	}
}

// At twice the arrival rate that the origin can serve, with callers that have a second: the origin works for callers
// that are still there when it is done, and callers without enough time are rejected at once. With NewestFirst they
// are rejected early instead.
func TestOverloadOfCallersWithDeadlines(t *testing.T) {
	for _, newest := range []bool{false, true} {
		simtime.Test(t, func(t *testing.T) {
			g := alone(t, 10, governor.Limits{Concurrency: 10, MinConcurrency: 10, NewestFirst: newest, Queue: 1 << 20})
			rnd := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex // guards what follows
			var served, late, refusedLate int
			why := make(map[governor.Reason]int)
			var wg sync.WaitGroup
			for range 10000 { // 10 permits of 10 ms give 1000/s, 2000/s come
				takes := time.Duration(rnd.ExpFloat64() * float64(10*time.Millisecond))
				wg.Go(func() {
					came := time.Now()
					k := &governor.Ticket{Until: g.Time() + int64(time.Second)}
					err := g.Acquire(t.Context(), k)
					if err == nil {
						time.Sleep(takes)
						g.Release(k, governor.OK, takes)
					}
					took := time.Since(came)
					mu.Lock()
					defer mu.Unlock()
					why[refusedFor(err)]++
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
			if served < 4500 || late > 500 || !newest && refusedLate > 500 || newest != (why[governor.QueueDelay] > 0) {
				t.Error("not as it should be")
			}
		})
	}
}

// Callers with and without deadlines share the permits when there are too few.
func TestDeadlinesShareWithNone(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 10, governor.Limits{Concurrency: 10, MinConcurrency: 10})
		var served [2]atomic.Int64
		var wg sync.WaitGroup
		for i := range 8000 {
			wg.Go(func() {
				k := new(governor.Ticket)
				if i%2 == 0 {
					k.Until = g.Time() + int64(time.Second)
				}
				if g.Acquire(t.Context(), k) == nil {
					served[i%2].Add(1)
					time.Sleep(10 * time.Millisecond)
					g.Release(k, governor.OK, 10*time.Millisecond)
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

// In a full queue the least urgent ticket gives way to a more urgent one.
func TestFullQueueMakesRoom(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 1, governor.Limits{Concurrency: 1, Queue: 2, QueueInterval: -1})
		first := new(governor.Ticket)
		if err := g.Acquire(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		errs := make(map[string]error)
		var mu sync.Mutex // guards errs
		var wg sync.WaitGroup
		for _, x := range []struct {
			name string
			c    governor.Class
		}{{"refresh", governor.Refresh}, {"stale", governor.Stale}, {"miss", governor.Miss}, {"warm", governor.Warm}, {"miss2", governor.Miss}} {
			wg.Go(func() {
				k := &governor.Ticket{Class: x.c}
				err := g.Acquire(t.Context(), k)
				if err == nil {
					g.Release(k, governor.OK, 0)
				}
				mu.Lock()
				defer mu.Unlock()
				errs[x.name] = err
			})
			synctest.Wait()
		}
		g.Release(first, governor.OK, 0)
		wg.Wait()
		for name, want := range map[string]governor.Reason{"refresh": governor.QueueFull, "stale": governor.QueueFull, "warm": governor.QueueFull, "miss": governor.None, "miss2": governor.None} {
			if got := refusedFor(errs[name]); got != want || want == governor.None && errs[name] != nil {
				t.Errorf("%s: %v", name, errs[name])
			}
		}
	})
}

// Tickets queue for a withheld share and are not rejected. A member whose loads exceed its share says so.
func TestWithheldShare(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		share, now := 2, stopwatch()
		g := governor.New(rest(governor.Limits{Concurrency: 2, MinConcurrency: 2}), now, func() (int, int) { return share, 1 })
		defer g.Close()
		g.WithholdShare()
		got := make(chan *governor.Ticket, 2)
		for range 2 {
			go func() {
				k := new(governor.Ticket)
				if err := g.Acquire(t.Context(), k); err != nil {
					t.Error(err)
				}
				got <- k
			}()
		}
		time.Sleep(time.Second)
		if len(got) != 0 || !g.FitsShare() {
			t.Errorf("%d loads with a share that is withheld", len(got))
		}
		g.AllowShare()
		first, second := <-got, <-got
		if share = 1; g.FitsShare() {
			t.Error("two loads fit a share of one")
		}
		g.Release(first, governor.OK, 0)
		if !g.FitsShare() {
			t.Error("one load does not fit a share of one")
		}
		g.Release(second, governor.OK, 0)
		if g.WithholdShare(); g.Snapshot().Limit != 1 {
			t.Error("a share that was taken is withheld")
		}
	})
}

// A fill reads its share before the share falls, and enters the governor after this node has said that its loads fit.
// It does not begin under the old share.
func TestNoShareOlderThanTheWord(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var share, slow atomic.Int64
		share.Store(2)
		now := stopwatch()
		g := governor.New(rest(governor.Limits{Concurrency: 2, MinConcurrency: 2}), now, func() (int, int) {
			now := int(share.Load())
			if slow.CompareAndSwap(1, 0) {
				time.Sleep(time.Second)
			}
			return now, 1
		})
		defer g.Close()
		first, second := new(governor.Ticket), &governor.Ticket{Until: int64(time.Hour)}
		if err := g.Acquire(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		slow.Store(1)
		got := make(chan error, 1)
		go func() { got <- g.Acquire(t.Context(), second) }()
		synctest.Wait() // it has read two
		share.Store(1)
		if !g.FitsShare() {
			t.Fatal("one load does not fit a share of one")
		}
		time.Sleep(2 * time.Second)
		if used, _ := g.Usage(); used != 1 || len(got) != 0 {
			t.Errorf("%d loads after the word that one fits", used)
		}
		g.Release(first, governor.OK, 0)
		if err := <-got; err != nil {
			t.Error(err)
		}
		g.Release(second, governor.OK, 0)
	})
}

// If several caches have one origin, each must get its answer, except one that closes. Caches on another Cluster ask
// again.
func TestShareOfSeveralCaches(t *testing.T) {
	now := stopwatch()
	g := governor.New(rest(governor.Limits{Concurrency: 2}), now, func() (int, int) { return 2, 1 })
	limit := func(want int, when string) {
		t.Helper()
		if got := g.Snapshot().Limit; got != want {
			t.Errorf("%d permits %s, want %d", got, when, want)
		}
	}
	for range 2 { // on one cluster, then on another
		for range 3 {
			g.Open()
			if !g.WithholdShare() {
				t.Error("not withheld")
			}
		}
		limit(0, "before any answer")
		g.AllowShare()
		limit(0, "with one answer of three")
		g.WaiveShare()
		limit(0, "with one answer of two")
		g.AllowShare()
		limit(2, "with all answers")
		if g.Open(); g.WithholdShare() {
			t.Error("a share that was taken is withheld")
		}
		for range 4 {
			g.Close()
		}
	}
	g.Open()
	g.WithholdShare()
	g.WaiveShare()
	limit(0, "with no answer at all")
	g.Close()
}
