package roster

import (
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/ring"
)

// TestLostMemberForgotten checks how long a lost member counts, depending on what is known of it.
func TestLostMemberForgotten(t *testing.T) {
	now := time.Now()
	const longest, giveUp = 7 * time.Second, time.Hour
	for name, c := range map[string]struct {
		l      lost
		giveUp time.Duration
		after  time.Duration // 0: never
	}{
		"it may live":                     {l: lost{addr: "a"}},
		"it may live, and is given up":    {l: lost{addr: "a"}, giveUp: giveUp, after: giveUp},
		"it has ended":                    {l: lost{addr: "a", ended: now}, after: longest + endedGrace},
		"it has ended, before giving up":  {l: lost{addr: "a", ended: now}, giveUp: giveUp, after: longest + endedGrace},
		"only its name is known":          {l: lost{listed: now}, after: listedFor},
		"its name, and it is given up":    {l: lost{listed: now}, giveUp: time.Second, after: time.Second},
		"it has ended just now":           {l: lost{addr: "a", ended: now.Add(time.Minute)}, after: time.Minute + longest + endedGrace},
		"it ended while it was not known": {l: lost{addr: "a", ended: now.Add(-time.Minute)}, after: -1},
	} {
		c.l.at = now
		why, again := c.l.forgets(now, longest, c.giveUp)
		switch {
		case c.after < 0:
			if why == "" {
				t.Errorf("%s: it counts", name)
			}
		case why != "" || again != c.after:
			t.Errorf("%s: forgotten %q, the next look is after %v, want %v", name, why, again, c.after)
		case c.after > 0:
			if why, _ := c.l.forgets(now.Add(c.after-1), longest, c.giveUp); why != "" {
				t.Errorf("%s: forgotten too early", name)
			}
			if why, _ := c.l.forgets(now.Add(c.after), longest, c.giveUp); why == "" {
				t.Errorf("%s: not forgotten", name)
			}
		}
	}
}

