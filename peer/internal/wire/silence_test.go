package wire_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

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
			h := hearing.New(time.Now())
			w, stalled := silentPair(t, gated(nil, nil), func(a, _ *wire.Config) { a.Hearing = h })
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			if connected {
				w.mustGet(t, "hit")
			}
			stalled.Store(true)
			overload := func(d time.Duration) { starve(ctx, h, d) }
			overload(time.Second)
			if _, _, err := w.get(t.Context(), "hit", time.Second); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("connected %v: %v", connected, err)
			}
			if opened := w.a.Totals().Opened; opened != 0 {
				t.Errorf("connected %v: bypassed in an overload", connected)
			}
			stalled.Store(false)
			wiretest.Pause(t.Context(), wire.HelloTimeout)
			w.mustGet(t, "hit") // everything works

			stalled.Store(true)
			overload(time.Minute)
			began := time.Now()
			_, _, err := w.get(t.Context(), "hit", time.Minute)
			if took := time.Since(began); !errors.Is(err, wire.ErrUnreachable) || took < deafMost || took > deafMost+2*silentAfter {
				t.Errorf("connected %v: %v after %v", connected, err, took)
			}
		})
	}
}
