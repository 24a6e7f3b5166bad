package governor_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/tier/internal/governor"
)

// attempt returns the ticket of a load's attempt that has a permit, and the context for its nested reads.
func attempt(t *testing.T, g *governor.Governor, load context.Context, chain ...uint64) (*governor.Ticket, context.Context, *governor.Nesting) {
	t.Helper()
	k := permit(t, g)
	ctx := g.AttemptContext(load, k, chain)
	n := governor.NestingOf(ctx)
	if n == nil || !slices.Equal(governor.ChainOf(ctx), chain) {
		t.Fatalf("nesting %v, chain %v", n, governor.ChainOf(ctx))
	}
	return k, ctx, n
}

func TestOutsideOfALoad(t *testing.T) {
	if governor.NestingOf(t.Context()) != nil || governor.ChainOf(t.Context()) != nil {
		t.Error("a nesting without a load")
	}
	var n *governor.Nesting
	n.Wait()
	if err := n.Resume(); err != nil {
		t.Error(err)
	}
	gone := errors.New("gone")
	if err := n.Around(func() error { return gone }); err != gone {
		t.Error(err)
	}
}

// resume runs n.Resume in a goroutine and waits until it has had time to ask for a permit.
func resume(n *governor.Nesting) <-chan error {
	back := make(chan error, 1)
	go func() { back <- n.Resume() }()
	time.Sleep(time.Second)
	return back
}

// A load has no permit while its nested read waits, and has one again before that read returns.
func TestNestedReadGivesThePermitBack(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 1, governor.Limits{Concurrency: 1, MinConcurrency: 1})
		k, ctx, n := attempt(t, g, t.Context(), 7)
		gone := errors.New("gone")
		other := wait(t.Context(), g, new(governor.Ticket))
		err := n.Around(func() error {
			if other.isWaiting() {
				t.Error("the permit was not given back")
			}
			time.AfterFunc(3*time.Second, func() { g.Release(other.ticket, governor.OK, 0) })
			time.Sleep(time.Second)
			return gone
		})
		if err != gone {
			t.Error(err)
		}
		if s := g.Snapshot(); s.InUse != 1 || s.Waiting != 0 || s.OriginSeconds != 3 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Second)
		g.Release(k, governor.OK, 4*time.Second) // it was away for three of them
		if s := g.Snapshot(); s.InUse != 0 || s.LoadSeconds != 1 {
			t.Errorf("%+v: this load took a second at the origin", s)
		}
		if governor.NestingOf(ctx) != nil || governor.ChainOf(ctx) != nil {
			t.Error("the context of a load that has returned belongs to it")
		}
		n.Wait() // nor do the reads that it has left behind
		if err := n.Resume(); err != nil {
			t.Error(err)
		}
		if s := g.Snapshot(); s.InUse != 0 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A load that comes back from a nested read goes before all queues.
func TestReturningLoadGoesFirst(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 1, governor.Limits{Concurrency: 1, MinConcurrency: 1})
		k, _, n := attempt(t, g, t.Context())
		n.Wait()
		holder := permit(t, g)
		late := wait(t.Context(), g, &governor.Ticket{Depth: 5})
		back := resume(n)
		if len(back) != 0 {
			t.Fatal("two loads with one permit")
		}
		if s := g.Snapshot(); s.Waiting != 2 || s.InUse != 1 {
			t.Errorf("%+v", s)
		}
		g.Release(holder, governor.OK, 0)
		if err := <-back; err != nil || !late.isWaiting() {
			t.Errorf("%v; the other waits: %v", err, late.isWaiting())
		}
		g.Release(k, governor.OK, 0)
		<-late.done
		g.Release(late.ticket, governor.OK, 0)
	})
}

// Of several concurrent nested reads, the last one to be answered takes the permit again.
func TestSeveralNestedReads(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 1, governor.Limits{Concurrency: 1, MinConcurrency: 1})
		k, _, n := attempt(t, g, t.Context())
		n.Wait()
		n.Wait()
		holder := permit(t, g)
		if err := n.Resume(); err != nil { // the other one still waits
			t.Error(err)
		}
		if s := g.Snapshot(); s.InUse != 1 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		back := resume(n)
		n.Wait() // while it returns: another read begins to wait
		if err := <-back; err != nil {
			t.Error(err)
		}
		if s := g.Snapshot(); s.InUse != 1 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		g.Release(holder, governor.OK, 0)
		if err := n.Resume(); err != nil {
			t.Error(err)
		}
		if s := g.Snapshot(); s.InUse != 1 {
			t.Errorf("%+v", s)
		}
		g.Release(k, governor.OK, 0)
	})
}

