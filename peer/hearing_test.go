package peer

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A tick without a byte counts while the node is able to listen, or has not been for long.
func TestSilenceCounts(t *testing.T) {
	now := time.Now()
	var s silence
	for i, c := range []struct {
		after   time.Duration
		able    bool
		counted bool
		ticks   int
	}{
		{0, true, true, 1}, {linkTick, true, true, 2}, {linkTick, false, false, 2}, {time.Second, false, false, 2}, {linkTick, true, true, 3},
		{deafMost - time.Second - 4*linkTick, false, false, 3}, {linkTick, false, true, 4}, {linkTick, false, true, 5}, {linkTick, true, true, 6},
	} {
		now = now.Add(c.after)
		var counted bool
		if s, counted = s.more(now, c.able); counted != c.counted || s.ticks != c.ticks {
			t.Errorf("tick %d: counted %v, %d ticks; want %v, %d", i, counted, s.ticks, c.counted, c.ticks)
		}
	}
}

// A timer that comes late makes the node hard of hearing for a while, one that is in time does not.
func TestHearing(t *testing.T) {
	now := time.Now()
	h := hearing{base: now}
	now = now.Add(time.Second)
	h.fired(now.Add(1-lateAfter), now)
	if !h.able(now) || h.lates.Load() != 0 {
		t.Error("a timer in time counts as late")
	}
	h.fired(now.Add(-lateAfter), now)
	h.fired(now.Add(-time.Hour), now.Add(-time.Millisecond)) // another one was earlier
	if h.able(now) || h.able(now.Add(hearingAfter-1)) || !h.able(now.Add(hearingAfter)) || h.lates.Load() != 2 {
		t.Errorf("a late timer counts for %v", time.Duration(h.until.Load())-now.Sub(h.base))
	}
}

// While this node's timers come late, the silence of a peer is not its death: calls wait as long as their deadlines allow, whether
// there is a connection or none yet. A peer that stays silent is given up all the same, at the latest after deafMost.
func TestOverloadIsNotDeath(t *testing.T) {
	for _, connected := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			w, stalled := silentWire(t, gated(nil, nil))
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			if connected {
				w.mustGet(t, "hit")
			}
			stalled.Store(true)
			overload := func(d time.Duration) { // as if every timer came late for so long
				end := time.Now().Add(d)
				go func() {
					for now := time.Now(); now.Before(end) && ctx.Err() == nil; now = time.Now() {
						w.a.hearing.fired(now.Add(-lateAfter), now)
						pause(ctx, 20*time.Millisecond)
					}
				}()
			}
			overload(time.Second)
			if _, _, err := w.get(t.Context(), "hit", time.Second); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("connected %v: %v", connected, err)
			}
			if opened := w.a.opened.Load(); opened != 0 {
				t.Errorf("connected %v: bypassed in an overload", connected)
			}
			stalled.Store(false)
			pause(t.Context(), dialTimeout)
			w.mustGet(t, "hit") // and all is well

			stalled.Store(true)
			overload(time.Minute)
			began := time.Now()
			_, _, err := w.get(t.Context(), "hit", time.Minute)
			if took := time.Since(began); !errors.Is(err, ErrUnreachable) || took < deafMost || took > deafMost+2*silentAfter*linkTick {
				t.Errorf("connected %v: %v after %v", connected, err, took)
			}
		})
	}
}
