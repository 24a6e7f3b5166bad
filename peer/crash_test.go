package peer

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/ring"
)

// TestNewNamesAfterCrashes checks that each cap is divided by the number of actual members while processes crash and come
// back under new names at new addresses, and while all of them are replaced gracefully by others with new names. A silent
// member counts; a member whose machine does not answer counts for Config.GiveUp.
func TestNewNamesAfterCrashes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, log := newMemNet(), new(testlog.Log)
		next := 0
		pod := func() *Node {
			next++
			pause(t.Context(), time.Millisecond)
			return simulated(t, world, next, Config{Name: fmt.Sprintf("pod-%d", next), Join: []string{"10.0.0.1:7946", "10.0.0.5:7946", "10.0.0.9:7946"}, GiveUp: 75 * time.Second, Logger: log.Logger()})
		}
		var nodes []*Node
		settled := func(members int, when string) {
			t.Helper()
			ranks := make(map[int]bool)
			for _, n := range nodes {
				await(t, n, when, func(v *ring.View) bool { return v.Len() == len(nodes) })
			}
			pause(t.Context(), 2*proofEvery+pushPullInterval+endedGrace+2*settleTime)
			for _, n := range nodes {
				m, rank := n.Divisor()
				if ranks[rank] = true; m != members {
					t.Errorf("%s: %s divides by %d, not %d", when, n.Name(), m, members)
				}
			}
			if len(ranks) != len(nodes) {
				t.Errorf("%s: %d members have %d ranks", when, len(nodes), len(ranks))
			}
		}
		for range 4 {
			nodes = append(nodes, pod())
		}
		settled(4, "at first")
		for range 3 {
			_ = nodes[0].Close()
			nodes = append(nodes[1:], pod())
		}
		settled(4, "after three crashes")
		for range 4 {
			if err := nodes[0].Leave(t.Context()); err != nil {
				t.Error(err)
			}
			nodes = append(nodes[1:], pod())
		}
		settled(4, "after a rolling restart")

		// A process ends while only one other member can reach its address: the word of that member is enough.
		dead := nodes[3]
		host := strings.TrimSuffix(dead.Addr(), ":7946")
		for _, n := range nodes[1:3] {
			world.Cut(strings.TrimSuffix(n.Addr(), ":7946"), host)
		}
		_ = dead.Close()
		nodes = append(nodes[:3], pod())
		settled(4, "after a crash that one member has seen")

		// A machine without power refuses nothing.
		dark := nodes[2]
		world.Pause(strings.TrimSuffix(dark.Addr(), ":7946"))
		nodes = append(nodes[:2], nodes[3], pod())
		settled(5, "with a silent machine")
		pause(t.Context(), 75*time.Second)
		settled(4, "when it is given up")
		_ = dark.Close()
		world.Heal()
		if s := log.String(); !strings.Contains(s, "event=member_ended") || !strings.Contains(s, "Config.GiveUp") {
			t.Errorf("the log does not say so:\n%s", s)
		}
	})
}

// TestProofsOfAnEnd checks that another member that answers at the address proves the end of the one that was there, with
// and without a secret. A closed node has no share of a cap, so a refusal proves that it runs no loads.
func TestProofsOfAnEnd(t *testing.T) {
	for name, secret := range map[string]Secret{"plain": nil, "secret": Secret("0123456789abcdef0123456789abcdef")} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				world := newMemNet()
				a := simulated(t, world, 1, Config{Secret: secret})
				b := simulated(t, world, 2, Config{Secret: secret}) // of another cluster of one
				for _, m := range []ring.Member{{Name: "x", Addr: b.Addr(), Incarnation: 10}, {Name: "n2", Addr: b.Addr(), Incarnation: 10}} {
					if ended := (rosterHost{a}).HasEnded(t.Context(), m); ended != (m.Name == "x") {
						t.Errorf("%s: ended %v", m.Name, ended)
					}
				}
				_ = b.Close()
				synctest.Wait()
				if m, rank := b.Divisor(); m < 1<<30 || rank != m-1 {
					t.Errorf("a closed node has share %d of %d", rank, m)
				}
			})
		})
	}
}
