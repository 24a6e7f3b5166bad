package roster_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/ring"
)

// TestMembers checks what is listed of a member in each state.
func TestMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		live, leaver, dead := gossiped("b", 10, 2, func(id *roster.Identity) { id.Zone = "east" }), gossiped("c", 10, 3, nil), gossiped("d", 10, 4, nil)
		foreign := gossiped("e", 10, 5, func(id *roster.Identity) { id.Cluster = "other" })
		r.NotifyJoin(live)
		r.NotifyJoin(leaver)
		r.NotifyUpdate(leaving(leaver))
		r.NotifyJoin(dead)
		r.NotifyLeave(dead)
		r.NotifyJoin(foreign)
		r.NotifyPingComplete(live, 80*time.Millisecond, nil)
		r.NotifyPingComplete(live, 160*time.Millisecond, nil)
		r.Refresh()
		var got []string
		for _, m := range r.Members() {
			text := fmt.Sprint(m.Name, " ", m.Addr, " ", m.Incarnation, " ", m.State, " ", m.Zone, " ", m.RTT, " ", m.Reason)
			if m.Since != nil {
				text += time.Since(*m.Since).String()
			}
			got = append(got, text)
		}
		want := []string{
			"b 10.0.0.2:7946 10 alive east 90ms ", "c 10.0.0.3:7946 10 leaving  0s ", "catalog-1 10.0.0.1:7946 4660 alive  0s ",
			"d 10.0.0.4:7946 10 lost  0s 0s", `e 10.0.0.5:7946 10 refused  0s its cluster is "other", this is "weir"`,
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestRefusedLater checks that a member that is in the view and then says that it places keys otherwise is out of it, and
// that the log says so.
func TestRefusedLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := with(t, 1)
		r.NotifyUpdate(gossiped("b", 10, 2, func(id *roster.Identity) { id.Placement++ }))
		if got := r.view(); got != "catalog-1@10.0.0.1" || r.lines("a member is kept out of the view") != 1 {
			t.Errorf("the view has %s; the log %s", got, r.log)
		}
	})
}

// TestAnnouncedMembersAreBounded checks that only so many announced members count, each for as long as its own announcement.
func TestAnnouncedMembersAreBounded(t *testing.T) {
	const maxExpected = 128
	bubble(t, func(t *testing.T) {
		r := start(t)
		for i := range 2 * maxExpected {
			r.NotifyMsg(gossiped(fmt.Sprint("b", i), 10, byte(i), nil).Meta)
		}
		if n := r.divisor(); n != 1+maxExpected {
			t.Errorf("it divides by %d", n)
		}
		pause(expectTime)
		if n := r.divisor(); n != 1 {
			t.Errorf("it divides by %d", n)
		}
		const between, slack = 4 * time.Second, time.Millisecond
		for _, name := range []string{"b", "c", "d"} {
			r.NotifyMsg(gossiped(name, 10, 2, nil).Meta)
			pause(between)
		}
		pause(expectTime + settleTime - 3*between + slack) // it looks again without being told to
		if n := r.Share().Members; n != 3 {
			t.Errorf("the first announcement has just ended: it divides by %d", n)
		}
		pause(between + between)
		if n := r.Share().Members; n != 1 {
			t.Errorf("all announcements have ended: it divides by %d", n)
		}
	})
}

// TestNoticesAreBounded checks that only so many lines wait to be logged.
func TestNoticesAreBounded(t *testing.T) {
	const maxNotices = 64
	bubble(t, func(t *testing.T) {
		r := prepare(t)
		for i := range 2 * maxNotices {
			n := leaving(gossiped(fmt.Sprint("b", i), 10, byte(i), nil))
			r.NotifyJoin(n)
			r.NotifyLeave(n)
		}
		if r.begin(t); r.lines("a member has left") != maxNotices {
			t.Errorf("%d lines", r.lines("a member has left"))
		}
	})
}

// TestRankAmongEqualStarts checks that members that started at one moment rank by name, and later ones behind them.
func TestRankAmongEqualStarts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		r.NotifyJoin(gossiped("a", 0x1234, 2, nil))
		r.NotifyJoin(gossiped("z", 0x1234, 3, nil))
		r.NotifyJoin(gossiped("b", 0x1235, 4, nil))
		r.NotifyJoin(gossiped("c", 0x1236, 5, nil))
		r.NotifyJoin(gossiped("y", 0x1233, 6, nil))
		if n := r.divisor(); n != 6 || r.Share().Rank != 2 {
			t.Errorf("%+v", r.Share())
		}
	})
}

