package roster

import (
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/hearing"
)

// TestVerdicts checks what happens to a member that gossip declares dead, as in the table in verdict.go.
func TestVerdicts(t *testing.T) {
	const both, alone = "b@10.0.0.2 catalog-1@10.0.0.1", "catalog-1@10.0.0.1"
	b := gossiped("b", 10, 2, nil)
	late := func(h *hearing.Monitor, at time.Time) { h.Fired(at.Add(-time.Second), at) } // the node cannot listen at that time
	for _, c := range []struct {
		name   string
		deaf   bool // this node cannot listen when gossip declares it dead
		before func(r *table)
		then   func(r *table)
		after  time.Duration // when the roster is evaluated
		later  bool          // the node cannot listen then either
		view   string
		lost   bool
	}{
		{name: "this node could listen", view: alone, lost: true},
		{name: "it could not", deaf: true, view: both},
		{name: "it could not, and the member contradicts", deaf: true, then: func(r *table) { r.NotifyJoin(b) }, after: time.Hour, view: both},
		{name: "it can listen again", deaf: true, after: hearing.CatchUp + refuteWithin, view: alone, lost: true},
		{name: "it cannot listen for a while", deaf: true, after: doubtMost - time.Second, later: true, view: both},
		{name: "it cannot listen for long", deaf: true, after: doubtMost, later: true, view: alone, lost: true},
		{name: "the process was known to have ended", deaf: true, before: func(r *table) { r.records[b.Name].ended = time.Now() }, view: alone, lost: true},
		{name: "the process is found to have ended", deaf: true, then: func(r *table) { r.records[b.Name].ended = time.Now() }, view: alone, lost: true},
		{name: "the member has said that it leaves", deaf: true, then: func(r *table) {
			id := r.records[b.Name].id
			id.leaving = true
			r.NotifyMsg(id.Append(nil))
		}, view: alone},
	} {
		r := sampleRoster()
		now := time.Now()
		r.hearing = hearing.New(now.Add(-time.Minute))
		r.NotifyJoin(b)
		if c.deaf {
			late(r.hearing, now)
		}
		if c.before != nil {
			c.before(r)
		}
		r.NotifyLeave(b)
		if c.then != nil {
			c.then(r)
		}
		at := time.Now().Add(c.after)
		if c.later {
			late(r.hearing, at)
		}
		s := r.look(at)
		if got := seen(s); got != c.view || r.lost("b") != c.lost {
			t.Errorf("%s: the view has %s, lost %v", c.name, got, r.lost("b"))
		}
		if doubted := c.view == both && !r.records[b.Name].doubted.IsZero(); doubted && (s.expire <= 0 || s.expire > refuteWithin) {
			t.Errorf("%s: looks again after %v", c.name, s.expire)
		}
		if f := r.flaps.of["b"]; f.penalty != 0 {
			t.Errorf("%s: a member that was not lost has come back: %+v", c.name, f)
		}
	}
}
