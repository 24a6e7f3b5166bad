package wire

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

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
func ackingPair(t *testing.T) (w *pair, stalled, acks *atomic.Bool) {
	acks = new(atomic.Bool)
	acks.Store(true)
	w, stalled = silentPair(t, gated(nil, nil))
	dial := w.a.cfg.Dial
	w.a.cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return acking{conn.(stalling), acks, new(atomic.Pointer[time.Time])}, nil
	}
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
		if _, _, err := w.get(t.Context(), "hit", 2*time.Second); !errors.Is(err, ErrUnreachable) || time.Since(began) < time.Second || time.Since(began) > 1200*time.Millisecond {
			t.Errorf("a call that may take 2s: %v after %v", err, time.Since(began))
		}
		wiretest.Pause(t.Context(), 3*time.Second)
		if n := w.a.opened.Load(); n != 0 {
			t.Errorf("bypassed %d times", n)
		}
		w.mustGet(t, "hit")

		silent(time.Second, func() { acks.Store(false) })
		began = time.Now()
		if _, _, err := w.get(t.Context(), "hit", time.Minute); !errors.Is(err, ErrUnreachable) || time.Since(began) < time.Second || time.Since(began) > time.Second+ackedWithin+2*linkTick {
			t.Errorf("after the last acknowledgement: %v after %v", err, time.Since(began))
		}
		stalled.Store(false)
		wiretest.Pause(t.Context(), time.Second)
		acks.Store(true)
		w.mustGet(t, "hit")
		wiretest.Pause(t.Context(), time.Second)
		stalled.Store(true)
		began = time.Now()
		if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, ErrUnreachable) || time.Since(began) < deafMost || time.Since(began) > deafMost+2*silentAfter*linkTick {
			t.Errorf("without an answer for ever: %v after %v", err, time.Since(began))
		}
		stalled.Store(false)
	})
}

// TestStarvedNodeWaitsForALivingPeer checks that a node that cannot listen waits longer for a peer whose machine
// acknowledges, because the silence is the node's own fault.
func TestStarvedNodeWaitsForALivingPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, stalled, acks := ackingPair(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for _, lives := range []bool{true, false} {
			w.mustGet(t, "hit")
			stalled.Store(true)
			acks.Store(lives)
			starve(ctx, w.a.cfg.Hearing, time.Minute)
			began := time.Now()
			if lives { // it waits as long as the call has time: the alternative is a load
				if _, _, err := w.get(t.Context(), "hit", 6*time.Second); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a call that may take 6s: %v after %v", err, time.Since(began))
				}
			}
			_, _, err := w.get(t.Context(), "hit", time.Minute)
			took := time.Since(began)
			if !errors.Is(err, ErrUnreachable) || lives && took < 2*deafMost || !lives && (took < deafMost || took > deafMost+2*silentAfter*linkTick) {
				t.Errorf("acknowledgements %v: %v after %v", lives, err, took)
			}
			stalled.Store(false)
			acks.Store(true)
			wiretest.Pause(t.Context(), time.Minute)
		}
	})
}

// TestSystemTellsOfAcknowledgements checks that the operating system reports acknowledgements, even below TLS.
func TestSystemTellsOfAcknowledgements(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	there, err := l.Accept() // and never reads
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{conn, &secured{raw: conn}} {
		a := ackerOf(c)
		if a == nil {
			t.Fatalf("%T: nothing tells", c)
		}
		for linux := runtime.GOOS == "linux"; ; time.Sleep(time.Millisecond) {
			if ago, ok := a.LastAck(); ok != linux || ago < 0 || ago > time.Minute {
				t.Fatalf("%T: %v, %v", c, ago, ok)
			} else if !linux || ago == 0 { // everything sent has been acknowledged
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
		if ago, _ := a.LastAck(); ago != 0 {
			t.Errorf("%T: with everything acknowledged, %v ago", c, ago)
		}
	}
	if a := ackerOf(stalling{}); a != nil {
		t.Errorf("%T tells of nothing", a)
	}
}
