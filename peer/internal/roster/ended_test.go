package roster_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/ring"
)

// TestLostMemberForgotten checks how long a lost member counts, depending on what is known of it.
func TestLostMemberForgotten(t *testing.T) {
	const longest, giveUp, never = 7 * time.Second, 10 * time.Minute, time.Hour
	for name, c := range map[string]struct {
		giveUp time.Duration
		proven time.Duration // when evidence of its end comes; negative: none
		bare   bool          // only its name is known
		after  time.Duration
	}{
		"it may live":                    {proven: -1, after: never},
		"it may live, and is given up":   {proven: -1, giveUp: giveUp, after: giveUp},
		"it has ended":                   {after: longest + endedGrace},
		"it has ended, before giving up": {giveUp: giveUp, after: longest + endedGrace},
		"it has ended later":             {proven: time.Minute, after: time.Minute + longest + endedGrace},
		"it has ended, and is given up":  {giveUp: time.Second, after: time.Second},
		"only its name is known":         {proven: -1, bare: true, after: listedFor},
		"its name, and it is given up":   {proven: -1, bare: true, giveUp: time.Second, after: time.Second},
	} {
		bubble(t, func(t *testing.T) {
			r := start(t, func(cfg *roster.Config) { cfg.GiveUp = c.giveUp })
			r.host.loads(longest)
			b := gossiped("b", 10, 2, nil)
			r.NotifyJoin(b)
			r.Refresh()
			if began := time.Now(); c.bare {
				r.NotifyJoin(gossiped("c", 10, 3, nil)) // so that there is room for one more
				r.Refresh()
				r.NotifyUpdate(leaving(b))
				r.NotifyLeave(b)
				r.MergeRemoteState([]byte("\x01\x03old\x00"), true)
			} else {
				r.NotifyLeave(b)
				if c.proven >= 0 {
					pause(c.proven)
					r.Proven(at(b))
				}
				c.after -= time.Since(began)
			}
			pause(c.after - time.Millisecond)
			if n := len(r.lost()); n != 1 {
				t.Errorf("%s: %d are lost before it is due to be forgotten", name, n)
			}
			pause(time.Millisecond)
			if n := len(r.lost()); n != 0 && c.after != never || n != 1 && c.after == never {
				t.Errorf("%s: %d are lost", name, n)
			}
		})
	}
	bubble(t, func(t *testing.T) { // it ended a minute ago, and this node did not know
		r, a := start(t), start(t, named("z", 9))
		a.host.loads(time.Hour)
		b := gossiped("b", 10, 2, nil)
		for _, n := range []*node{r, a} {
			n.NotifyJoin(b)
			n.Refresh()
			n.NotifyLeave(b)
		}
		a.Proven(at(b))
		pause(time.Minute)
		r.MergeRemoteState(a.LocalState(false), false)
		if n := len(r.lost()); n != 0 {
			t.Errorf("%d count although a load can no longer run", n)
		}
	})
}

