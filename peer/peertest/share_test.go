package peertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

// hasty is a cluster whose members claim that their loads fit their shares, whether they do or not.
type hasty struct{ tier.Cluster }

func (hasty) SharesMove() bool { return true }

func (h hasty) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	err := h.Cluster.Call(ctx, to, req, resp)
	if err == nil && resp.Status == codec.StatusSynced {
		resp.Flags |= codec.FlagSameView | codec.FlagShare | codec.FlagFits
	}
	return err
}

// longLoads makes the running nodes fill the cap with loads of 12 s, which do not end with their contexts, lets nodes join
// or leave, and reads more. It returns the violations and the maximum number of concurrent loads.
func longLoads(t *testing.T, wrap func(tier.Cluster) tier.Cluster, first int, change func(c *Cluster)) (broken []Violation, peak int) {
	Bubble(t, func(t *testing.T) {
		ctx := t.Context()
		c := New(Options{
			Seed: 1, Nodes: 4, MinMembers: 1, Concurrency: 12, Timeout: 10 * time.Second, Wrap: wrap,
			Freshness: tier.Freshness{TTL: time.Hour, NearTTL: time.Minute},
		})
		for i := range first {
			if err := c.Start(ctx, i); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Settle(settleLimit); err != nil {
			t.Fatal(err)
		}
		sleep(ctx, 10*time.Second)
		c.Origin.SetMoods(Moods{Overrun: 1})
		var wg sync.WaitGroup
		ask := func(round int) {
			for i := range c.hosts {
				for j := range 40 {
					wg.Go(func() { c.Get(i, fmt.Sprintf("k%d-%d-%d", round, i, j), 20*time.Second) })
				}
			}
		}
		ask(0)
		sleep(ctx, 200*time.Millisecond)
		change(c)
		for round := range 6 {
			ask(1 + round)
			sleep(ctx, 2500*time.Millisecond)
		}
		wg.Wait()
		c.Origin.SetMoods(Moods{})
		if err := c.Settle(settleLimit); err != nil {
			t.Error(err)
		}
		for i := range c.hosts { // the shares add up again, and every node has one
			if n, cache := c.Node(i); n != nil && cache.Stats().Governor.Limit == 0 {
				t.Errorf("%s has no share: %+v", n.Name(), cache.Stats().Governor)
			}
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		broken, peak = c.History.Check(c.Rules()), c.History.peak
		if peak < 12 && wrap == nil {
			t.Errorf("%d loads at once: the test proves nothing", peak)
		}
	})
	return broken, peak
}

// joinTwo starts two nodes at the same time; leaveTwo stops two gracefully.
func joinTwo(c *Cluster) {
	var wg sync.WaitGroup
	for i := 2; i < 4; i++ {
		wg.Go(func() { _ = c.Start(context.Background(), i) })
	}
	wg.Wait()
}

func leaveTwo(c *Cluster) {
	var wg sync.WaitGroup
	for i := 2; i < 4; i++ {
		wg.Go(func() { _ = c.Leave(context.Background(), i) })
	}
	wg.Wait()
}

// TestSharesMoveByWord checks that the origin never has more loads than its cap when several members join or leave at once
// during loads that outlast all of the members' timers.
func TestSharesMoveByWord(t *testing.T) {
	for name, x := range map[string]struct {
		first  int
		change func(c *Cluster)
	}{"join": {2, joinTwo}, "leave": {4, leaveTwo}} {
		t.Run(name, func(t *testing.T) {
			broken, peak := longLoads(t, nil, x.first, x.change)
			t.Logf("%d loads at once", peak)
			for _, v := range broken {
				if v.Guarantee == "G4" {
					t.Error(v)
				}
			}
		})
	}
}

// TestControlHastyShares is the control: if members claim that their loads fit when they do not, the cap is exceeded, and
// the checker detects it.
func TestControlHastyShares(t *testing.T) {
	broken, peak := longLoads(t, func(c tier.Cluster) tier.Cluster { return hasty{c} }, 2, joinTwo)
	for _, v := range broken {
		if v.Guarantee == "G4" {
			return
		}
	}
	t.Errorf("%d loads at once, and no violation: the checker proves nothing", peak)
}
