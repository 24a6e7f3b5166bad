package peer

import (
	"testing"
	"time"
)

// What becomes of a member that gossip says is dead, as verdict.go has it.
func TestVerdicts(t *testing.T) {
	start := time.Now()
	doubtedRoster := func() (*roster, *hearing) {
		r := sampleRoster()
		r.NotifyJoin(gossiped("b", 10, 2, nil))
		r.hearing = &hearing{base: start.Add(-time.Minute)}
		return r, r.hearing
	}
	const both, alone = "b@10.0.0.2 catalog-1@10.0.0.1", "catalog-1@10.0.0.1"
	b := gossiped("b", 10, 2, nil)
	for _, c := range []struct {
		name string
		do   func(r *roster, h *hearing) (at time.Time)
		view string
		lost bool
	}{
		{"this node could listen", func(r *roster, h *hearing) time.Time {
			r.NotifyLeave(b)
			return time.Now()
		}, alone, true},
		{"it could not", func(r *roster, h *hearing) time.Time {
			h.fired(time.Now().Add(-time.Second), time.Now())
			r.NotifyLeave(b)
			return time.Now()
		}, both, false},
		{"it could not, and the member contradicts", func(r *roster, h *hearing) time.Time {
			h.fired(time.Now().Add(-time.Second), time.Now())
			r.NotifyLeave(b)
			r.NotifyJoin(b)
			return time.Now().Add(time.Hour)
		}, both, false},
		{"it can again", func(r *roster, h *hearing) time.Time {
			h.fired(time.Now().Add(-time.Second), time.Now())
			r.NotifyLeave(b)
			return time.Now().Add(hearingAfter + refuteWithin)
		}, alone, true},
		{"it cannot for long", func(r *roster, h *hearing) time.Time {
			h.fired(time.Now().Add(-time.Second), time.Now())
			r.NotifyLeave(b)
			at := time.Now().Add(doubtMost - time.Second)
			h.fired(at.Add(-time.Second), at)
			if got := seen(r.look(at)); got != both {
				t.Errorf("after %v the view has %s", doubtMost-time.Second, got)
			}
			h.fired(at, at.Add(time.Second))
			return at.Add(time.Second)
		}, alone, true},
		{"the process is known to have ended before", func(r *roster, h *hearing) time.Time {
			h.fired(time.Now().Add(-time.Second), time.Now())
			r.table[b.Name].ended = time.Now()
			r.NotifyLeave(b)
			return time.Now()
		}, alone, true},
		{"it is found to have ended", func(r *roster, h *hearing) time.Time {
			h.fired(time.Now().Add(-time.Second), time.Now())
			r.NotifyLeave(b)
			r.table[b.Name].ended = time.Now()
			return time.Now()
		}, alone, true},
		{"it has said that it leaves", func(r *roster, h *hearing) time.Time {
			h.fired(time.Now().Add(-time.Second), time.Now())
			r.NotifyLeave(b)
			id := r.table[b.Name].id
			id.leaving = true
			r.NotifyMsg(id.append(nil))
			return time.Now()
		}, alone, false},
	} {
		r, h := doubtedRoster()
		s := r.look(c.do(r, h))
		if got := seen(s); got != c.view || r.lost("b") != c.lost {
			t.Errorf("%s: the view has %s, lost %v", c.name, got, r.lost("b"))
		}
		if c.view == both && r.table[b.Name].doubted != (time.Time{}) && (s.expire <= 0 || s.expire > refuteWithin) {
			t.Errorf("%s: looks again after %v", c.name, s.expire)
		}
		if f := r.flaps["b"]; f.penalty != 0 {
			t.Errorf("%s: a member that was not lost has come back: %+v", c.name, f)
		}
	}
}
