package peertest

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// flaps are ways for a node to go and come back within six seconds, so that the others notice.
func flaps(t *testing.T, c *Cluster) map[string]func() {
	return map[string]func(){
		"killed": func() {
			if err := c.Crash(0); err != nil {
				t.Error(err)
			}
			sleep(t.Context(), 4500*time.Millisecond)
			if err := c.Start(t.Context(), 0); err != nil {
				t.Error(err)
			}
			sleep(t.Context(), 1500*time.Millisecond)
		},
		"restarted at once": func() {
			if err := c.Crash(0); err != nil {
				t.Error(err)
			}
			if err := c.Start(t.Context(), 0); err != nil {
				t.Error(err)
			}
			sleep(t.Context(), 6*time.Second)
		},
		"cut off": func() {
			c.Net.Isolate(c.IP(0))
			sleep(t.Context(), 4500*time.Millisecond)
			c.Net.Heal()
			sleep(t.Context(), 1500*time.Millisecond)
		},
		"paused": func() {
			c.Net.Pause(c.IP(0))
			sleep(t.Context(), 4500*time.Millisecond)
			c.Net.Resume(c.IP(0))
			sleep(t.Context(), 1500*time.Millisecond)
		},
		"left": func() {
			if err := c.Leave(t.Context(), 0); err != nil {
				t.Error(err)
			}
			if err := c.Start(t.Context(), 0); err != nil {
				t.Error(err)
			}
			sleep(t.Context(), 4*time.Second)
		},
	}
}

func TestFlapping(t *testing.T) {
	for _, how := range []string{"killed", "restarted at once", "cut off", "paused", "left"} {
		t.Run(how, func(t *testing.T) {
			Bubble(t, func(t *testing.T) {
				const keys = 200
				c, stop := whole(t, Options{Seed: 5, Nodes: 5, Freshness: steady, Concurrency: 50})
				defer stop()
				mine := make(map[string]bool)
				for _, key := range ownedBy(c, 0, keys/10) {
					mine[key] = true
				}
				warm(t.Context(), t, c, keys)
				sleep(t.Context(), 20*time.Second)
				before := len(c.History.loads)
				ctx, cancel := context.WithCancel(t.Context())
				wait := load(ctx, c, keys, 5*time.Millisecond)
				began := time.Now()
				flap := flaps(t, c)[how]
				changes := make([]int, 0, 10)
				for range 10 {
					flap()
					changes = append(changes, len(c.History.loads)-before)
				}
				took := time.Since(began)
				cancel()
				wait()
				if err := c.Settle(time.Minute); err != nil {
					t.Error(err)
				}
				loads := make(map[string]int)
				for _, l := range c.History.loads[before:] {
					loads[l.Key]++
				}
				times := make(map[int]int)
				for _, n := range loads {
					times[n]++
				}
				t.Logf("%v: %d loads of %d keys; of %d keys it owned; after each flap %v; keys by how often %v", took, len(c.History.loads)-before, len(loads), len(mine), changes, times)
				fmt.Println()
				for i := range c.hosts {
					_, cache := c.Node(i)
					t.Log(i, cache.Stats().LoadsBy)
				}
				for _, v := range c.History.Check(c.Rules()) {
					t.Error(v)
				}
			})
		})
	}
}
