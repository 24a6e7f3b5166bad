package roster_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/ring"
)

// TestViewIsBounded checks that a view has a limit of its own, below what the ring would place.
func TestViewIsBounded(t *testing.T) {
	few := func(c *roster.Config) { // of all that the ring sorts, so that the view is built in no time
		c.Ring = ring.Config{Partitions: roster.MaxMembers + 1, Replicas: 1}
	}
	bubble(t, func(t *testing.T) {
		r := prepare(t, few)
		for i := range roster.MaxMembers - 1 {
			r.NotifyJoin(gossiped(fmt.Sprint("b", i), 10, byte(i), nil))
		}
		r.begin(t)
		if r.Refresh(); r.View().Len() != roster.MaxMembers {
			t.Errorf("the view has %d members", r.View().Len())
		}
		r.NotifyJoin(gossiped("c", 10, 2, nil))
		r.Refresh()
		if r.View().Len() != roster.MaxMembers || r.lines(ring.ErrTooManyMembers.Error()) != 1 {
			t.Errorf("the view has %d members; the log does not say why", r.View().Len())
		}
	})
}

// TestHostProvesEnds checks that a lost member counts as ended if the host proves it, and only then.
func TestHostProvesEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		r.host.proves(func(start ring.Member) bool { return start.Name == "dead" })
		for i, name := range []string{"dead", "silent"} {
			r.NotifyJoin(gossiped(name, 10, byte(2+i), nil))
		}
		r.Refresh()
		for i, name := range []string{"dead", "silent"} {
			r.NotifyLeave(gossiped(name, 10, byte(2+i), nil))
		}
		r.Refresh()
		pause(time.Millisecond)
		if left := r.unproven(); left != "silent" {
			t.Errorf("unproven: %v", left)
		}
		pause(endedGrace)
		if lost := r.lost(); len(lost) != 1 || lost[0].Name != "silent" {
			t.Errorf("lost: %+v", lost)
		}
	})
}
