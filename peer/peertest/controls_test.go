package peertest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

// The controls break each guarantee on purpose: a checker that does not notice proves nothing.

// deaf is a cluster whose invalidations reach nobody and are acknowledged all the same.
type deaf struct{ tier.Cluster }

func (d deaf) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind == codec.KindInvalidate {
		*resp = codec.Response{Status: codec.StatusDone}
		return nil
	}
	if req.Fence.Seq != 0 {
		req.Fence = codec.Mark{}
	}
	return d.Cluster.Call(ctx, to, req, resp)
}

// greedy is a cluster that gives each member the whole cap.
type greedy struct{ tier.Cluster }

func (greedy) Divisor() (members, rank int) { return 1, 0 }

// young is a cluster whose answers say that they are new.
type young struct{ tier.Cluster }

func (y young) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	err := y.Cluster.Call(ctx, to, req, resp)
	resp.Age, resp.Soft, resp.Hard = 0, time.Minute, time.Minute
	return err
}

// patient is a cluster whose calls do not end with their contexts.
type patient struct{ tier.Cluster }

func (p patient) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	ctx = context.WithoutCancel(ctx)
	if req.Timeout > 0 {
		req.Timeout = time.Minute
	}
	return p.Cluster.Call(ctx, to, req, resp)
}

// play runs a short schedule and returns what the checker found, and its text.
func play(t *testing.T, o Options, p Plan, rules func(*Rules), before func(*Cluster)) (found map[string]bool, text string) {
	t.Helper()
	found = make(map[string]bool)
	o.Seed = 11
	Bubble(t, func(t *testing.T) {
		c := New(o)
		if before != nil {
			before(c)
		}
		if err := c.Run(t.Context(), p); err != nil {
			text = err.Error()
		}
		r := c.Rules()
		if rules != nil {
			rules(&r)
		}
		for _, v := range c.History.Check(r) {
			found[v.Guarantee] = true
			text += v.String()
		}
	})
	return found, text
}

func TestControls(t *testing.T) {
	calm := Plan{Calm: 20 * time.Second, Faults: time.Second, After: time.Second}
	busy := Plan{Calm: 20 * time.Second, Faults: time.Second, After: time.Second, Keys: 40, Clients: 8}
	rough := Plan{Calm: 5 * time.Second, Faults: 60 * time.Second, After: time.Second}
	wrap := func(f func(tier.Cluster) tier.Cluster) Options { return Options{Nodes: 3, Wrap: f} }
	for _, c := range []struct {
		name, broken string
		o            Options
		p            Plan
		rules        func(*Rules)
		before       func(*Cluster)
	}{
		{"a loader that loads twice", "G1", Options{Nodes: 3, Loader: double}, calm, nil, nil},
		{"invalidations that reach nobody", "G2", wrap(func(c tier.Cluster) tier.Cluster { return deaf{c} }), calm, nil, nil},
		{"answers that lie about their age", "G3", wrap(func(c tier.Cluster) tier.Cluster { return young{c} }), calm, nil, nil},
		{"a cap that is not divided", "G4", Options{Nodes: 3, Concurrency: 3, Wrap: func(c tier.Cluster) tier.Cluster { return greedy{c} }}, busy, nil,
			func(c *Cluster) { c.Origin.SetMoods(Moods{Slow: 1}) }},
		{"calls that outlive their context", "G5", wrap(func(c tier.Cluster) tier.Cluster { return patient{c} }), rough, nil,
			func(c *Cluster) {
				c.Net.SetFaults(netsim.PacketFaults{}, netsim.ConnFaults{Stall: 0.05, StallFor: 4 * time.Second})
			}},
		{"leases that are longer than the contract", "G6", Options{Nodes: 3}, calm, func(r *Rules) { r.Freshness.NearTTL, r.Slack = 100*time.Millisecond, 0 }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if found, text := play(t, c.o, c.p, c.rules, c.before); !found[c.broken] {
				t.Errorf("the checker found %v, and not that %s is broken\n%s", found, c.broken, text[:min(len(text), 2000)])
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		if found, text := play(t, Options{Nodes: 3}, calm, nil, nil); len(found) > 0 || text != "" {
			t.Errorf("%v\n%s", found, text)
		}
	})
}

// double is a loader that asks the origin twice at the same time.
func double(l tier.Loader[Value]) tier.Loader[Value] {
	return func(ctx context.Context, f *tier.Fill[Value]) (Value, error) {
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { _ = recover() }() // the origin's moods
			_, _ = l(ctx, f)
		})
		defer wg.Wait()
		return l(ctx, f)
	}
}

// A cluster that does not come to rest is reported.
func TestLivenessControl(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		c := New(Options{Nodes: 3})
		defer func() {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		}()
		for i := range 3 {
			if err := c.Start(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Settle(settleLimit); err != nil {
			t.Fatal(err)
		}
		c.Net.Isolate(c.IP(2))
		sleep(t.Context(), time.Minute)
		if err := c.Settle(settleLimit); err == nil || !strings.Contains(err.Error(), "sees") {
			t.Errorf("a cluster in two parts is at rest: %v", err)
		}
		c.Net.Heal()
		if err := c.Settle(settleLimit); err != nil {
			t.Error(err)
		}
		c.Origin.SetMoods(Moods{Overrun: 1})
		c.Read(0, "k", tier.AnyAge, time.Second)
		if err := c.Agreed(); err == nil || !strings.Contains(err.Error(), "flights") {
			t.Errorf("a cluster with a load is at rest: %v", err)
		}
	})
}
