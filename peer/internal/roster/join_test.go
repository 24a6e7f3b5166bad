package roster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/peer/netsim"
)

// TestJoin checks that one attempt makes a node a member for all: it learns of the others from its seed, and tells those
// that it did not try itself, before gossip does.
func TestJoin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := netsim.New(1)
		a := in(t, world, "a", 1)
		a.join() // nobody: there are no seeds
		b := in(t, world, "b", 2, seeds("10.0.0.1:7946", "10.0.0.2:7946"))
		if !a.Joined() || b.Joined() {
			t.Errorf("joined: %v without seeds, %v before the first attempt", a.Joined(), b.Joined())
		}
		b.join()
		if got := b.view(); !b.Joined() || got != "a@10.0.0.1 b@10.0.0.2" {
			t.Errorf("joined: %v; the view has %s", b.Joined(), got)
		}
		c := in(t, world, "c", 3, seeds("10.0.0.2:7946"))
		c.join()
		if got := c.view(); got != "a@10.0.0.1 b@10.0.0.2 c@10.0.0.3" || c.lines("msg=joined seeds=1 members=3") != 1 {
			t.Errorf("the view has %s; the log %s", got, c.log)
		}
		if a.Refresh(); a.Share().Members != 3 {
			t.Errorf("one that is no seed divides by %d", a.Share().Members)
		}
		pause(time.Second)
		if got := a.view(); got != c.view() {
			t.Errorf("it has the view %s", got)
		}
		pause(5 * rejoinEvery)
		for _, n := range []*node{a, b, c} {
			if n.lines("level=WARN") != 0 || n.lines("did not reach") != 0 || n.lines("level=ERROR") != 0 || n.lines("msg=joined") > 1 {
				t.Errorf("nothing is wrong, and the log has %s", n.log)
			}
		}
	})
}

// TestJoinFails checks what an operator learns of seeds that do not answer, and that the node goes on.
func TestJoinFails(t *testing.T) {
	const alone, some = "no seed answered; the node goes on alone", "some seeds did not answer"
	for _, c := range []struct {
		name        string
		seeds       []string
		down        bool // names cannot be resolved
		alone, some int
		joined      bool
	}{
		{name: "itself", seeds: []string{"10.0.0.1:7946"}, joined: true},
		{name: "an unknown name", seeds: []string{"none.test:7946"}, joined: true},
		{name: "dead", seeds: []string{"10.0.0.9:7946"}, alone: 1},
		{name: "some dead", seeds: []string{"10.0.0.2:7946", "10.0.0.9:7946"}, some: 1, joined: true},
		{name: "a name that cannot be resolved", seeds: []string{"none.test:7946"}, down: true, alone: 1},
		{name: "it, beside one that answers", seeds: []string{"none.test:7946", "10.0.0.2:7946"}, down: true, joined: true},
		{name: "it, beside one that is dead", seeds: []string{"none.test:7946", "10.0.0.9:7946"}, down: true, alone: 1},
	} {
		bubble(t, func(t *testing.T) {
			world := netsim.New(1)
			in(t, world, "b", 2)
			names := &unresolved{Resolver: world.Host("10.0.0.1")}
			n := in(t, world, "a", 1, seeds(c.seeds...), func(cfg *roster.Config) { cfg.Seeds.Network = names })
			if c.down {
				names.fails("no route to the resolver")
			}
			n.join()
			if n.Joined() != c.joined || n.lines(alone) != c.alone || n.lines(some) != c.some {
				t.Errorf("%s: joined: %v; the log has %s", c.name, n.Joined(), n.log)
			}
			if slices.Contains(c.seeds, "10.0.0.9:7946") && n.lines("error=\"10.0.0.9:7946: ") != 1 || n.lines("error occurred") != 0 {
				t.Errorf("%s: the log does not name the dead one in a line: %s", c.name, n.log)
			}
			const failing, again = "seeds cannot be resolved", "all seeds can be resolved again"
			if got := n.lines(failing) == 1; got != c.down || n.lines(again) != 0 {
				t.Errorf("%s: the log has %s", c.name, n.log)
			}
			names.fails("")
			pause(2 * rejoinEvery)
			if got := n.lines(again) == 1; got != c.down {
				t.Errorf("%s: it can be resolved again; the log has %s", c.name, n.log)
			}
			in(t, world, "late", 9, seeds("10.0.0.1:7946")).join()
			pause(2 * rejoinEvery)
			if !n.Joined() || !strings.Contains(n.view(), "late@10.0.0.9") {
				t.Errorf("%s: another node has joined it: joined %v, the view has %s", c.name, n.Joined(), n.view())
			}
		})
	}
}

