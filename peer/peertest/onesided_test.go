package peertest

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestOneSidedSplitHeals cuts a node off for so short that the node itself notices nothing, but long enough for the others
// to drop it. They must take it back as soon as they hear from it again, long before gossip's next exchange of states.
func TestOneSidedSplitHeals(t *testing.T) {
	const goneFor = 7 * time.Second // by then gossip has finished reporting the loss
	oneSided := 0
	for seed := uint64(1); seed <= 8; seed++ {
		Bubble(t, func(t *testing.T) {
			c, stop := whole(t, Options{Seed: seed, Nodes: 3, Freshness: steady})
			defer stop()
			sees := func(i int) int {
				node, _ := c.Node(i)
				return node.View().Len()
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for i := range c.hosts {
				dice := c.random(uint64(i))
				wg.Go(func() {
					for ctx.Err() == nil {
						c.Get(i, someKey(Plan{Keys: 50}, dice), time.Second)
						sleep(ctx, upTo(dice, 40*time.Millisecond))
					}
				})
			}
			sleep(ctx, 2*time.Second)
			c.Net.Isolate(c.IP(2))
			for range 100 {
				if sleep(ctx, 50*time.Millisecond); sees(0) == 2 && sees(1) == 2 {
					break
				}
			}
			sleep(ctx, goneFor)
			if sees(0) == 2 && sees(1) == 2 && sees(2) == 3 {
				oneSided++
			}
			c.Net.Heal()
			healed := time.Now()
			for range 600 {
				if sleep(ctx, 50*time.Millisecond); sees(0) == 3 && sees(1) == 3 && sees(2) == 3 {
					break
				}
			}
			took := time.Since(healed)
			t.Logf("seed %d: one view %v after the end of the cut", seed, took)
			if took > 2*time.Second {
				t.Errorf("seed %d: n0 sees %d, n1 %d, n2 %d, %v after the end of the cut", seed, sees(0), sees(1), sees(2), took)
			}
			cancel()
			wg.Wait()
			for _, v := range c.History.Check(c.Rules()) {
				t.Error(v)
			}
		})
	}
	if oneSided < 4 {
		t.Errorf("one side alone had noticed the cut in %d of 8 schedules: this shows little", oneSided)
	}
}
