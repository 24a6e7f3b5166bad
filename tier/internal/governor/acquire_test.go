package governor_test

import (
	"context"
	"errors"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/tier/internal/governor"
)

// A waiting is an Acquire in its own goroutine.
type waiting struct {
	ticket *governor.Ticket
	done   chan struct{}
	err    error
	ended  time.Duration // after it began
}

func wait(ctx context.Context, g *governor.Governor, t *governor.Ticket) *waiting {
	w, began := &waiting{ticket: t, done: make(chan struct{})}, time.Now()
	go func() {
		defer close(w.done)
		w.err = g.Acquire(ctx, t)
		w.ended = time.Since(began)
	}()
	synctest.Wait()
	return w
}

// isWaiting reports whether the Acquire has not returned.
func (w *waiting) isWaiting() bool {
	synctest.Wait()
	select {
	case <-w.done:
		return false
	default:
		return true
	}
}

// permit acquires a permit that must be free.
func permit(t *testing.T, g *governor.Governor) *governor.Ticket {
	t.Helper()
	k := new(governor.Ticket)
	if err := g.Acquire(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return k
}

// slow returns a governor with a single permit, which is taken. Its loads take 100 ms.
func slow(t *testing.T, l governor.Limits) (*governor.Governor, *governor.Ticket) {
	t.Helper()
	l.Concurrency, l.MinConcurrency = 1, 1
	g := alone(t, 1, l)
	g.Release(permit(t, g), governor.OK, 100*time.Millisecond)
	return g, permit(t, g)
}

func refusalOf(t *testing.T, err error) governor.Refusal {
	t.Helper()
	r, ok := errors.AsType[*governor.Refusal](err)
	if !ok {
		t.Fatalf("%v is not a refusal", err)
	}
	if r.Error() != "weir: no permit to read the origin: "+r.Why.Text() || r.Why.Text() == "" || r.Why.Name() == "" {
		t.Errorf("%q, %q, %q", r.Error(), r.Why.Text(), r.Why.Name())
	}
	return *r
}

func TestRefusedAtOnce(t *testing.T) {
	const ms = time.Millisecond
	in := func(g *governor.Governor, d time.Duration) int64 { return g.Time() + int64(d) }
	for name, c := range map[string]struct {
		limits governor.Limits
		try    func(t *testing.T, g *governor.Governor) error
		want   governor.Refusal
	}{
		"no time for one load": {try: func(t *testing.T, g *governor.Governor) error {
			return g.Acquire(t.Context(), &governor.Ticket{Until: in(g, 200*ms-1)})
		}, want: governor.Refusal{governor.Deadline, 100 * ms}},
		"no time after another": {try: func(t *testing.T, g *governor.Governor) error {
			wait(t.Context(), g, &governor.Ticket{Until: in(g, time.Second)})
			return g.Acquire(t.Context(), &governor.Ticket{Until: in(g, 300*ms-1)})
		}, want: governor.Refusal{governor.Deadline, 200 * ms}},
		"the queue is full": {limits: governor.Limits{Queue: 1, QueueInterval: -1}, try: func(t *testing.T, g *governor.Governor) error {
			wait(t.Context(), g, new(governor.Ticket))
			return g.Acquire(t.Context(), new(governor.Ticket))
		}, want: governor.Refusal{governor.QueueFull, 200 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				g, held := slow(t, c.limits)
				began := time.Now()
				if got := refusalOf(t, c.try(t, g)); got != c.want || time.Since(began) != 0 {
					t.Errorf("%v, want %v; after %v", got, c.want, time.Since(began))
				}
				g.Release(held, governor.OK, 100*ms)
			})
		})
	}
	simtime.Test(t, func(t *testing.T) {
		if got := refusalOf(t, alone(t, 0, governor.Limits{Concurrency: 1}).Acquire(t.Context(), new(governor.Ticket))); got != (governor.Refusal{governor.NoShare, time.Second}) {
			t.Errorf("without a share: %v", got)
		}
	})
}

// A ticket that can just be served in time waits.
func TestTimeThatIsJustEnough(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g, held := slow(t, governor.Limits{})
		first := wait(t.Context(), g, &governor.Ticket{Until: g.Time() + int64(200*time.Millisecond) + 1})
		second := wait(t.Context(), g, &governor.Ticket{Until: g.Time() + int64(300*time.Millisecond)})
		if !first.isWaiting() || !second.isWaiting() {
			t.Fatalf("%v, %v", first.err, second.err)
		}
		time.Sleep(100 * time.Millisecond)
		g.Release(held, governor.OK, 100*time.Millisecond)
		if <-first.done; first.err != nil {
			t.Fatal(first.err)
		}
		time.Sleep(100 * time.Millisecond)
		g.Release(first.ticket, governor.OK, 100*time.Millisecond)
		if <-second.done; second.err != nil {
			t.Fatal(second.err)
		}
		g.Release(second.ticket, governor.OK, 100*time.Millisecond)
	})
}