// A load whose time ends while it comes back gets a permit above the limit, so that it keeps others out until it
// returns.
func TestNestedReadPastTheLoad(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 1, governor.Limits{Concurrency: 1, MinConcurrency: 1})
		load, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		k, _, n := attempt(t, g, load)
		n.Wait()
		holder := permit(t, g)
		began := time.Now()
		if err := n.Resume(); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if s := g.Snapshot(); s.InUse != 2 || s.Waiting != 0 || s.Peak != 1 {
			t.Errorf("%+v", s)
		}
		g.Release(holder, governor.OK, 0)
		other := wait(t.Context(), g, new(governor.Ticket))
		if !other.isWaiting() {
			t.Error("a permit beside that of the load that is over")
		}
		g.Release(k, governor.Failed, 0)
		<-other.done
		g.Release(other.ticket, governor.OK, 0)
	})
}

// A load that returns while one of its nested reads waits, or comes back, leaves nothing behind.
func TestLoadReturnsBeforeItsNestedRead(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g := alone(t, 1, governor.Limits{Concurrency: 1, MinConcurrency: 1})
		k, _, n := attempt(t, g, t.Context())
		n.Wait()
		time.Sleep(time.Second)
		g.Release(k, governor.OK, time.Second)
		if err := n.Resume(); err != nil {
			t.Error(err)
		}
		k, _, n = attempt(t, g, t.Context())
		n.Wait()
		holder := permit(t, g)
		back := resume(n)
		g.Release(k, governor.OK, 0) // the ticket is returning
		if err := <-back; err != nil {
			t.Error(err)
		}
		g.Release(holder, governor.OK, 0)
		if s := g.Snapshot(); s.InUse != 0 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A load that is away does not count as failed when its time is over: it was not at the origin.
func TestOverranWhileAway(t *testing.T) {
	for _, returning := range []bool{false, true} {
		simtime.Test(t, func(t *testing.T) {
			g := alone(t, 1, governor.Limits{Concurrency: 1, MinConcurrency: 1, Breaker: governor.BreakerRules{Failures: 0.1, Minimum: 1, Window: time.Minute, Pause: time.Second, Probes: 1}})
			load, cancel := context.WithCancel(t.Context())
			k, _, n := attempt(t, g, load)
			n.Wait()
			holder := permit(t, g)
			back := make(chan error, 1)
			if returning {
				go func() { back <- n.Resume() }()
				time.Sleep(time.Second)
			}
			g.Overran(k)
			if closed, _ := g.Breaker(); !closed {
				t.Error("the breaker is open")
			}
			if cancel(); returning {
				<-back
			}
			g.Release(holder, governor.OK, 0)
			g.Release(k, governor.Failed, 0)
			if closed, _ := g.Breaker(); !closed {
				t.Error("a load has counted twice")
			}
		})
	}
}

// Flights that are loaded together have one ticket, which is as urgent and as patient as the most urgent and the most
// patient of them.
func TestGroup(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		g, held := slow(t, governor.Limits{QueueInterval: -1, Breaker: governor.BreakerRules{Failures: 0.1, Minimum: 1, Window: time.Minute, Pause: time.Second, Probes: 1}})
		group := &governor.Ticket{Class: governor.Warm}
		one, two := &governor.Ticket{Class: governor.Stale, Until: g.Time() + int64(time.Second)}, &governor.Ticket{Class: governor.Refresh, Until: g.Time() + int64(3*time.Second)}
		g.Gather([]*governor.Ticket{one, two}, group)
		if group.Class != governor.Stale || group.Until != two.Until {
			t.Errorf("class %d until %d, want %d until %d", group.Class, group.Until, governor.Stale, two.Until)
		}
		w := wait(t.Context(), g, group)
		g.Promote(one, governor.Miss, 2, g.Time()+int64(5*time.Second))
		if group.Class != governor.Miss || group.Depth != 2 || group.Until != one.Until {
			t.Errorf("promoting one: %d, %d, until %d", group.Class, group.Depth, group.Until)
		}
		g.Split(two)
		g.Promote(two, governor.Miss, 9, 0)
		if group.Depth != 2 || two.Depth != 9 {
			t.Errorf("a ticket that has left promotes the group to %d", group.Depth)
		}
		g.Release(held, governor.OK, 0)
		<-w.done
		g.Overran(one)
		if closed, _ := g.Breaker(); closed {
			t.Error("the group's load has not failed")
		}
		g.Release(group, governor.Failed, 0)
	})
}