// TestLostMembersTravel checks that what a member knows of lost ones reaches another one with an exchange of states,
// whichever of them are known there.
func TestLostMembersTravel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		other := func() *node {
			n := start(t, named("z", 9))
			n.host.loads(time.Minute)
			return n
		}
		a, b, late := start(t), other(), other()
		a.host.loads(time.Minute)
		dead, silent := gossiped("dead", 10, 2, nil), gossiped("silent", 11, 3, nil)
		for _, r := range []*node{a, b} {
			r.NotifyJoin(dead)
			r.NotifyJoin(silent)
			r.Refresh()
		}
		for i := range byte(2) { // late has seen as many members at once, others, which have left
			n := gossiped(fmt.Sprint(i), 5, 5+i, nil)
			late.NotifyJoin(n)
		}
		late.Refresh()
		for i := range byte(2) {
			n := leaving(gossiped(fmt.Sprint(i), 5, 5+i, nil))
			late.NotifyUpdate(n)
			late.NotifyLeave(n)
		}
		a.Proven(ring.Member{Name: "dead", Addr: dead.Address(), Incarnation: 9})       // another incarnation
		a.Proven(ring.Member{Name: "dead", Addr: silent.Address(), Incarnation: 10})    // another address
		a.Proven(at(silent))                                                            // but it answers afterwards
		a.NotifyPingComplete(silent, time.Millisecond, nil)                             //
		a.Proven(ring.Member{Name: "unknown", Addr: silent.Address(), Incarnation: 11}) // gossip knows nothing of it
		for _, r := range []*node{a, b} {
			r.NotifyLeave(dead)
			r.NotifyLeave(silent)
		}
		if got := a.unproven(); got != "deadsilent" || a.divisor() != 3 {
			t.Fatalf("it divides by %d, and %v may live", a.divisor(), got)
		}
		a.Proven(at(dead))
		pause(30 * time.Second)
		state := a.LocalState(false)
		b.MergeRemoteState(state, false)
		late.MergeRemoteState(state, true)
		for cut := range state {
			b.MergeRemoteState(state[:cut], false)
		}
		all := map[string]*node{"the one that has seen it": a, "another one": b, "one that joins": late}
		for name, r := range all {
			if got := r.unproven(); got != "silent" || r.Share().Members != 3 {
				t.Errorf("%s divides by %d, and %v may live", name, r.Share().Members, got)
			}
		}
		pause(time.Minute)
		for name, r := range all {
			if n := r.divisor(); n != 2 {
				t.Errorf("%s divides by %d after the longest load", name, n)
			}
		}

		// A member that has not heard of it does not bring it back, and learns of it.
		far := other()
		far.NotifyJoin(dead)
		far.Refresh()
		far.NotifyLeave(dead)
		pause(2 * tellEndedFor)
		a.MergeRemoteState(far.LocalState(true), true)
		if n := a.divisor(); n != 2 {
			t.Errorf("it is back: divided by %d", n)
		}
		far.MergeRemoteState(a.LocalState(false), false)
		if n := far.divisor(); n != 1 {
			t.Errorf("one that has not heard of it divides by %d", n)
		}

		// An earlier version sends only names: they count while it lists them.
		a.MergeRemoteState([]byte("\x01\x03old\x00"), false)
		if n := len(a.lost()); n != 1 {
			t.Error("taken over without a join")
		}
		a.MergeRemoteState([]byte("\x01\x03old\x00"), true)
		for range 4 {
			if n := a.divisor(); n != 3 {
				t.Errorf("divided by %d while the name is listed", n)
			}
			pause(listedFor / 2)
			a.MergeRemoteState([]byte("\x01\x03old\x00"), false)
		}
		if strings.Contains(string(a.LocalState(true)), "old") {
			t.Error("a name that is known from others alone is handed on")
		}
		pause(listedFor)
		if n := a.divisor(); n != 2 {
			t.Errorf("divided by %d while no member lists the name", n)
		}
	})
}

// TestEndedAreBounded checks that the memory of ended incarnations is bounded: it keeps the latest ones from coming back
// with what another member says, and no longer the first ones.
func TestEndedAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const together = 64
		r := start(t)
		for i := range uint64(2 * maxEnded / together) {
			for j := range together {
				r.NotifyJoin(gossiped(fmt.Sprintf("b%02d", j), 100+i, byte(4+j), nil))
			}
			r.Refresh()
			for j := range together {
				n := gossiped(fmt.Sprintf("b%02d", j), 100+i, byte(4+j), nil)
				r.NotifyLeave(n)
				r.Proven(at(n))
			}
			pause(endedGrace)
			if n := len(r.lost()); n != 0 {
				t.Fatalf("%d are lost", n)
			}
		}
		if told := strings.Count(string(r.LocalState(true)), "\x03b"); told != maxTold {
			t.Errorf("it tells of %d", told)
		}
		for incarnation, want := range map[uint64]int{
			100 + 2*maxEnded/together - 1: 0, // the last one
			100 + maxEnded/together:       0, // the first one that is remembered
			100 + maxEnded/together - 1:   1,
			100:                           1,
		} {
			other := start(t, named("z", 9))
			n := gossiped("b07", incarnation, 4, nil)
			other.NotifyJoin(n)
			other.Refresh()
			other.NotifyLeave(n)
			r.MergeRemoteState(other.LocalState(true), true)
			if lost := r.lost(); len(lost) != want {
				t.Errorf("start %d: %d are lost, want %d", incarnation, len(lost), want)
			}
			r.NotifyJoin(n)
			r.NotifyUpdate(leaving(n))
			r.NotifyLeave(n)
		}
	})
}

// TestEndedMemberIsAlive checks that a living member that looks ended because of a rejecting firewall counts again as soon
// as it is back, and that the log says what happened.
func TestEndedMemberIsAlive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		n := gossiped("b", 10, 2, nil)
		r.NotifyJoin(n)
		r.Refresh()
		r.NotifyLeave(n)
		r.Proven(at(n))
		pause(endedGrace)
		if n := r.divisor(); n != 1 {
			t.Fatalf("divided by %d", n)
		}
		r.NotifyJoin(n)
		if got := r.divisor(); got != 2 || r.lines("firewall") != 1 {
			t.Errorf("divided by %d; the log has %s", got, r.log)
		}
		if r.LocalState(false) != nil {
			t.Errorf("it is still remembered: %q", r.LocalState(false))
		}
	})
}
