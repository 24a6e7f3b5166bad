package roster

import (
	"testing"
	"time"
)

func TestFlapPenalty(t *testing.T) {
	const half = time.Minute
	now := time.Now()
	f := flap{at: now}.more(1)
	if f.rests {
		t.Error("one return makes a member rest")
	}
	if f = f.after(now.Add(50*time.Second), half).more(1); !f.rests || f.penalty < 1.5 || f.penalty > 1.6 {
		t.Errorf("two within a minute: %+v", f)
	}
	left := f.left(half)
	if left < half || left > 70*time.Second {
		t.Errorf("it is to rest for %v", left)
	}
	if f.after(f.at.Add(left), half).rests || !f.after(f.at.Add(left-time.Second), half).rests {
		t.Errorf("it does not wake after %v", left)
	}
	if f = (flap{at: now}).more(1).after(now.Add(61*time.Second), half).more(1); f.rests {
		t.Errorf("two in more than a minute: %+v", f)
	}
	for range 100 {
		f = f.more(1)
	}
	if left := f.left(half); f.penalty != penaltyMax || left != 3*half+time.Millisecond {
		t.Errorf("after a hundred: %+v, to rest for %v", f, left)
	}
}

// rosterWith returns a roster that knows as many other members as given: b, c, and so on.
func rosterWith(others int) *table {
	r := sampleRoster()
	r.flaps.half = time.Minute
	for i := range others {
		r.NotifyJoin(gossiped(string(rune('b'+i)), 10, byte(2+i), nil))
	}
	return r
}

func restingOf(r *table, at time.Time) (out string) {
	for _, m := range r.look(at).members {
		if m.Resting {
			out += m.Name
		}
	}
	return out
}

func TestWhoFlapsRests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := rosterWith(4)
		again := func(incarnation uint64) {
			r.NotifyLeave(gossiped("b", incarnation-1, 2, nil))
			r.NotifyJoin(gossiped("b", incarnation, 2, nil))
			sleep(t.Context(), 10*time.Second)
		}
		again(11)
		if s := restingOf(r, time.Now()); s != "" {
			t.Fatalf("%s rests after one restart", s)
		}
		again(12)
		s := r.look(time.Now())
		if got := restingOf(r, time.Now()); got != "b" || s.flaps == nil || s.expire < 40*time.Second || s.expire > 2*time.Minute || len(s.notices) == 0 {
			t.Fatalf("rests: %q, %+v", got, s)
		}
		// A member that has not seen it learns of it and reaches the same result; a member that does not know of it is not
		// affected.
		o := rosterWith(4)
		o.MergeRemoteState(r.LocalState(false), false)
		if got := restingOf(o, time.Now()); got != "b" {
			t.Errorf("another one lets %q rest", got)
		}
		msg := r.look(time.Now()).flaps
		if msg != nil {
			t.Errorf("the same news again: %q", msg)
		}
		p := rosterWith(4)
		p.NotifyMsg(s.flaps)
		if got := restingOf(p, time.Now()); got != "b" {
			t.Errorf("a third one, who gets the message, lets %q rest", got)
		}
		p.NotifyMsg(s.flaps)
		if p.look(time.Now()).flaps != nil {
			t.Error("what is known is passed on")
		}
		sleep(t.Context(), s.expire)
		if a, b := restingOf(r, time.Now()), restingOf(o, time.Now()); a != "" || b != "" {
			t.Errorf("after %v there still rest %q and %q", s.expire, a, b)
		}
		sleep(t.Context(), time.Hour)
		if r.look(time.Now()); len(r.flaps.of) != 0 {
			t.Errorf("remembered: %v", r.flaps.of)
		}
	})
}

func TestWhoDoesNotFlap(t *testing.T) {
	lose := func(r *table, names string, incarnation uint64) {
		for i, c := range names {
			r.NotifyLeave(gossiped(string(c), incarnation, byte(2+i), nil))
		}
		for i, c := range names {
			r.NotifyJoin(gossiped(string(c), incarnation, byte(2+i), nil))
		}
	}
	leaving := func(id *Identity) { id.leaving = true }
	for name, act := range map[string]func(r *table, round uint64){
		"each once":        func(r *table, round uint64) { lose(r, string(rune('b'+round%4)), 10) },
		"half of them":     func(r *table, _ uint64) { lose(r, "bcd", 10) },
		"this node itself": func(r *table, _ uint64) { r.answered(r.self.Name) },
		"who leaves": func(r *table, round uint64) {
			r.NotifyUpdate(gossiped("b", 10+round, 2, leaving))
			r.NotifyJoin(gossiped("b", 11+round, 2, nil))
			r.NotifyLeave(gossiped("b", 10+round, 2, leaving))
		},
		"nobody may": func(r *table, round uint64) {
			r.flaps.half = 0
			lose(r, "b", 10)
		},
	} {
		bubble(t, func(t *testing.T) {
			r := rosterWith(4)
			for round := range uint64(4) {
				act(r, round)
				if name == "half of them" && len(r.flaps.of) > 0 {
					t.Errorf("it may be this node that was cut off, and counts %v", r.flaps.of)
				}
				sleep(t.Context(), 5*time.Second)
				if s := restingOf(r, time.Now()); s != "" {
					t.Errorf("%s: %q rests", name, s)
				}
			}
		})
	}
	bubble(t, func(t *testing.T) { // somebody has to own the keys
		r := rosterWith(4)
		for range 3 {
			for _, name := range []string{"b", "c"} {
				lose(r, name, 10)
				sleep(t.Context(), 5*time.Second)
			}
		}
		if s := restingOf(r, time.Now()); s != "" {
			t.Errorf("%q rest of five", s)
		}
		o := rosterWith(4) // but if there are more members they may rest
		o.MergeRemoteState(r.LocalState(false), false)
		for i := range 4 {
			o.NotifyJoin(gossiped(string(rune('p'+i)), 10, byte(20+i), nil))
		}
		if s := restingOf(o, time.Now()); s != "bc" {
			t.Errorf("%q rest of nine", s)
		}
	})
}

// TestHostileFlaps checks that whatever another member writes behind the list of lost members is read within bounds.
func TestHostileFlaps(t *testing.T) {
	r := rosterWith(4)
	r.NotifyMsg([]byte{flapFormat, 1})
	for i := range 2 * maxFlaps {
		r.MergeRemoteState([]byte{lostFormat, 0, 2, byte('a' + i%26), byte('a' + i/26), 0xff, 0xff}, false)
	}
	for _, s := range []string{"", "\x00", "\x00\x05ab", "\x00\x01b", "\x00\x01b\x00", "\xff\x00", "\x05ab"} {
		r.MergeRemoteState(append([]byte{lostFormat}, s...), true)
	}
	if len(r.flaps.of) > maxFlaps {
		t.Errorf("%d are remembered", len(r.flaps.of))
	}
	for name, f := range r.flaps.of {
		if f.penalty > penaltyMax {
			t.Errorf("%s: %+v", name, f)
		}
	}
	r.look(time.Now())
}