// How and when a wait ends by itself.
func TestWaitEnds(t *testing.T) {
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		until time.Duration // 0: none
		ctx   func(context.Context) (context.Context, context.CancelFunc)
		why   governor.Reason // None: the error does not matter
		after time.Duration
		wait  time.Duration
	}{
		"no deadline": {why: governor.TimedOut, after: 10 * time.Second, wait: 100 * time.Millisecond},
		"a deadline":  {until: 3 * time.Second, why: governor.Deadline, after: 3 * time.Second, wait: 100 * time.Millisecond},
		"the context is cancelled": {ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Second, gone)
		}, after: time.Second},
		"the context's time is up": {ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, why: governor.TimedOut, after: time.Second, wait: 100 * time.Millisecond},
		"both, the context earlier": {until: 3 * time.Second, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, why: governor.TimedOut, after: time.Second, wait: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				g, held := slow(t, governor.Limits{QueueInterval: -1})
				ctx, k := t.Context(), new(governor.Ticket)
				if c.until > 0 {
					k.Until = g.Time() + int64(c.until)
				}
				if c.ctx != nil {
					var cancel context.CancelFunc
					ctx, cancel = c.ctx(ctx)
					defer cancel()
				}
				w := wait(ctx, g, k)
				<-w.done
				if w.ended != c.after {
					t.Errorf("after %v, want %v", w.ended, c.after)
				}
				if c.why == governor.None {
					if w.err != gone {
						t.Errorf("%v, want the context's cause", w.err)
					}
				} else if got := refusalOf(t, w.err); got != (governor.Refusal{c.why, c.wait}) {
					t.Errorf("%v, want %v after %v", got, c.why, c.wait)
				}
				if s := g.Snapshot(); s.Waiting != 0 || s.InUse != 1 {
					t.Errorf("%+v", s)
				}
				g.Release(held, governor.OK, 0)
				g.Release(permit(t, g), governor.OK, 0) // nothing holds it back
			})
		})
	}
}

// Callers that join a ticket can only extend its wait and make it more urgent.
func TestPromoteExtendsTheWait(t *testing.T) {
	for name, c := range map[string]struct {
		until, by time.Duration // 0: no deadline
		want      time.Duration
	}{
		"a later deadline":                      {time.Second, 3 * time.Second, 3 * time.Second},
		"an earlier deadline":                   {3 * time.Second, 2 * time.Second, 3 * time.Second},
		"no deadline":                           {time.Second, 0, 500*time.Millisecond + 10*time.Second},
		"no deadline beside a late one":         {time.Minute, 0, time.Minute},
		"a deadline beside none":                {0, time.Second, 500*time.Millisecond + 10*time.Second},
		"a late deadline beside none":           {0, time.Minute, time.Minute},
		"the same deadline":                     {2 * time.Second, 2 * time.Second, 2 * time.Second},
		"no deadline beside one without, again": {0, 0, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				g, held := slow(t, governor.Limits{QueueInterval: -1})
				at := func(d time.Duration) int64 {
					if d == 0 {
						return 0
					}
					return g.Time() + int64(d)
				}
				until, by := at(c.until), at(c.by)
				w := wait(t.Context(), g, &governor.Ticket{Class: governor.Stale, Until: until})
				time.Sleep(500 * time.Millisecond)
				g.Promote(w.ticket, governor.Miss, 0, by)
				<-w.done
				if w.ended != c.want {
					t.Errorf("waited %v, want %v", w.ended, c.want)
				}
				g.Release(held, governor.OK, 0)
			})
		})
	}
}

