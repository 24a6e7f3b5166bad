package roster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
)

// with returns a node that knows as many other members as given: b, c, and so on.
func with(t *testing.T, others int, changes ...func(*roster.Config)) *node {
	t.Helper()
	r := start(t, append([]func(*roster.Config){flaps}, changes...)...)
	for i := range others {
		r.NotifyJoin(gossiped(string(rune('b'+i)), 10, byte(2+i), nil))
	}
	r.Refresh()
	return r
}

func TestWhoFlapsRests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := with(t, 4)
		again := func(incarnation uint64) {
			r.NotifyLeave(gossiped("b", incarnation-1, 2, nil))
			r.NotifyJoin(gossiped("b", incarnation, 2, nil))
			pause(10 * time.Second)
		}
		again(11)
		if s := r.resting(); s != "" {
			t.Fatalf("%s rests after one restart", s)
		}
		again(12)
		rested := time.Now().Add(-10 * time.Second)
		msg := r.sent("\xf1\x01b")
		if got := r.resting(); got != "b" || msg == nil || r.lines("a member flaps") != 1 {
			t.Fatalf("rests: %q, the others are told %q; the log has %s", got, msg, r.log)
		}
		// A member that has not seen it learns of it and reaches the same result; a member that does not know of it is not
		// affected.
		o := with(t, 4)
		o.MergeRemoteState(r.LocalState(false), false)
		if got := o.resting(); got != "b" {
			t.Errorf("another one lets %q rest", got)
		}
		if msg := r.sent("\xf1"); msg != nil {
			t.Errorf("the same news again: %q", msg)
		}
		p := with(t, 4)
		p.NotifyMsg(msg)
		if got := p.resting(); got != "b" {
			t.Errorf("a third one, which gets the message, lets %q rest", got)
		}
		pause(time.Second)
		p.sent("")
		p.NotifyMsg(msg)
		p.Refresh()
		pause(time.Second)
		if msg := p.sent("\xf1"); msg != nil {
			t.Errorf("what is known is passed on: %q", msg)
		}
		pause(2*time.Minute - time.Since(rested))
		if a, b := r.resting(), o.resting(); a != "" || b != "" {
			t.Errorf("there still rest %q and %q", a, b)
		}
		if r.lines("a member no longer rests") != 1 {
			t.Errorf("the log does not say that it rests no longer: %s", r.log)
		}
		pause(time.Hour)
		if r.Refresh(); r.LocalState(false) != nil {
			t.Errorf("remembered: %q", r.LocalState(false))
		}
	})
}

func TestWhoDoesNotFlap(t *testing.T) {
	lose := func(r *node, names string, incarnation uint64) {
		for i, c := range names {
			r.NotifyLeave(gossiped(string(c), incarnation, byte(2+i), nil))
		}
		for i, c := range names {
			r.NotifyJoin(gossiped(string(c), incarnation, byte(2+i), nil))
		}
	}
	never := func(c *roster.Config) { c.HoldDown = 0 }
	for name, act := range map[string]func(r *node, round uint64){
		"each once":      func(r *node, round uint64) { lose(r, string(rune('b'+round%4)), 10) },
		"more than half": func(r *node, _ uint64) { lose(r, "bcd", 10) },
		"half of them": func(r *node, _ uint64) {
			e := leaving(gossiped("e", 10, 5, nil))
			r.NotifyUpdate(e)
			r.NotifyLeave(e)
			lose(r, "bc", 10)
		},
		"this node itself": func(r *node, _ uint64) { r.Answered("catalog-1") },
		"one that leaves": func(r *node, round uint64) {
			goodbye := leaving(gossiped("b", 10+round, 2, nil))
			r.NotifyUpdate(goodbye)
			r.NotifyJoin(gossiped("b", 11+round, 2, nil))
			r.NotifyLeave(goodbye)
		},
		"no member may": func(r *node, _ uint64) { lose(r, "b", 10) },
	} {
		bubble(t, func(t *testing.T) {
			var changes []func(*roster.Config)
			if name == "no member may" {
				changes = append(changes, never)
			}
			r := with(t, 4, changes...)
			for round := range uint64(4) {
				act(r, round)
				if state := r.LocalState(false); strings.Contains(name, "half") && state != nil {
					t.Errorf("it may be this node that was cut off, and remembers %q", state)
				}
				pause(5 * time.Second)
				if s := r.resting(); s != "" {
					t.Errorf("%s: %q rests", name, s)
				}
			}
		})
	}
	bubble(t, func(t *testing.T) { // somebody has to own the keys
		r := with(t, 4)
		for range 3 {
			for _, name := range []string{"b", "c"} {
				lose(r, name, 10)
				pause(5 * time.Second)
			}
		}
		if s := r.resting(); s != "" {
			t.Errorf("%q rest of five", s)
		}
		o := with(t, 4) // but if there are more members they may rest
		o.MergeRemoteState(r.LocalState(false), false)
		for i := range 4 {
			o.NotifyJoin(gossiped(string(rune('p'+i)), 10, byte(20+i), nil))
		}
		if s := o.resting(); s != "bc" {
			t.Errorf("%q rest of nine", s)
		}
	})
}

