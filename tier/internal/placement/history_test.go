package placement_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/placement"
)

// start0 is when the views of these tests begin: not with the clock.
const start0 = int64(10 * time.Hour)

// found reports whether there is a member worth asking for a key, by Previous and by Older.
func found(h *placement.History, key string, now int64) (previous, older string) {
	return h.Previous(key, ring.Hash(key), now).To.Name, h.Older(ring.Hash(key), now).To.Name
}

// A first fill within a minute of a change of view is caused by it if the key had another owner.
func TestWhy(t *testing.T) {
	with, without := viewOf(t, sameAge, "n0", "n1", "n2"), viewOf(t, sameAge, "n0", "n2")
	joins, stays := placement.History{Self: "n1"}, placement.History{Self: "n2"}
	joins.Observe(without, start0)
	joins.Observe(with, start0)
	stays.Observe(with, start0)
	for i := range 200 {
		key := fmt.Sprint(i)
		if why := stays.Why(ring.Hash(key), start0); why != placement.Cold {
			t.Errorf("no view has changed, but a miss is %s", placement.CauseNames[why])
		}
	}
	stays.Observe(without, start0)
	seen := make(map[placement.Cause]int)
	for i := range 200 {
		key := fmt.Sprint(i)
		wantJoins, wantStays := placement.Moved, placement.OwnerLost
		if with.Owner(key).Name == "n2" {
			wantStays = placement.Cold
		} else if with.Owner(key).Name == "n0" {
			wantStays = placement.Moved
		}
		for _, x := range []struct {
			h    *placement.History
			want placement.Cause
			ask  bool
		}{{&joins, wantJoins, with.Owner(key).Name == "n1"}, {&stays, wantStays, without.Owner(key).Name == "n2"}} {
			if !x.ask {
				continue
			}
			seen[x.want]++
			for after, want := range map[time.Duration]placement.Cause{0: x.want, time.Minute: x.want, time.Minute + 1: placement.Cold} {
				if why := x.h.Why(ring.Hash(key), start0+int64(after)); why != want {
					t.Errorf("%s: a miss %v after %s has changed the view is %s, want %s", key, after, x.h.Self, placement.CauseNames[why], placement.CauseNames[want])
				}
			}
		}
	}
	if seen[placement.Cold] == 0 || seen[placement.Moved] == 0 || seen[placement.OwnerLost] == 0 {
		t.Errorf("%v: this test shows nothing", seen)
	}
}

// A node that was alone has just joined when it sees others: its keys were theirs. A member that started with it had no keys.
func TestFirstView(t *testing.T) {
	alone, v := viewOf(t, eldestFirst, "n0"), viewOf(t, eldestFirst, "n1", "n0")
	key := ownedKey(v, "n0", 0)
	for _, views := range [][]*ring.View{{v}, {alone, v}} {
		h := placement.History{Self: "n0"}
		for _, v := range views {
			h.Observe(v, start0)
		}
		for after, want := range map[time.Duration]string{0: "n1", time.Hour: "n1", time.Hour + 1: ""} {
			if got, _ := found(&h, key, start0+int64(after)); got != want {
				t.Errorf("%v after the last of %d views the previous owner is %q, want %q", after, len(views), got, want)
			}
		}
	}
	h := placement.History{Self: "n0"}
	h.Observe(viewOf(t, sameAge, "n1", "n0"), start0)
	if got, _ := found(&h, key, start0); got != "" {
		t.Errorf("%q started at the same time and is asked", got)
	}
}

// A member that started two minutes before this node, or less, may not have read its keys yet. The member that had them before is
// asked for an hour.
func TestOlderPassesOverNewcomers(t *testing.T) {
	for ago, want := range map[time.Duration]bool{time.Minute: true, 2 * time.Minute: true, 2*time.Minute + 1: false} {
		self := uint64(time.Hour)
		v := newView(t, []ring.Member{
			{Name: "n0", Addr: "n0:1", Incarnation: 1}, {Name: "n1", Addr: "n1:1", Incarnation: self - uint64(ago)}, {Name: "n2", Addr: "n2:1", Incarnation: self},
		})
		h := placement.History{Self: "n2"}
		h.Observe(v, start0)
		key := ownedKey(v, "n2", 0)
		for after, still := range map[time.Duration]bool{0: true, time.Hour: true, time.Hour + 1: false} {
			if _, older := found(&h, key, start0+int64(after)); (older == "n0") != (want && still) {
				t.Errorf("%v after a view with a member that started %v before this node: %q is asked", after, ago, older)
			}
		}
	}
}

