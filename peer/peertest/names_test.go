package peertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/tier"
)

// TestSecondOfAName lets a second node with a name in use come and leave gracefully, again and again, while the others read
// and write. All return to one view with the first node in it. No guarantee is broken on the nodes with unique names, nor
// on the first node once it is back.
func TestSecondOfAName(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		c := New(Options{Seed: 3, Nodes: 4, MinMembers: 1, Concurrency: 6, HoldDown: -1}) // otherwise the name rests, like a node that restarts repeatedly
		double := c.hosts[3]
		double.name, double.starts = c.nameOf(0), 100 // the history distinguishes the two by their starts
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
		if err := c.Settle(time.Minute); err != nil {
			t.Fatal(err)
		}
		p := Plan{}.withDefaults()
		clients := func(hosts ...int) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for _, i := range hosts {
				wg.Go(func() { c.client(ctx, i, p, c.random(uint64(300+i))) })
			}
			return func() { cancel(); wg.Wait() }
		}
		for round := range 3 {
			stop := clients(1, 2)
			if err := c.Start(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
			sleep(t.Context(), 5*time.Second)
			if n, _ := c.Node(0); n.Ready() == nil {
				t.Errorf("round %d: the node whose name is taken is ready", round)
			}
			if err := c.Leave(t.Context(), 3); err != nil {
				t.Error(err)
			}
			began := time.Now()
			if err := c.Settle(time.Minute); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("round %d: it took %v until all have one view", round, took)
			}
			stop()
			for i := range 3 {
				n, _ := c.Node(i)
				for range 100 { // the node may have just seen the view change and is exchanging positions with the one that is back
					if n.Ready() == nil {
						break
					}
					sleep(t.Context(), 10*time.Millisecond)
				}
				if err := n.Ready(); err != nil {
					t.Errorf("round %d: %s: %v", round, n.Name(), err)
				}
				if m, _ := n.Divisor(); m < 3 {
					t.Errorf("round %d: %s divides caps by %d", round, n.Name(), m)
				}
			}
			sleep(t.Context(), p.After) // copies from before expire
			stop = clients(0, 1, 2)
			for k := range 20 {
				c.Write(k%3, fmt.Sprintf("k%d", k%p.Keys), false)
				c.Read((k+1)%3, fmt.Sprintf("k%d", k%p.Keys), tier.AnyAge, c.patience())
			}
			stop()
		}
		for _, v := range c.History.Check(c.Rules()) {
			t.Error(v)
		}
	})
}