// TestProofIsSoughtAgain checks how often and how many at once the host is asked whether lost members have ended.
func TestProofIsSoughtAgain(t *testing.T) {
	const proofEvery, proofTogether = 5 * time.Second, 8
	bubble(t, func(t *testing.T) {
		r := with(t, 20)
		asked := make(map[time.Duration]int)
		began := time.Now()
		r.host.proves(func(ring.Member) bool { asked[time.Since(began)]++; return false })
		for i := range 12 {
			r.NotifyLeave(gossiped(string(rune('b'+i)), 10, byte(2+i), nil))
		}
		pause(2*proofEvery + time.Second)
		r.host.proves(nil)
		if len(asked) != 3 || asked[0] != 12 || asked[proofEvery] != 12 || asked[2*proofEvery] != 12 {
			t.Errorf("asked %v", asked)
		}
	})
}

// TestEndedTravelsInTime checks that the time of an end survives an exchange of states, to the second, and that others are
// told of it for tellEndedFor after it was forgotten here.
func TestEndedTravelsInTime(t *testing.T) {
	for _, age := range []time.Duration{0, 7 * time.Second} {
		bubble(t, func(t *testing.T) {
			a, b, n := start(t), start(t, named("z", 9)), gossiped("b", 10, 2, nil)
			for _, r := range []*node{a, b} {
				r.NotifyJoin(n)
				r.Refresh()
				r.NotifyLeave(n)
			}
			a.Proven(at(n))
			pause(age)
			b.MergeRemoteState(a.LocalState(false), false)
			if b.unproven() != "" {
				t.Error("it has not heard of the end")
			}
			pause(endedGrace - age - time.Second - time.Millisecond)
			if len(b.lost()) != 1 {
				t.Errorf("after %v, and later: it is forgotten too early", age)
			}
			pause(time.Second + 2*time.Millisecond)
			if len(b.lost()) != 0 {
				t.Errorf("after %v, and later: it is not forgotten", age)
			}
			pause(tellEndedFor - 10*time.Millisecond)
			if !strings.Contains(string(b.LocalState(false)), "\x01b") {
				t.Error("the others are told no more")
			}
			pause(10 * time.Millisecond)
			if strings.Contains(string(b.LocalState(false)), "\x01b") {
				t.Error("the others are still told")
			}
		})
	}
}

// TestNameIsKnownBetter checks that a lost member known by its name alone is replaced by what another member knows of it,
// and that no start that is alive here is taken over as lost.
func TestNameIsKnownBetter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, old := start(t), start(t, named("z", 9)), gossiped("old", 10, 2, nil)
		a.NotifyJoin(old)
		a.Refresh()
		a.NotifyLeave(old)
		state := a.LocalState(true)
		b.MergeRemoteState([]byte("\x01\x03old\x00"), true)
		if lost := b.lost(); len(lost) != 1 || lost[0].Addr != "" {
			t.Fatalf("lost: %+v", lost)
		}
		b.MergeRemoteState(state, false)
		if lost := b.lost(); len(lost) != 1 || lost[0].Addr != "10.0.0.2:7946" || lost[0].Incarnation != 10 {
			t.Errorf("lost: %+v", lost)
		}
		c := start(t, named("y", 8))
		c.NotifyJoin(old)
		c.MergeRemoteState(state, true)
		if lost := c.lost(); len(lost) != 0 || c.divisor() != 2 {
			t.Errorf("it is alive here, and lost: %+v", lost)
		}
	})
}

// TestStateHasAll checks that a node tells of lost members and of penalties together.
func TestStateHasAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := with(t, 4)
		r.NotifyLeave(gossiped("b", 10, 2, nil))
		r.Answered("c")
		if state := string(r.LocalState(false)); !strings.Contains(state, "\x01b") {
			t.Errorf("one is lost and one has a penalty: it tells of %q", state)
		}
	})
}

// TestTexts checks what the errors say of a malformed text.
func TestTexts(t *testing.T) {
	id := sample()
	meta := id.Append(nil)
	fixed := len(meta) - 2 - len(id.Name) - len(id.Cluster)
	for cut, want := range map[int]string{
		0:         "malformed meta: not of format 1",
		1:         "malformed meta: 1 bytes",
		fixed - 1: fmt.Sprintf("malformed meta: %d bytes", fixed-1),
		fixed:     "malformed meta: name: cut short",
		fixed + 4: "malformed meta: name: 9 bytes where 3 are left",
	} {
		if _, err := roster.DecodeIdentity(meta[:cut]); err == nil || err.Error() != want {
			t.Errorf("%d bytes: %v, want %s", cut, err, want)
		}
	}
	if _, err := roster.New(roster.Config{Ring: ring.Config{Partitions: -1}}, new(host)); !errors.Is(err, ring.ErrConfig) {
		t.Errorf("a wrong ring: %v", err)
	}
}