// TestJoinedDespiteNames checks that a node whose seeds cannot be resolved has joined once it has another member.
func TestJoinedDespiteNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := netsim.New(1)
		names := &unresolved{Resolver: world.Host("10.0.0.1"), down: "no route to the resolver"}
		n := in(t, world, "a", 1, seeds("none.test:7946"), func(cfg *roster.Config) { cfg.Seeds.Network = names })
		n.join()
		in(t, world, "b", 2, seeds("10.0.0.1:7946")).join()
		if n.Joined() {
			t.Error("it has not tried again yet")
		}
		if pause(2 * rejoinEvery); !n.Joined() {
			t.Error("it has another member")
		}
	})
}

// TestSplitHeals checks that members that have lost each other in a split find each other by the seeds.
func TestSplitHeals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := netsim.New(1)
		a := in(t, world, "a", 1)
		b := in(t, world, "b", 2, seeds("10.0.0.1:7946"))
		b.join()
		world.Isolate("10.0.0.2")
		pause(2 * time.Minute)
		if got, other := a.view(), b.view(); got != "a@10.0.0.1" || other != "b@10.0.0.2" || !b.Joined() {
			t.Fatalf("the views have %s and %s", got, other)
		}
		world.Heal()
		pause(2 * rejoinEvery)
		if got, other := a.view(), b.view(); got != "a@10.0.0.1 b@10.0.0.2" || other != got || b.lines("msg=joined") != 1 {
			t.Errorf("the views have %s and %s; the log %s", got, other, b.log)
		}
	})
}

// TestSeedsTakeTurns checks that a node with more seeds than it tries at once tries the first ones in every second attempt,
// and all of them in four attempts, at intervals that differ, so that nodes do not try together.
func TestSeedsTakeTurns(t *testing.T) {
	const perService, services, perRound = 32, 3, 64
	bubble(t, func(t *testing.T) {
		world, calls := netsim.New(1), new(refusals)
		var fixed []string
		for s := range services {
			name := fmt.Sprintf("_w%d._tcp.test", s)
			var targets []string
			for i := range perService {
				targets = append(targets, fmt.Sprintf("10.%d.0.%d:7946", 1+s, i))
			}
			world.SetService(name, targets...)
			fixed = append(fixed, name)
		}
		names := &unresolved{Resolver: world.Host("10.0.0.1"), down: "no route to the resolver"}
		n := in(t, world, "a", 1, seeds(fixed...), calls.to, func(c *roster.Config) { c.Seeds.Network = names })
		n.join()
		var attempts [][]dialed
		for last, began := time.Now(), time.Now(); time.Since(began) < 20*rejoinEvery; pause(rejoinEvery / 100) {
			if made := calls.take(); len(made) > 0 {
				if wait := made[0].at.Sub(last); len(attempts) > 0 && (wait < rejoinEvery*8/10 || wait > rejoinEvery*12/10+time.Millisecond) {
					t.Errorf("an attempt after %v", wait)
				}
				last = made[0].at
				attempts = append(attempts, made)
			}
		}
		sooner, later := 0, 0
		for i, made := range attempts {
			if i > 0 {
				if wait := made[0].at.Sub(attempts[i-1][0].at); wait < rejoinEvery*97/100 {
					sooner++
				} else if wait > rejoinEvery*103/100 {
					later++
				}
			}
			at := make(map[string]bool)
			for _, d := range made {
				at[d.to] = true
			}
			if len(made) != perRound || len(at) != perRound {
				t.Errorf("attempt %d tries %d addresses, %d of them once", i, len(made), len(at))
			}
			for s := range services {
				for rank := range perRound / services {
					if to := fmt.Sprintf("10.%d.0.%d:7946", 1+s, rank); i%2 == 0 && !at[to] {
						t.Errorf("attempt %d does not try %s, one of the first", i, to)
					}
				}
			}
			if i%4 == 3 {
				for _, d := range slices.Concat(attempts[i-1], attempts[i-2], attempts[i-3]) {
					at[d.to] = true
				}
				if len(at) != perService*services {
					t.Errorf("%d of %d addresses had their turn by attempt %d", len(at), perService*services, i)
				}
			}
		}
		if len(attempts) < 16 || sooner == 0 || later == 0 {
			t.Errorf("%d attempts in %v, %d of them soon and %d late", len(attempts), 20*rejoinEvery, sooner, later)
		}
		for _, service := range fixed { // no address is left to try
			world.SetService(service, "down.test:7946")
		}
		calls.take()
		if pause(4 * rejoinEvery); n.Joined() || len(calls.take()) > 0 {
			t.Errorf("joined: %v", n.Joined())
		}
	})
}
