package peertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestCrashAcrossZones crashes one of five nodes in three zones under load. Until that node is out of the views, a member
// of another zone stands in for it. After that another member may own its keys: it asks the stand-in, so each key is loaded
// once.
func TestCrashAcrossZones(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			Bubble(t, func(t *testing.T) {
				c, stop := whole(t, Options{Seed: seed, Nodes: 5, Freshness: steady, Concurrency: 50, Zones: 3, Probe: 500 * time.Millisecond})
				defer stop()
				keys := ownedBy(c, 0, 200)
				first, _ := c.Node(1)
				before := first.View()
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := 1; i < len(c.hosts); i++ {
					for k := range 3 {
						dice := c.random(uint64(10*i + k))
						wg.Go(func() {
							for ctx.Err() == nil {
								c.Get(i, keys[dice.IntN(len(keys))], c.patience())
								sleep(ctx, upTo(dice, 20*time.Millisecond))
							}
						})
					}
				}
				sleep(ctx, 2*time.Second)
				old := len(c.History.loads)
				if err := c.Crash(0); err != nil {
					t.Error(err)
				}
				crashed := time.Now()
				for changed := first.ViewChanged(); first.View().Len() == 5; changed = first.ViewChanged() {
					<-changed
				}
				noticed := time.Since(crashed)
				sleep(ctx, 8*time.Second)
				cancel()
				wg.Wait()

				loads := make(map[string]int)
				for _, l := range c.History.loads[old:] {
					loads[l.Node]++
				}
				elsewhere := 0
				for _, key := range keys {
					if next, _ := before.Successor(key); next.Name != first.View().Owner(key).Name {
						elsewhere++
					}
				}
				if elsewhere < len(keys)/10 {
					t.Errorf("another one than the stand-in becomes the owner of %d keys: too few", elsewhere)
				}
				all, errs := len(c.History.loads)-old, 0
				for _, r := range c.History.reads {
					if r.Err != nil {
						errs++
					}
				}
				t.Logf("seed %d, noticed after %v: %d loads for %d keys, of which %d went to another one than the stand-in: %v; %d of %d reads failed", seed, noticed, all, len(keys), elsewhere, loads, errs, len(c.History.reads))
				if 10*all > 11*len(keys) || errs > 0 {
					t.Errorf("%d loads for %d keys, %d errors", all, len(keys), errs)
				}
				for _, v := range c.History.Check(c.Rules()) {
					t.Error(v)
				}
			})
		})
	}
}
