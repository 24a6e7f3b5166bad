package wire

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestSilenceCounts checks that a tick without a byte counts if the node is able to listen and the peer's machine is silent
// as well, or if that has lasted for long.
func TestSilenceCounts(t *testing.T) {
	now := time.Now()
	var s silence
	for i, c := range []struct {
		after   time.Duration
		able    bool
		acked   bool
		counted bool
		ticks   int
	}{
		{0, true, false, true, 1}, {linkTick, true, false, true, 2}, {linkTick, false, false, false, 2}, {time.Second, false, false, false, 2},
		{linkTick, true, false, true, 3}, {linkTick, true, true, false, 3}, {deafMost - time.Second - 5*linkTick, false, false, false, 3},
		{linkTick, false, false, true, 4}, {linkTick, false, true, false, 4}, {linkTick, false, false, true, 5}, {linkTick, true, false, true, 6},
		{linkTick, true, true, false, 6}, // the second spared tick: what counts is not the time but how long this node could listen
		{starvedMost - deafMost - 5*linkTick, false, true, false, 6}, {linkTick, false, true, true, 7},
	} {
		now = now.Add(c.after)
		var counted bool
		if s, counted = s.more(now, c.able, c.acked); counted != c.counted || s.ticks != c.ticks {
			t.Errorf("tick %d: counted %v, %d ticks; want %v, %d", i, counted, s.ticks, c.counted, c.ticks)
		}
	}
	s = silence{ticks: silentAfter - 1}
	for n := 1; ; n++ {
		var counted bool
		if s, counted = s.more(now, true, true); counted || n > int(deafMost/linkTick) {
			if n != int(deafMost/linkTick) {
				t.Errorf("a stopped peer is spared for %d ticks", n)
			}
			break
		}
	}
}

// starve makes every timer appear late for the duration d.
func starve(ctx context.Context, h *hearing.Monitor, d time.Duration) {
	end := time.Now().Add(d)
	go func() {
		for now := time.Now(); now.Before(end) && ctx.Err() == nil; now = time.Now() {
			h.Fired(now.Add(-time.Second), now)
			wiretest.Pause(ctx, 20*time.Millisecond)
		}
	}()
}

// TestOverloadIsNotDeath checks that while this node's timers come late, the silence of a peer does not count as its death:
// calls wait as long as their deadlines allow, with or without a connection. A peer that stays silent is still given up,
// after deafMost at the latest.
func TestOverloadIsNotDeath(t *testing.T) {
	for _, connected := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			w, stalled := silentPair(t, gated(nil, nil))
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			if connected {
				w.mustGet(t, "hit")
			}
			stalled.Store(true)
			overload := func(d time.Duration) { starve(ctx, w.a.cfg.Hearing, d) }
			overload(time.Second)
			if _, _, err := w.get(t.Context(), "hit", time.Second); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("connected %v: %v", connected, err)
			}
			if opened := w.a.opened.Load(); opened != 0 {
				t.Errorf("connected %v: bypassed in an overload", connected)
			}
			stalled.Store(false)
			wiretest.Pause(t.Context(), dialTimeout)
			w.mustGet(t, "hit") // everything works

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
