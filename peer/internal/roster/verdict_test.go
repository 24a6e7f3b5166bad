package roster_test

import (
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/roster"
)

// TestVerdicts checks what happens to a member that gossip declares dead, as in the table in verdict.go.
func TestVerdicts(t *testing.T) {
	const both, alone = "b@10.0.0.2 catalog-1@10.0.0.1", "catalog-1@10.0.0.1"
	b := gossiped("b", 10, 2, nil)
	for _, c := range []struct {
		name   string
		deaf   bool // this node cannot listen when gossip declares it dead
		before func(r *node)
		then   func(r *node)
		after  time.Duration // when the roster is looked at
		later  bool          // the node cannot listen then either
		view   string
		lost   bool
	}{
		{name: "this node could listen", view: alone, lost: true},
		{name: "it could not", deaf: true, view: both},
		{name: "it could not, and the member contradicts", deaf: true, then: func(r *node) { r.NotifyJoin(b) }, after: time.Hour, view: both},
		{name: "it can listen again, for less than it takes to contradict", deaf: true, after: hearing.CatchUp + refuteWithin - time.Millisecond, view: both},
		{name: "it can listen again", deaf: true, after: hearing.CatchUp + refuteWithin, view: alone, lost: true},
		{name: "it cannot listen for a while", deaf: true, after: doubtMost - time.Millisecond, later: true, view: both},
		{name: "it cannot listen for long", deaf: true, after: doubtMost, later: true, view: alone, lost: true},
		{name: "the process was known to have ended", deaf: true, before: func(r *node) { r.Proven(at(b)) }, view: alone, lost: true},
		{name: "the process is found to have ended", deaf: true, then: func(r *node) { r.Proven(at(b)) }, view: alone, lost: true},
		{name: "the member has said that it leaves", deaf: true, then: func(r *node) { r.NotifyMsg(leaving(b).Meta) }, view: alone},
	} {
		bubble(t, func(t *testing.T) {
			h := hearing.New(time.Now())
			pause(time.Minute)
			r := with(t, 0, func(cfg *roster.Config) { cfg.Hearing = h })
			deafen := func() { h.Fired(time.Now().Add(-time.Second), time.Now()) } // a timer was late by a second
			r.NotifyJoin(b)
			r.Refresh()
			if c.deaf {
				deafen()
			}
			if c.before != nil {
				c.before(r)
			}
			r.NotifyLeave(b)
			if c.then != nil {
				c.then(r)
			}
			for end := time.Now().Add(c.after); c.later && time.Until(end) > refuteWithin; deafen() {
				pause(refuteWithin)
				c.after -= refuteWithin
			}
			pause(c.after)
			if got := r.view(); got != c.view || r.Lost("b") != c.lost {
				t.Errorf("%s: the view has %s, lost %v", c.name, got, r.Lost("b"))
			}
			if state := r.LocalState(false); !c.lost && state != nil {
				t.Errorf("%s: a member that was not lost has come back: %q", c.name, state)
			}
		})
	}
}