// A key that has moved twice within an hour has two earlier owners, for an hour after the second move.
func TestMovedTwice(t *testing.T) {
	all, two, one := viewOf(t, sameAge, "n0", "n1", "n2"), viewOf(t, sameAge, "n0", "n1"), viewOf(t, sameAge, "n0")
	key := ""
	for i := 0; key == ""; i++ {
		if k := ownedKey(all, "n2", i); two.Owner(k).Name == "n1" {
			key = k
		}
	}
	for between, twice := range map[time.Duration]string{time.Minute: "n2", time.Hour: "n2", time.Hour + 1: ""} {
		h := placement.History{Self: "n0"}
		h.Observe(all, start0)
		h.Observe(two, start0)
		h.Observe(one, start0+int64(between))
		for after, still := range map[time.Duration]bool{0: true, time.Hour: true, time.Hour + 1: false} {
			previous, older := found(&h, key, start0+int64(between+after))
			if still && (previous != "n1" || older != twice) || !still && previous+older != "" {
				t.Errorf("moved twice, %v apart: %v later %q and %q are asked", between, after, previous, older)
			}
		}
		h.Observe(two, start0+int64(between+2*time.Hour)) // a later change revives none of it
		if previous, older := found(&h, ownedKey(two, "n0", 0), start0+int64(between+2*time.Hour)); previous+older != "" {
			t.Errorf("moved hours ago: %q and %q are asked", previous, older)
		}
	}
}

// The record of a member is dropped with the first change of the view after the hour for which it is asked.
func TestForgetsFormers(t *testing.T) {
	all, two, one := viewOf(t, sameAge, "n0", "n1", "n2"), viewOf(t, sameAge, "n0", "n1"), viewOf(t, sameAge, "n0")
	for after, want := range map[time.Duration]int{time.Hour: 2, time.Hour + 1: 1} {
		h := placement.History{Self: "n0"}
		h.Observe(all, start0)
		h.Observe(two, start0)
		h.Observe(one, start0+int64(after))
		if got := h.Formers(); got != want {
			t.Errorf("%v after n2 has gone, %d members have records, want %d", after, got, want)
		}
	}
}

// A stand-in owner is asked for a minute.
func TestStandInFor(t *testing.T) {
	h := placement.History{Self: "n0"}
	h.Observe(inZones(t, map[string]string{"n0": "a", "n1": "a", "n2": "b", "n3": "b"}), start0)
	h.Observe(inZones(t, map[string]string{"n0": "a", "n2": "b", "n3": "b"}), start0)
	found := 0
	for i := range 500 {
		hash := ring.Hash(fmt.Sprint(i))
		if h.StandIn(hash, start0).Found() {
			if found++; !h.StandIn(hash, start0+int64(time.Minute)).Found() {
				t.Error("a stand-in owner is asked for less than a minute")
			}
		}
		if h.StandIn(hash, start0+int64(time.Minute)+1).Found() {
			t.Error("a stand-in owner is asked for more than a minute")
		}
	}
	if found == 0 {
		t.Error("no stand-in owner is asked: this test shows nothing")
	}
}

// A member that does not answer is left alone for half a second, then for twice as long each time, for a minute at most. Failures
// during a pause do not count. An answer ends all of it.
func TestPauses(t *testing.T) {
	v := viewOf(t, eldestFirst, "n1", "n0")
	key := ownedKey(v, "n0", 0)
	h := placement.History{Self: "n0"}
	h.Observe(v, start0)
	now := start0
	ask := func() placement.Candidate { return h.Previous(key, ring.Hash(key), now) }
	for range 2 {
		if c := ask(); !c.Found() || c.Pause {
			t.Fatalf("%+v", c)
		}
		pause := 500 * time.Millisecond
		for range 10 {
			h.Failed(ask(), now)
			now += int64(pause) - 1
			if c := ask(); !c.Found() || !c.Pause {
				t.Errorf("asked before %v", pause)
			}
			h.Failed(ask(), now)
			now++
			if c := ask(); c.Pause {
				t.Errorf("not asked after %v", pause)
			}
			pause = min(2*pause, time.Minute)
		}
		h.Failed(ask(), now)
		h.Answered(ask(), true)
	}
}

// A member is asked as long as a sixteenth of its answers bring a copy, of which the last ones count most. Until then it gets the
// benefit of the doubt.
func TestWorthAsking(t *testing.T) {
	v := viewOf(t, eldestFirst, "n1", "n0")
	key := ownedKey(v, "n0", 0)
	for every, want := range map[int]int{5000: 89, 12: 2000} { // the first of so many answers brings a copy; (31/32)^88 is below 1/16
		h := placement.History{Self: "n0"}
		h.Observe(v, start0)
		n := 0
		for ; n < 2000; n++ {
			c := h.Previous(key, ring.Hash(key), start0)
			if !c.Found() {
				break
			}
			h.Answered(c, n%every == 0)
		}
		if n != want {
			t.Errorf("one answer in %d brings a copy: no longer asked after %d answers, want %d", every, n, want)
		}
	}
}
