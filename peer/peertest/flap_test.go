package peertest

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// flaps returns ways for a node to go and come back within six seconds, so that the others notice.
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

// flapping plays ten flaps of one of five nodes within a minute, under load. It returns how often, on average, the others
// loaded each of that node's keys.
func flapping(t *testing.T, how string, holdDown time.Duration) (rounds float64) {
	const keys = 200
	c, stop := whole(t, Options{Seed: 5, Nodes: 5, Freshness: steady, Concurrency: 50, HoldDown: holdDown})
	defer stop()
	n0, _ := c.Node(0)
	mine := make(map[string]bool)
	for k := range keys {
		if key := fmt.Sprintf("k%d", k); n0.View().Owner(key).Name == "n0" {
			mine[key] = true
		}
	}
	warm(t.Context(), t, c, keys)
	sleep(t.Context(), 20*time.Second)
	before := len(c.History.loads)
	if how == "left" {
		c.History.BeginMoves()
	}
	ctx, cancel := context.WithCancel(t.Context())
	wait := load(ctx, c, keys, 15*time.Millisecond)
	flap := flaps(t, c)[how]
	for range 10 {
		flap()
	}
	sleep(ctx, 20*time.Second)
	cancel()
	wait()
	if how == "left" {
		c.History.EndMoves()
	}
	loads := 0
	for _, l := range c.History.loads[before:] {
		if mine[l.Key] && l.Node != "n0" || l.Node == "n0" && how != "cut off" && how != "paused" { // in those two cases n0 is one side of a split
			loads++
		}
	}
	rounds = float64(loads) / float64(len(mine))
	t.Logf("%s: %d loads for %d keys, %.1f for each", how, loads, len(mine), rounds)

	prints := make(map[uint64]bool) // all nodes must have one view, whether the node rests in it or not
	for i := range c.hosts {
		n, _ := c.Node(i)
		prints[n.View().Fingerprint()] = true
	}
	if len(prints) > 1 {
		t.Errorf("%d different views", len(prints))
	}
	if err := c.Settle(5 * time.Minute); err != nil {
		t.Error(err)
	}
	for i := range c.hosts {
		if n, _ := c.Node(i); n.View().Share("n0") == 0 {
			t.Errorf("in %s's view n0 still rests", n.Name())
		}
	}
	for _, v := range c.History.Check(c.Rules()) {
		t.Error(v)
	}
	return rounds
}

// mostRounds is how many loads of each key ten flaps may cost. A node that goes abruptly and comes back ten times in a
// minute makes its keys cold twice, then it rests. A round costs up to two loads of a key: the successor's, which keeps the
// value for five seconds, and the one that follows.
const mostRounds = 4.5

func TestFlapping(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		if rounds := flapping(t, "restarted at once", 0); rounds > mostRounds {
			t.Errorf("%.1f loads for each key", rounds)
		}
	})
}

// TestFlappingLong checks all kinds of flaps, and without the hold-down as a control. Without it each of the ten rounds
// costs two loads, unless only links fail: a member that is cut off keeps its copies, and its stand-in keeps its own.
func TestFlappingLong(t *testing.T) {
	for _, how := range []string{"killed", "restarted at once", "cut off", "paused"} {
		t.Run(how, func(t *testing.T) {
			Bubble(t, func(t *testing.T) {
				if rounds := flapping(t, how, 0); rounds > mostRounds {
					t.Errorf("%.1f loads for each key", rounds)
				}
			})
			if how == "cut off" {
				return
			}
			Bubble(t, func(t *testing.T) { // the control
				if rounds := flapping(t, how, -1); rounds < 1.5*mostRounds {
					t.Errorf("without the hold-down there are only %.1f loads for each key: this test proves nothing", rounds)
				}
			})
		})
	}
}

// TestLeavingOften checks that a node hands its entries over each time it leaves, however often it does.
func TestLeavingOften(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		if rounds := flapping(t, "left", 0); rounds > 0.1 {
			t.Errorf("%.1f loads for each key", rounds)
		}
	})
}
