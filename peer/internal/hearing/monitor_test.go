package hearing_test

import (
	"context"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/hearing"
)

// TestLateTimers checks that a late timer makes the node hard of hearing for a while, and that a timely one does not.
func TestLateTimers(t *testing.T) {
	const late = 50 * time.Millisecond
	now := time.Now()
	m := hearing.New(now)
	if always := m.AbleFor(now); always < time.Hour {
		t.Errorf("able for %v before any timer was late", always)
	}
	now = now.Add(time.Second)
	m.Fired(now.Add(1-late), now)
	if !m.Able(now) || m.Late() != 0 {
		t.Error("a timer in time counts as late")
	}
	m.Fired(now.Add(-late), now)
	m.Fired(now.Add(-time.Hour), now.Add(-time.Millisecond)) // an earlier late timer
	if m.Able(now) || m.Able(now.Add(hearing.CatchUp-1)) || !m.Able(now.Add(hearing.CatchUp)) || m.Late() != 2 {
		t.Errorf("%d late timers; able at once %v, after CatchUp %v", m.Late(), m.Able(now), m.Able(now.Add(hearing.CatchUp)))
	}
	if m.AbleFor(now) != 0 || m.AbleFor(now.Add(hearing.CatchUp+time.Second)) != time.Second {
		t.Errorf("able for %v and %v", m.AbleFor(now), m.AbleFor(now.Add(hearing.CatchUp+time.Second)))
	}
}

// TestWatch checks that timers that come in time are no evidence, and that Watch ends with its context.
func TestWatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := hearing.New(time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m.Watch(ctx)
		if n := m.Late(); n != 0 {
			t.Errorf("%d timers were late in a bubble, where none can be", n)
		}
	})
}
