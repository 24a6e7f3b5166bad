package wire_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// acking is a connection whose other end acknowledges at once what is written, while acks is set.
type acking struct {
	stalling
	acks *atomic.Bool
	last *atomic.Pointer[time.Time] // the last acknowledgement
}

func (c acking) Write(b []byte) (int, error) {
	if now := time.Now(); c.acks.Load() {
		c.last.Store(&now)
	}
	return c.Conn.Write(b)
}

// Read holds back incoming bytes while the connection is stalled.
func (c acking) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for c.stalled.Load() {
		time.Sleep(time.Millisecond)
	}
	return n, err
}

func (c acking) LastAck() (time.Duration, bool) {
	last := c.last.Load()
	if last == nil {
		return 0, false
	}
	return time.Since(*last), true
}

// ackingPair returns a pair in which the caller hears nothing of the peer while stalled is set, except acknowledgements
// while acks is set.
func ackingPair(t *testing.T, changes ...func(a, b *wire.Config)) (w *pair, stalled, acks *atomic.Bool) {
	acks = new(atomic.Bool)
	acks.Store(true)
	w, stalled = silentPair(t, gated(nil, nil), append(changes, func(a, _ *wire.Config) {
		dial := a.Dial
		a.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			return acking{conn.(stalling), acks, new(atomic.Pointer[time.Time])}, nil
		}
	})...)
	return w, stalled, acks
}

// TestOverloadOfThePeerIsNotDeath checks that a silent peer whose machine acknowledges is treated as overloaded, not dead.
// Calls wait for it, for half of their time if that is known, and late answers are used. The peer is still given up when
// the acknowledgements end, and after deafMost at the latest.
func TestOverloadOfThePeerIsNotDeath(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, stalled, acks := ackingPair(t)
		w.mustGet(t, "hit")
		silent := func(d time.Duration, then func()) {
			stalled.Store(true)
			timer := time.AfterFunc(d, then)
			t.Cleanup(func() { timer.Stop() })
		}
		silent(2*time.Second, func() { stalled.Store(false) })
		began := time.Now()
		if _, _, err := w.get(t.Context(), "hit", 10*time.Second); err != nil || time.Since(began) < 2*time.Second || time.Since(began) > 2200*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		silent(3*time.Second, func() { stalled.Store(false) })
		began = time.Now()
		if _, _, err := w.get(t.Context(), "hit", 2*time.Second); !errors.Is(err, wire.ErrUnreachable) || time.Since(began) < time.Second || time.Since(began) > 1200*time.Millisecond {
			t.Errorf("a call that may take 2s: %v after %v", err, time.Since(began))
		}
		wiretest.Pause(t.Context(), 3*time.Second)
		if n := w.a.Totals().Opened; n != 0 {
			t.Errorf("bypassed %d times", n)
		}
		w.mustGet(t, "hit")

		silent(time.Second, func() { acks.Store(false) })
		began = time.Now()
		if _, _, err := w.get(t.Context(), "hit", time.Minute); !errors.Is(err, wire.ErrUnreachable) || time.Since(began) < time.Second || time.Since(began) > time.Second+ackedWithin+2*linkTick {
			t.Errorf("after the last acknowledgement: %v after %v", err, time.Since(began))
		}
		stalled.Store(false)
		wiretest.Pause(t.Context(), time.Second)
		acks.Store(true)
		w.mustGet(t, "hit")
		wiretest.Pause(t.Context(), time.Second)
		stalled.Store(true)
		began = time.Now()
		if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) || time.Since(began) < deafMost || time.Since(began) > deafMost+2*silentAfter {
			t.Errorf("without an answer for ever: %v after %v", err, time.Since(began))
		}
		stalled.Store(false)
	})
}

// TestStarvedNodeWaitsForALivingPeer checks that a node that cannot listen waits longer for a peer whose machine
// acknowledges, because the silence is the node's own fault.
func TestStarvedNodeWaitsForALivingPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hearing.New(time.Now())
		w, stalled, acks := ackingPair(t, func(a, _ *wire.Config) { a.Hearing = h })
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for _, lives := range []bool{true, false} {
			w.mustGet(t, "hit")
			stalled.Store(true)
			acks.Store(lives)
			starve(ctx, h, time.Minute)
			began := time.Now()
			if lives { // it waits as long as the call has time: the alternative is a load
				if _, _, err := w.get(t.Context(), "hit", 6*time.Second); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a call that may take 6s: %v after %v", err, time.Since(began))
				}
			}
			_, _, err := w.get(t.Context(), "hit", time.Minute)
			took := time.Since(began)
			if !errors.Is(err, wire.ErrUnreachable) || lives && took < 2*deafMost || !lives && (took < deafMost || took > deafMost+2*silentAfter) {
				t.Errorf("acknowledgements %v: %v after %v", lives, err, took)
			}
			stalled.Store(false)
			acks.Store(true)
			wiretest.Pause(t.Context(), time.Minute)
		}
	})
}
