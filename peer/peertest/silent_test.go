package peertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// whole returns a cluster whose nodes are up and see one another, until stop is called.
func whole(t *testing.T, o Options) (c *Cluster, stop func()) {
	t.Helper()
	c = New(o)
	stop = func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}
	err := error(nil)
	for i := range c.hosts {
		err = errors.Join(err, c.Start(t.Context(), i))
	}
	if err = errors.Join(err, c.Settle(time.Minute)); err != nil {
		stop()
		t.Fatal(err)
	}
	return c, stop
}

// ownedBy returns n keys that the i-th node owns.
func ownedBy(c *Cluster, i, n int) (keys []string) {
	node, _ := c.Node(i)
	for k := 0; len(keys) < n; k++ {
		if key := fmt.Sprintf("k%d", k); node.View().Owner(key).Name == node.Name() {
			keys = append(keys, key)
		}
	}
	return keys
}

// TestOwnerFallsSilent silences an owner: from one moment on nothing arrives from it or reaches it, and connections do not
// break. Until the others have removed it from their views, a read of its keys may wait for half a second at most, and
// after that none waits. All nodes turn to one successor, which loads each key once.
func TestOwnerFallsSilent(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		c, stop := whole(t, Options{Seed: 3, Nodes: 5, Freshness: steady, Concurrency: 50})
		defer stop()
		keys := ownedBy(c, 0, 40)
		first, _ := c.Node(1)
		before := first.View()
		for i := range c.hosts { // each node has a connection, and the owner a copy
			for _, key := range keys {
				c.Read(i, key, tier.AnyAge, c.patience())
			}
		}
		sleep(t.Context(), time.Second) // the near copies have expired
		old := len(c.History.loads)
		c.Net.Isolate(c.IP(0))
		silence := time.Now()
		noticed := make(map[string]time.Time)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex // guards noticed
		for i := 1; i < len(c.hosts); i++ {
			node, _ := c.Node(i)
			for k := range 4 {
				dice := c.random(uint64(10*i + k))
				wg.Go(func() {
					for ctx.Err() == nil {
						c.Get(i, keys[dice.IntN(len(keys))], c.patience())
						sleep(ctx, upTo(dice, 20*time.Millisecond))
					}
				})
			}
			wg.Go(func() {
				for changed := node.ViewChanged(); ; changed = node.ViewChanged() {
					if _, in := node.View().Member("n0"); !in {
						mu.Lock()
						noticed[node.Name()] = time.Now()
						mu.Unlock()
						return
					}
					<-changed
				}
			})
		}
		sleep(ctx, time.Second)
		for i := 1; i < len(c.hosts); i++ {
			node, _ := c.Node(i)
			links := node.Stats().Connections
			if k := slices.IndexFunc(links, func(s peer.PeerStats) bool { return s.Name == "n0" }); k < 0 || links[k].Breaker == "closed" {
				t.Errorf("%s: %+v", node.Name(), links)
			}
		}
		sleep(ctx, 14*time.Second)
		cancel()
		wg.Wait()

		var waits []time.Duration
		for _, r := range c.History.reads {
			gone := noticed[r.Node]
			if r.BeganAt.Before(silence) || !r.BeganAt.Before(gone) {
				continue
			}
			if r.Err != nil {
				t.Fatalf("%s on %s after %v: %v", r.Key, r.Node, r.EndedAt.Sub(r.BeganAt), r.Err)
			}
			took := r.EndedAt.Sub(r.BeganAt)
			if late := r.BeganAt.Sub(silence) > 600*time.Millisecond; took > 700*time.Millisecond || late && took > 150*time.Millisecond {
				t.Errorf("a read %v after the owner fell silent took %v", r.BeganAt.Sub(silence), took)
			}
			waits = append(waits, took)
		}
		slices.Sort(waits)
		var until time.Duration
		for name, at := range noticed {
			if until = max(until, at.Sub(silence)); at.Sub(silence) < time.Second {
				t.Errorf("%s took the owner out of its view after %v: this test needs more time", name, at.Sub(silence))
			}
		}
		const short = 4900 * time.Millisecond // a stand-in keeps what it loads for 5 s
		loads := make(map[string]time.Time)
		for _, l := range c.History.loads[old:] {
			if l.BeganAt.Sub(silence) >= until { // the cost of the view change
				continue
			}
			next, _ := before.Successor(l.Key)
			if last, again := loads[l.Key]; l.Node != next.Name || again && l.BeganAt.Sub(last) < short {
				t.Errorf("%s loads %s, whose successor is %s; before: %v", l.Node, l.Key, next.Name, last)
			}
			loads[l.Key] = l.BeganAt
		}
		t.Logf("%d reads in %v of silence: p50 %v, p90 %v, p99 %v, longest %v; %d loads for %d keys",
			len(waits), until, waits[len(waits)/2], waits[len(waits)*9/10], waits[len(waits)*99/100], waits[len(waits)-1], len(loads), len(keys))
		for _, v := range c.History.Check(c.Rules()) {
			t.Error(v)
		}
	})
}