// A ticket is refused for its deadline with an estimate that counts the tickets that are served before it.
func TestTicketsAhead(t *testing.T) {
	// ahead returns how many tickets go before one that comes now. A load takes 100 ms.
	ahead := func(t *testing.T, g *governor.Governor, class governor.Class, depth int) int {
		t.Helper()
		k := &governor.Ticket{Class: class, Depth: depth, Until: g.Time() + 1}
		var r *governor.Refusal
		if err := g.Acquire(t.Context(), k); !errors.As(err, &r) || r.Why != governor.Deadline {
			t.Fatalf("%v, want a refusal for the deadline", err)
		}
		return int(r.After/(100*time.Millisecond)) - 1
	}
	simtime.Test(t, func(t *testing.T) {
		g, held := slow(t, governor.Limits{QueueInterval: -1})
		ctx, cancel := context.WithCancel(t.Context())
		late := g.Time() + int64(time.Hour)
		for _, k := range []*governor.Ticket{
			{Until: late}, {Until: late}, {Until: late}, {Depth: 2}, // misses that wait for their deadlines or for loads
			{}, {}, // other misses
			{Class: governor.Stale},
			{Class: governor.Refresh}, {Class: governor.Refresh},
			{Class: governor.Warm},
		} {
			wait(ctx, g, k)
		}
		for _, c := range []struct {
			class governor.Class
			depth int
			want  int
		}{
			{governor.Miss, 0, 4 + 2}, {governor.Miss, 1, 0}, {governor.Stale, 0, 4 + 2 + 1}, {governor.Refresh, 0, 4 + 2 + 1 + 2}, {governor.Warm, 0, 4 + 2 + 1 + 2 + 1},
		} {
			if got := ahead(t, g, c.class, c.depth); got != c.want {
				t.Errorf("%d ahead of class %d, depth %d, want %d", got, c.class, c.depth, c.want)
			}
		}
		s := g.Snapshot()
		if want := map[string]int{"miss": 6, "stale": 1, "refresh": 2, "warm": 1}; s.Waiting != 10 || !maps.Equal(s.WaitingBy, want) {
			t.Errorf("%+v, want %v", s, want)
		}
		cancel()
		g.Release(held, governor.OK, 0)
	})
	simtime.Test(t, func(t *testing.T) { // misses wait in one queue
		g, held := slow(t, governor.Limits{QueueInterval: -1, NewestFirst: true})
		ctx, cancel := context.WithCancel(t.Context())
		for _, k := range []*governor.Ticket{{Until: g.Time() + int64(time.Hour)}, {Depth: 2}, {}, {}, {Class: governor.Stale}} {
			wait(ctx, g, k)
		}
		if got := ahead(t, g, governor.Miss, 0); got != 4 {
			t.Errorf("%d ahead, want 4", got)
		}
		if got := ahead(t, g, governor.Miss, 1); got != 0 {
			t.Errorf("%d ahead of a ticket that a load waits for, want 0", got)
		}
		cancel()
		g.Release(held, governor.OK, 0)
	})
	simtime.Test(t, func(t *testing.T) { // many misses without a deadline, and few with one: the two lanes take turns
		g, held := slow(t, governor.Limits{QueueInterval: -1})
		ctx, cancel := context.WithCancel(t.Context())
		for range 5 {
			wait(ctx, g, new(governor.Ticket))
		}
		wait(ctx, g, &governor.Ticket{Until: g.Time() + int64(time.Hour)})
		if got := ahead(t, g, governor.Miss, 0); got != 1+2 {
			t.Errorf("%d ahead, want 3", got)
		}
		cancel()
		g.Release(held, governor.OK, 0)
	})
	simtime.Test(t, func(t *testing.T) { // in an overloaded queue the newest is next
		g, held := slow(t, governor.Limits{QueueInterval: time.Second, QueueTarget: time.Minute, Timeout: time.Hour, NewestFirst: true})
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx, g, new(governor.Ticket))
		before := ahead(t, g, governor.Miss, 0)
		time.Sleep(3*time.Minute + 30*time.Second)
		wait(ctx, g, new(governor.Ticket))
		time.Sleep(40 * time.Second) // the first was shed, and the queue was not empty for four times its target
		after, overloaded := ahead(t, g, governor.Miss, 0), g.Snapshot().Overloaded
		if before != 1 || after != 0 || !overloaded {
			t.Errorf("%d ahead, then %d; overloaded: %v", before, after, overloaded)
		}
		cancel()
		g.Release(held, governor.OK, 0)
	})
}

