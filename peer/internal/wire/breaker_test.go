package wire_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// stalling is a connection whose reader hears nothing while it is stalled: incoming bytes are dropped.
type stalling struct {
	net.Conn
	stalled *atomic.Bool
}

func (c stalling) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.stalled.Load() {
			return n, err
		}
	}
}

// silentPair returns a pair in which the caller hears nothing of the peer while stalled is set.
func silentPair(t *testing.T, h codec.Handler, changes ...func(a, b *wire.Config)) (w *pair, stalled *atomic.Bool) {
	stalled = new(atomic.Bool)
	stall := func(a, _ *wire.Config) {
		dial := a.Dial
		a.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			return stalling{conn, stalled}, nil
		}
	}
	return newPair(t, false, h, append([]func(a, b *wire.Config){stall}, changes...)...), stalled
}

func (w *pair) breaker() string { return w.a.Peers()[0].Breaker }

// TestSilentPeerIsBypassed checks that the first caller of a peer that has fallen silent waits half a second at most, and
// later callers do not wait, even if their deadlines are too short for any answer. One sign of life is enough for calls to
// resume.
func TestSilentPeerIsBypassed(t *testing.T) {
	for _, patience := range []time.Duration{0, 30 * time.Millisecond} {
		bubble(t, func(t *testing.T) {
			w, stalled := silentPair(t, gated(nil, nil))
			w.mustGet(t, "hit")
			stalled.Store(true)
			began := time.Now()
			_, _, err := w.get(t.Context(), "hit", patience)
			for ; !errors.Is(err, wire.ErrUnreachable); _, _, err = w.get(t.Context(), "hit", patience) {
				if patience == 0 || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("%v after %v", err, time.Since(began))
				}
				wiretest.Pause(t.Context(), time.Millisecond)
			}
			if took := time.Since(began); took > silentAfter+2*linkTick {
				t.Errorf("bypassed after %v", took)
			}
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); wiretest.Pause(t.Context(), 7*time.Millisecond) {
				before := time.Now()
				if _, _, err := w.get(t.Context(), "hit", patience); !errors.Is(err, wire.ErrUnreachable) || time.Since(before) != 0 {
					t.Fatalf("%v after %v", err, time.Since(before))
				}
			}
			if s := w.a.Peers()[0]; s.Dials < 3 || s.Dials > 8 || s.Openings != 1 {
				t.Errorf("in ten seconds: %+v", s)
			}
			stalled.Store(false)
			wiretest.Pause(t.Context(), wire.HelloTimeout+backoffMax)
			if w.breaker() != wire.BreakerClosed { // no call is needed for that
				t.Errorf("%+v", w.a.Peers()[0])
			}
			w.mustGet(t, "hit")
			if a, b := w.a.Totals().Opened, w.a.Totals().Shut; a != 1 || b != 1 {
				t.Errorf("opened %d times, shut %d times", a, b)
			}
			for _, line := range []string{"a peer is bypassed", "a peer answers again"} {
				if n := strings.Count(w.logA.String(), line); n != 1 {
					t.Errorf("%d lines say that %s", n, line)
				}
			}
		})
	}
}

// TestBreakerStaysClosed checks that a shorter silence, and calls that time out while the peer is alive, change nothing.
func TestBreakerStaysClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, stalled := silentPair(t, gated(nil, nil))
		w.mustGet(t, "hit")
		for range 200 { // no call lasts until its answer
			if _, _, err := w.get(t.Context(), "slow", 10*time.Millisecond); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		stalled.Store(true)
		time.AfterFunc(350*time.Millisecond, func() { stalled.Store(false) }) // between two ticks
		if _, _, err := w.get(t.Context(), "slow", 3*time.Second); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		w.mustGet(t, "hit")
		if s := w.a.Peers()[0]; s.Openings != 0 || s.Dials != 1 || s.Breaker != wire.BreakerClosed {
			t.Errorf("%+v", s)
		}
	})
	bubble(t, func(t *testing.T) { // busy is an answer
		w := newPair(t, false, &scripted{serve: func(_ context.Context, _ *codec.Request, resp *codec.Response) { resp.Status = codec.StatusBusy }})
		for range 100 {
			if status, _, err := w.get(t.Context(), "slow", 0); err != nil || status != codec.StatusBusy {
				t.Fatal(status, err)
			}
		}
		if s := w.a.Peers()[0]; s.Openings != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestOneConnectionHangs checks that when one of two connections hangs, the other one serves and the breaker stays closed.
func TestOneConnectionHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first := new(atomic.Bool) // the connection that hangs
		w := newPair(t, false, gated(nil, nil), func(a, _ *wire.Config) {
			a.Connections = 2
			dial, dials := a.Dial, 0
			a.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
				conn, err := dial(ctx, addr)
				if dials++; dials == 1 && err == nil {
					conn = stalling{conn, first}
				}
				return conn, err
			}
		})
		for range 4 {
			w.mustGet(t, "hit")
			synctest.Wait()
		}
		first.Store(true)
		failed := 0
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); wiretest.Pause(t.Context(), 10*time.Millisecond) {
			if _, _, err := w.get(t.Context(), "hit", 0); err != nil {
				failed++
			}
		}
		if s := w.a.Peers()[0]; failed != 1 || s.Openings != 0 || s.Connected != 2 || s.Dials != 3 {
			t.Errorf("%d calls failed; %+v", failed, s)
		}
	})
}

// TestHelloAndThenSilence checks that a peer that accepts connections and says hello, but nothing more, is bypassed nearly
// all the time.
func TestHelloAndThenSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, nil)
		answering(t, w, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		var waited time.Duration
		for end := time.Now().Add(time.Minute); time.Now().Before(end); wiretest.Pause(t.Context(), 10*time.Millisecond) {
			before := time.Now()
			if _, _, err := w.get(t.Context(), "k", 0); !errors.Is(err, wire.ErrUnreachable) {
				t.Fatal(err)
			}
			waited += time.Since(before)
		}
		if waited > 600*time.Millisecond {
			t.Errorf("callers waited for %v", waited)
		}
	})
}