// TestHostileFlaps checks that whatever another member writes behind the list of lost members is read within bounds.
func TestHostileFlaps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := with(t, 4)
		r.NotifyMsg([]byte{0xf1, 1})
		for i := range 2 * maxFlaps {
			r.MergeRemoteState([]byte{1, 0, 2, byte('a' + i%26), byte('a' + i/26), 0xff, 0xff}, false)
		}
		for _, s := range []string{"", "\x00", "\x00\x05ab", "\x00\x01b", "\x00\x01b\x00", "\xff\x00", "\x05ab"} {
			r.MergeRemoteState(append([]byte{1}, s...), true)
		}
		r.Refresh()
		state := r.LocalState(false) // format, end of the names, then a text of two bytes and a penalty each, and an end
		const each = 1 + 2 + 2
		if n := (len(state) - 3) / each; n != maxFlaps || len(state) != 3+n*each {
			t.Errorf("%d are remembered, in %d bytes", n, len(state))
		}
		for b := state[2:]; len(b) > each; b = b[each:] {
			if penalty := int(b[3])<<8 | int(b[4]); penalty > 6000 {
				t.Errorf("%s: a penalty of %d", b[1:3], penalty)
			}
		}
		pause(4 * time.Minute) // three half-lives are the longest rest
		if r.Refresh(); len(r.LocalState(false)) > 3 {
			t.Errorf("still resting: %q", r.LocalState(false))
		}
	})
}

// TestReturnsCount checks which signs of life are returns of their own: those that are a while apart, of a start that gossip
// had not reported dead as well.
func TestReturnsCount(t *testing.T) {
	const onceFor = 3 * time.Second
	for _, c := range []struct {
		name  string
		apart time.Duration
		sign  func(r *node, i uint64)
		rests string
	}{
		{"two signs of one", onceFor - 1, func(r *node, _ uint64) { r.Answered("b") }, ""},
		{"two", onceFor, func(r *node, _ uint64) { r.Answered("b") }, "b"},
		{"two restarts", onceFor, func(r *node, i uint64) { r.NotifyJoin(gossiped("b", 11+i, 2, nil)) }, "b"},
	} {
		bubble(t, func(t *testing.T) {
			r := with(t, 2)
			c.sign(r, 0)
			pause(c.apart)
			if c.sign(r, 1); r.resting() != c.rests {
				t.Errorf("%s: %q rests of three", c.name, r.resting())
			}
			pair := with(t, 1)
			if pair.MergeRemoteState(r.LocalState(false), false); pair.resting() != "" {
				t.Errorf("%s: %q rests of two", c.name, pair.resting())
			}
		})
	}
	bubble(t, func(t *testing.T) { // without HoldDown nothing is remembered
		r, other := with(t, 4), with(t, 4, func(c *roster.Config) { c.HoldDown = 0 })
		for range 2 {
			r.Answered("b")
			if other.Answered("b"); other.LocalState(false) != nil {
				t.Errorf("a return is remembered: %q", other.LocalState(false))
			}
			pause(onceFor)
		}
		other.MergeRemoteState(r.LocalState(false), false)
		if other.resting() != "" || other.LocalState(false) != nil {
			t.Errorf("%q rests; it tells of %q", other.resting(), other.LocalState(false))
		}
	})
	bubble(t, func(t *testing.T) { // a returned member is no way around the bound
		r := with(t, 4)
		for i := range maxFlaps {
			r.MergeRemoteState([]byte{1, 0, 2, byte('a' + i%26), byte('a' + i/26), 0xff, 0xff}, false)
		}
		size := len(r.LocalState(false))
		for range 3 {
			r.Answered("b")
			pause(onceFor)
		}
		if got := len(r.LocalState(false)); got != size {
			t.Errorf("it tells of %d bytes, before it was %d", got, size)
		}
	})
}