// Which of the waiting tickets gives way in a full queue.
func TestFullQueueGivesWay(t *testing.T) {
	for name, c := range map[string]struct {
		there, comes *governor.Ticket
		overloaded   bool
		gives        bool
	}{
		"less urgent":                     {there: &governor.Ticket{Class: governor.Warm}, comes: &governor.Ticket{Class: governor.Refresh}, gives: true},
		"as urgent":                       {there: &governor.Ticket{Class: governor.Stale}, comes: &governor.Ticket{Class: governor.Stale}},
		"as urgent, overloaded":           {there: &governor.Ticket{Class: governor.Stale}, comes: &governor.Ticket{Class: governor.Stale}, overloaded: true, gives: true},
		"more urgent":                     {there: &governor.Ticket{Class: governor.Stale}, comes: &governor.Ticket{Class: governor.Warm}},
		"as urgent, but a load waits":     {there: &governor.Ticket{Until: int64(time.Hour)}, comes: &governor.Ticket{Depth: 1}, gives: true},
		"a load waits for both":           {there: &governor.Ticket{Depth: 1}, comes: &governor.Ticket{Depth: 2}},
		"a load waits for the older only": {there: &governor.Ticket{Depth: 1}, comes: &governor.Ticket{}},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				l := governor.Limits{Queue: 1, QueueInterval: -1, Timeout: time.Hour}
				if c.overloaded {
					l.Queue, l.QueueInterval, l.QueueTarget = 2, time.Second, time.Minute
				}
				g, held := slow(t, l)
				ctx, cancel := context.WithCancel(t.Context())
				if c.overloaded {
					wait(ctx, g, &governor.Ticket{Class: c.there.Class})
					time.Sleep(3*time.Minute + 30*time.Second)
				}
				old := wait(ctx, g, c.there)
				if c.overloaded {
					time.Sleep(40 * time.Second)       // the first was shed
					wait(ctx, g, new(governor.Ticket)) // more urgent, it never gives way
				}
				wait(ctx, g, c.comes)
				if old.isWaiting() == c.gives {
					t.Errorf("gives way: %v, want %v", !c.gives, c.gives)
				}
				if c.gives && refusedFor(old.err) != governor.QueueFull {
					t.Errorf("%v", old.err)
				}
				cancel()
				g.Release(held, governor.OK, 0)
			})
		})
	}
}

// What each load says about the origin, once.
func TestOutcomes(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 10, governor.Limits{Concurrency: 10, MinConcurrency: 10, Breaker: governor.BreakerRules{Failures: 1, Minimum: 2, Window: time.Minute, Pause: 5 * time.Second, Probes: 1}})
		seconds := func(want time.Duration) {
			t.Helper()
			if got := g.Snapshot().LoadSeconds; got < want.Seconds()*0.999 || got > want.Seconds()*1.001 {
				t.Errorf("a load takes %v s, want %v", got, want)
			}
		}
		g.Release(permit(t, g), governor.OK, 160*time.Millisecond)
		seconds(160 * time.Millisecond)
		g.Release(permit(t, g), governor.OK, 320*time.Millisecond)
		seconds(170 * time.Millisecond)
		g.Release(permit(t, g), governor.Void, time.Hour)
		seconds(170 * time.Millisecond)
		time.Sleep(2 * time.Minute) // out of the breaker's window
		if closed, openings := g.Breaker(); !closed || openings != 0 {
			t.Fatal("the breaker is not closed")
		}
		before := g.BreakerGeneration()
		k := permit(t, g)
		g.Overran(k) // counts as failed, once
		g.Overran(k)
		seconds(170*time.Millisecond + (10*time.Second-170*time.Millisecond)/16)
		if s := g.Snapshot(); s.InUse != 1 {
			t.Errorf("%d permits in use while a load overruns", s.InUse)
		}
		g.Release(k, governor.Failed, time.Hour)
		if closed, _ := g.Breaker(); !closed || g.BreakerGeneration() != before {
			t.Error("one load counted twice")
		}
		g.Release(permit(t, g), governor.Failed, time.Second)
		if closed, openings := g.Breaker(); closed || openings != 1 || g.BreakerGeneration() == before {
			t.Error("the second failure does not open the breaker")
		}
		if _, well := g.Usage(); well {
			t.Error("well with an open breaker")
		}
		if g.TakeRetry() {
			t.Error("a retry with an open breaker")
		}
		time.Sleep(time.Second)
		if got := refusalOf(t, g.Acquire(t.Context(), new(governor.Ticket))); got != (governor.Refusal{governor.BreakerOpen, 4 * time.Second}) {
			t.Errorf("%v", got)
		}
		time.Sleep(4*time.Second - 1)
		if got := refusalOf(t, g.Acquire(t.Context(), new(governor.Ticket))); got.Why != governor.BreakerOpen || got.After < 500*time.Millisecond || got.After > 2*time.Second {
			t.Errorf("%v: about as long as a load takes", got)
		}
		time.Sleep(time.Nanosecond)
		probe := permit(t, g)
		if got := refusalOf(t, g.Acquire(t.Context(), new(governor.Ticket))); got.Why != governor.BreakerOpen {
			t.Errorf("beside the probe: %v", got)
		}
		g.Release(probe, governor.OK, time.Second)
		if closed, _ := g.Breaker(); !closed {
			t.Error("a probe that succeeds does not close the breaker")
		}
		if used, well := g.Usage(); used != 0 || !well {
			t.Errorf("%d in use, well: %v", used, well)
		}
	})
}