// TestLostMembersTravel checks that what a member knows of lost ones reaches another one with an exchange of states,
// whichever of them are known there.
func TestLostMembersTravel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		other := func() *table {
			return newTable(func() Identity { id := sample(); id.Name = "z"; return id }(), "10.0.0.9:7946", 1, MaxMembers)
		}
		a, b, late := sampleRoster(), other(), other()
		dead, silent := gossiped("dead", 10, 2, nil), gossiped("silent", 11, 3, nil)
		for _, r := range []*table{a, b} {
			r.longest = func() time.Duration { return time.Minute }
			r.NotifyJoin(dead)
			r.NotifyJoin(silent)
			r.look(time.Now())
		}
		a.proven(ring.Member{Name: "dead", Addr: dead.Address(), Incarnation: 9}, time.Now())       // another incarnation
		a.proven(ring.Member{Name: "dead", Addr: silent.Address(), Incarnation: 10}, time.Now())    // another address
		a.proven(ring.Member{Name: "silent", Addr: silent.Address(), Incarnation: 11}, time.Now())  // but it answers afterwards
		a.NotifyPingComplete(silent, time.Millisecond, nil)                                         //
		a.proven(ring.Member{Name: "unknown", Addr: silent.Address(), Incarnation: 11}, time.Now()) // gossip knows nothing of it
		for _, r := range []*table{a, b} {
			r.NotifyLeave(dead)
			r.NotifyLeave(silent)
		}
		if s := a.look(time.Now()); len(s.unproven) != 2 || s.share.Members != 3 {
			t.Fatalf("it divides by %d, and %v may live", s.share.Members, s.unproven)
		}
		a.proven(ring.Member{Name: "dead", Addr: dead.Address(), Incarnation: 10}, time.Now())
		sleep(t.Context(), 30*time.Second)
		state := a.LocalState(false)
		b.MergeRemoteState(state, false)
		late.longest, late.losses.peak = a.longest, a.losses.peak
		late.MergeRemoteState(state, true)
		late.look(time.Now())
		for cut := range state {
			other().MergeRemoteState(state[:cut], true)
		}
		for name, r := range map[string]*table{"the one that has seen it": a, "another one": b, "one that joins": late} {
			if s := r.look(time.Now()); s.share.Members != 3 || len(s.unproven) != 1 || s.unproven[0] != (ring.Member{Name: "silent", Addr: silent.Address(), Incarnation: 11}) {
				t.Errorf("%s divides by %d, and %v may live", name, s.share.Members, s.unproven)
			}
		}
		sleep(t.Context(), time.Minute)
		a.look(time.Now())
		for name, r := range map[string]*table{"the one that has seen it": a, "another one": b, "one that joins": late} {
			s := r.look(time.Now())
			if s.share.Members != 2 {
				t.Errorf("%s divides by %d after the longest load", name, s.share.Members)
			}
		}

		// A member that has not heard of it does not bring it back, and learns of it.
		far := other()
		far.longest = a.longest
		far.NotifyJoin(dead)
		far.look(time.Now())
		far.NotifyLeave(dead)
		sleep(t.Context(), 2*tellEndedFor)
		a.MergeRemoteState(far.LocalState(true), true)
		if s := a.look(time.Now()); s.share.Members != 2 {
			t.Errorf("it is back: divided by %d", s.share.Members)
		}
		far.MergeRemoteState(a.LocalState(false), false)
		if s := far.look(time.Now()); s.share.Members != 1 {
			t.Errorf("one that has not heard of it divides by %d", s.share.Members)
		}

		// An earlier version sends only names: they count while it lists them.
		a.MergeRemoteState([]byte("\x01\x03old\x00"), false)
		if len(a.losses.lost) != 1 {
			t.Error("taken over without a join")
		}
		a.MergeRemoteState([]byte("\x01\x03old\x00"), true)
		for range 4 {
			if s := a.look(time.Now()); s.share.Members != 3 {
				t.Errorf("divided by %d while the name is listed", s.share.Members)
			}
			sleep(t.Context(), listedFor/2)
			a.MergeRemoteState([]byte("\x01\x03old\x00"), false)
		}
		if strings.Contains(string(a.LocalState(true)), "old") {
			t.Error("a name that is known from others alone is handed on")
		}
		sleep(t.Context(), listedFor)
		if s := a.look(time.Now()); s.share.Members != 2 {
			t.Errorf("divided by %d while no member lists the name", s.share.Members)
		}
	})
}

// TestEndedAreBounded checks that the memory of ended incarnations is bounded.
func TestEndedAreBounded(t *testing.T) {
	r, now := sampleRoster(), time.Now()
	for i := range uint64(2 * maxEnded) {
		n := gossiped("b", 100+i, 4, nil)
		r.NotifyJoin(n)
		r.NotifyLeave(n)
		r.proven(ring.Member{Name: "b", Addr: n.Address(), Incarnation: 100 + i}, now)
		r.look(now.Add(endedGrace))
	}
	if told := strings.Count(string(r.LocalState(true)), "\x01b"); len(r.losses.ended) != maxEnded || told != maxTold || len(r.losses.lost) != 0 {
		t.Errorf("it remembers %d, and tells of %d", len(r.losses.ended), told)
	}
}

// TestEndedMemberIsAlive checks that a living member that looks ended because of a rejecting firewall counts again as soon
// as it is back, and that the log says what happened.
func TestEndedMemberIsAlive(t *testing.T) {
	r := sampleRoster()
	n := gossiped("b", 10, 2, nil)
	now := time.Now()
	r.NotifyJoin(n)
	r.NotifyLeave(n)
	r.proven(ring.Member{Name: "b", Addr: n.Address(), Incarnation: 10}, now)
	if s := r.look(now.Add(endedGrace)); s.share.Members != 1 {
		t.Fatalf("divided by %d", s.share.Members)
	}
	r.NotifyJoin(n)
	s := r.look(now)
	if s.share.Members != 2 || len(r.losses.ended) != 0 || len(s.notices) != 1 || !strings.Contains(s.notices[0].text, "firewall") {
		t.Errorf("divided by %d, %d have ended: %v", s.share.Members, len(r.losses.ended), s.notices)
	}
}
