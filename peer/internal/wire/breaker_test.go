package wire

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
	"github.com/weircache/weir/peer/internal/wiretest"
)

func TestBreakerSteps(t *testing.T) {
	whole := func(d time.Duration) time.Duration { return d }
	now := time.Now()
	var b breaker
	for i, want := range []struct {
		open  bool
		pause time.Duration
	}{{false, 50}, {false, 100}, {true, 200}, {true, 400}, {true, 800}, {true, 1600}, {true, 2000}, {true, 2000}} {
		b = b.failed(now, true, whole)
		if b.open != want.open || b.retry.Sub(now) != want.pause*time.Millisecond {
			t.Fatalf("after %d failures: %+v", i+1, b)
		}
	}
	if b = b.answered(); b.open || b.backoff != backoffMax || b.openings != 1 {
		t.Errorf("after an answer: %+v", b)
	}
	if b = b.failed(now, true, whole); b.open || b.row != 1 || b.backoff != backoffMax {
		t.Errorf("after one failure more: %+v", b)
	}
	for range 10 {
		b = b.failed(now, false, whole)
	}
	if b.open {
		t.Error("open although a connection works")
	}
	if b = b.tripped(now).tripped(now); !b.open || b.openings != 2 {
		t.Errorf("after a silence: %+v", b)
	}
	if b = b.renewed(); !b.open || b.backoff != 0 || !b.retry.IsZero() {
		t.Errorf("after a new start: %+v", b)
	}
}

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
func silentPair(t *testing.T, h codec.Handler) (w *pair, stalled *atomic.Bool) {
	w, stalled = newPair(t, false, h), new(atomic.Bool)
	dial := w.a.cfg.Dial
	w.a.cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return stalling{conn, stalled}, nil
	}
	return w, stalled
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
			for ; !errors.Is(err, ErrUnreachable); _, _, err = w.get(t.Context(), "hit", patience) {
				if patience == 0 || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("%v after %v", err, time.Since(began))
				}
				wiretest.Pause(t.Context(), time.Millisecond)
			}
			if took := time.Since(began); took > (silentAfter+2)*linkTick {
				t.Errorf("bypassed after %v", took)
			}
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); wiretest.Pause(t.Context(), 7*time.Millisecond) {
				before := time.Now()
				if _, _, err := w.get(t.Context(), "hit", patience); !errors.Is(err, ErrUnreachable) || time.Since(before) != 0 {
					t.Fatalf("%v after %v", err, time.Since(before))
				}
			}
			if s := w.a.Peers()[0]; s.Dials < 3 || s.Dials > 8 || s.Openings != 1 {
				t.Errorf("in ten seconds: %+v", s)
			}
			stalled.Store(false)
			wiretest.Pause(t.Context(), dialTimeout+backoffMax)
			if w.breaker() != BreakerClosed { // no call is needed for that
				t.Errorf("%+v", w.a.Peers()[0])
			}
			w.mustGet(t, "hit")
			if a, b := w.a.opened.Load(), w.a.shut.Load(); a != 1 || b != 1 {
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
		if s := w.a.Peers()[0]; s.Openings != 0 || s.Dials != 1 || s.Breaker != BreakerClosed {
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
		w := newPair(t, false, gated(nil, nil))
		w.a.cfg.Connections = 2
		first := new(atomic.Bool) // the connection that hangs
		dial, dials := w.a.cfg.Dial, 0
		w.a.cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := dial(ctx, addr)
			if dials++; dials == 1 && err == nil {
				conn = stalling{conn, first}
			}
			return conn, err
		}
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
			if _, _, err := w.get(t.Context(), "k", 0); !errors.Is(err, ErrUnreachable) {
				t.Fatal(err)
			}
			waited += time.Since(before)
		}
		if waited > 600*time.Millisecond {
			t.Errorf("callers waited for %v", waited)
		}
	})
}