// An open breaker also rejects tickets that already wait.
func TestBreakerOpensOnThoseThatWait(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 1, governor.Limits{Concurrency: 1, MinConcurrency: 1, QueueInterval: -1, Breaker: governor.BreakerRules{Failures: 0.5, Minimum: 1, Window: time.Minute, Pause: 5 * time.Second, Probes: 1}})
		k := permit(t, g)
		var all []*waiting
		for _, c := range []governor.Class{governor.Miss, governor.Stale, governor.Refresh, governor.Warm} {
			all = append(all, wait(t.Context(), g, &governor.Ticket{Class: c}))
		}
		g.Release(k, governor.Failed, time.Second)
		for _, w := range all {
			<-w.done
			if got := refusalOf(t, w.err); got != (governor.Refusal{governor.BreakerOpen, 5 * time.Second}) || w.ended != 0 {
				t.Errorf("%v after %v", got, w.ended)
			}
		}
	})
}

// The retry budget: half of the reserve at first, then a fraction of the admitted loads.
func TestRetryBudget(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 1, governor.Limits{Concurrency: 1, RetryBudget: 0.25})
		take := func() (n int) {
			for g.TakeRetry() {
				n++
			}
			return n
		}
		if n := g.Snapshot().RetriesLeft; n != governor.RetryReserve/2 {
			t.Errorf("%d retries left at first", n)
		}
		if n := take(); n != governor.RetryReserve/2 {
			t.Errorf("%d retries at first", n)
		}
		time.Sleep(time.Hour)
		if g.TakeRetry() {
			t.Error("time alone earns a retry")
		}
		for range 3 {
			g.EarnRetry()
		}
		if g.TakeRetry() {
			t.Error("three quarters are a retry")
		}
		g.EarnRetry()
		if n := take(); n != 1 {
			t.Errorf("%d retries for four loads", n)
		}
		for range 100 * governor.RetryReserve {
			g.EarnRetry()
		}
		if n := g.Snapshot().RetriesLeft; n != governor.RetryReserve {
			t.Errorf("%d retries left, at most %d", n, governor.RetryReserve)
		}
		if n := take(); n != governor.RetryReserve {
			t.Errorf("%d retries in reserve", n)
		}
		off := alone(t, 1, governor.Limits{Concurrency: 1, RetryBudget: -1})
		if off.EarnRetry(); off.TakeRetry() {
			t.Error("a retry without a budget")
		}
	})
}

// Rate and burst are divided among the members.
func TestRateOfAMember(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var members atomic.Int64
		members.Store(2)
		g := governor.New(rest(governor.Limits{Concurrency: 100, Rate: 20, Burst: 4, QueueInterval: -1}), stopwatch(), func() (int, int) { return 50, int(members.Load()) })
		defer g.Close()
		var all []*waiting
		for range 6 {
			all = append(all, wait(t.Context(), g, new(governor.Ticket)))
		}
		for i, want := range []time.Duration{0, 0, 100, 200, 300, 400} { // a burst of two, then ten a second
			<-all[i].done
			if got := all[i].ended.Round(time.Millisecond); got != want*time.Millisecond || all[i].err != nil {
				t.Errorf("permit %d after %v, want %v: %v", i, got, want*time.Millisecond, all[i].err)
			}
			g.Release(all[i].ticket, governor.OK, 0)
		}
	})
}

// Occupancy integrates the permits in use over time.
func TestOccupancy(t *testing.T) {
	var o governor.Occupancy
	second := int64(time.Second)
	o = o.Change(+1, 1*second)
	o = o.Change(+2, 3*second)
	if got := o.Total(4 * second); got != 2+3 {
		t.Errorf("%v permit-seconds, want 5", got)
	}
	o = o.Change(-3, 4*second)
	if got := o.Total(10 * second); got != 5 {
		t.Errorf("%v permit-seconds, want 5", got)
	}
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 2, governor.Limits{Concurrency: 2, MinConcurrency: 2})
		k := permit(t, g)
		time.Sleep(3 * time.Second)
		other := permit(t, g)
		time.Sleep(2 * time.Second)
		if s := g.Snapshot(); s.OriginSeconds != 3+2*2 || s.InUse != 2 || s.Peak != 2 || s.Share != 2 || s.Limit != 2 {
			t.Errorf("%+v", s)
		}
		g.Release(k, governor.OK, 0)
		g.Release(other, governor.OK, 0)
		time.Sleep(time.Second)
		if s := g.Snapshot(); s.OriginSeconds != 7 || s.InUse != 0 || s.Peak != 2 {
			t.Errorf("%+v", s)
		}
	})
}
