package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// gated returns a handler whose Serve waits for open or for its context.
func gated(open <-chan struct{}, started chan<- context.Context) *scripted {
	return &scripted{serve: func(ctx context.Context, req *codec.Request, resp *codec.Response) {
		if started != nil {
			started <- ctx
		}
		select {
		case <-open:
			resp.Status, resp.Value = codec.StatusValue, []byte("value of "+string(req.Key))
		case <-ctx.Done():
			resp.Status = codec.StatusTimeout
		}
	}}
}

// TestOutOfOrder checks that a waiting request does not delay those behind it, and that every caller gets its own answer.
func TestOutOfOrder(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		open := make(chan struct{})
		w := newPair(t, tcp, gated(open, nil))
		var slow, hits sync.WaitGroup
		ask := func(key string) {
			if status, value, err := w.get(t.Context(), key, 0); err != nil || status != codec.StatusValue || value != "value of "+key {
				t.Errorf("get %q: status %d, %q, %v", key, status, value, err)
			}
		}
		for i := range 20 {
			slow.Go(func() { ask(fmt.Sprintf("slow %d", i)) })
			hits.Go(func() {
				for j := range 100 {
					ask(fmt.Sprintf("hit %d %d", i, j))
				}
			})
		}
		hits.Wait()
		wiretest.Until(t, "for 20 calls in flight", func() bool { return w.a.Peers()[0].InFlight == 20 })
		close(open)
		slow.Wait()
		s := w.a.Peers()[0]
		if s.Calls != 2020 || s.Errors != 0 || s.InFlight != 0 || s.Dials != 1 || s.Connected != 1 || s.BytesIn == 0 || s.BytesOut == 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestLargeValues checks that values larger than a socket's buffers arrive intact.
func TestLargeValues(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		w := newPair(t, tcp, &scripted{serve: func(_ context.Context, req *codec.Request, resp *codec.Response) {
			resp.Status, resp.Value = codec.StatusValue, bytes.Repeat(req.Key, 1<<20/len(req.Key))
		}})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				key := fmt.Sprintf("%08d", i)
				for range 2 {
					status, value, err := w.get(t.Context(), key, 0)
					if err != nil || status != codec.StatusValue || value != strings.Repeat(key, 1<<20/len(key)) {
						t.Errorf("status %d, %d bytes, %v", status, len(value), err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestCancelCrosses(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		started := make(chan context.Context, 1)
		w := newPair(t, tcp, gated(nil, started))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, _, err := w.get(ctx, "slow", 0)
			done <- err
		}()
		there := <-started
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("got %v", err)
		}
		<-there.Done()
		w.mustGet(t, "hit") // the connection still works
	})
}

func TestDeadlineCrosses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		started := make(chan context.Context, 1)
		w := newPair(t, false, gated(nil, started))
		began := time.Now()
		done := make(chan error, 1)
		go func() {
			_, _, err := w.get(t.Context(), "slow", time.Second)
			done <- err
		}()
		end, ok := (<-started).Deadline()
		if left := end.Sub(began); !ok || left != time.Second {
			t.Errorf("the handler has %v, %v", left, ok)
		}
		if err := <-done; err != nil { // the other side's timeout answer arrives first
			t.Error(err)
		}
	})
}

// TestTimeoutBySweep checks that a call ends soon after its timeout even if the other side ignores the timeout.
func TestTimeoutBySweep(t *testing.T) {
	bubble(t, func(t *testing.T) {
		open := make(chan struct{})
		w := newPair(t, false, &scripted{serve: func(context.Context, *codec.Request, *codec.Response) { <-open }})
		w.mustGet(t, "hit")
		wiretest.Pause(t.Context(), time.Hour) // the ticking has stopped
		for _, timeout := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 777 * time.Millisecond} {
			began := time.Now()
			_, _, err := w.get(t.Context(), "slow", timeout)
			took := time.Since(began)
			if !errors.Is(err, context.DeadlineExceeded) || took < timeout || took > timeout+2*linkTick {
				t.Errorf("timeout %v: %v after %v", timeout, err, took)
			}
		}
		close(open)
		synctest.Wait()
		w.mustGet(t, "hit") // late answers have done no harm
	})
}

func TestBrokenConnectionFailsWaiters(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		started := make(chan context.Context, 10)
		w := newPair(t, tcp, gated(nil, started))
		errs := make(chan error, 10)
		for range 10 {
			go func() {
				_, _, err := w.get(t.Context(), "slow", 0)
				errs <- err
			}()
		}
		var there context.Context
		for range 10 {
			there = <-started
		}
		w.cut()
		for range 10 {
			if err := <-errs; !errors.Is(err, wire.ErrUnreachable) {
				t.Errorf("got %v", err)
			}
		}
		<-there.Done()
	})
}

// TestBackoff checks that calls fail at once while a peer cannot be reached, and that connection attempts become rare.
func TestBackoff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, gated(nil, nil))
		w.noServer.Store(true)
		began := time.Now()
		for time.Since(began) < time.Minute {
			before := time.Now()
			if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) || !strings.Contains(err.Error(), "no server") {
				t.Fatalf("got %v", err)
			}
			if took := time.Since(before); took != 0 {
				t.Fatalf("a call took %v to fail", took)
			}
			wiretest.Pause(t.Context(), time.Millisecond)
		}
		if dials := w.a.Peers()[0].Dials; dials < 30 || dials > 75 {
			t.Errorf("%d attempts in a minute", dials)
		}
		if n := strings.Count(w.logA.String(), "cannot connect"); n != 1 {
			t.Errorf("%d lines in the log", n)
		}
		w.noServer.Store(false)
		wiretest.Pause(t.Context(), backoffMax)
		w.mustGet(t, "hit")
		wiretest.Pause(t.Context(), backoffMax)
		w.cut() // a connection that has lasted is replaced at once
		synctest.Wait()
		w.mustGet(t, "hit")
		w.cut() // one that has not lasted is replaced after a pause
		synctest.Wait()
		if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		w.to.Incarnation++ // but a new incarnation of the peer is called at once
		w.mustGet(t, "hit")
	})
}

// TestConnectShared checks that callers that wait for a connection share one attempt, and that each leaves at its own
// deadline.
func TestConnectShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := configOf("a", new(testlog.Log))
		cfg.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		d := wire.New(cfg)
		defer d.Close(context.Background())
		w := &pair{a: d, to: ring.Member{Name: "b", Addr: "x"}}
		var wg sync.WaitGroup
		check := func(ctx context.Context, timeout time.Duration, want error, after time.Duration) {
			wg.Go(func() {
				began := time.Now()
				_, _, err := w.get(ctx, "k", timeout)
				if took := time.Since(began); !errors.Is(err, want) || took != after {
					t.Errorf("got %v after %v, want %v after %v", err, took, want, after)
				}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		check(ctx, 0, context.DeadlineExceeded, 200*time.Millisecond)
		check(t.Context(), 300*time.Millisecond, context.DeadlineExceeded, 300*time.Millisecond)
		check(t.Context(), 0, wire.ErrUnreachable, 400*time.Millisecond)
		wiretest.Pause(t.Context(), 400*time.Millisecond)
		synctest.Wait()
		d.Confine(map[string]uint64{}) // the waiting calls fail now
		wg.Wait()
		if n := d.Totals().Dials; n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

func TestMoved(t *testing.T) {
	w := newPair(t, true, gated(nil, nil))
	w.mustGet(t, "hit")
	old := w.to
	w.to.Addr, w.to.Incarnation = listenData(t, w.b), old.Incarnation+1
	w.mustGet(t, "hit")
	now := w.to
	w.to = old // an outdated view must not tear down what the newer one has built
	if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	w.to = now
	w.mustGet(t, "hit")
	if n := w.a.Totals().Dials; n != 2 {
		t.Errorf("%d attempts to connect", n)
	}
	w.a.Allow(map[string]uint64{old.Name: old.Incarnation}) // the later incarnation is gone, and the next view has the earlier one again
	w.to = old
	w.mustGet(t, "hit")
}

// TestHandlerMisbehaves checks that whatever a handler does, its caller gets an answer and the connection survives.
func TestHandlerMisbehaves(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		w := newPair(t, tcp, &scripted{serve: func(_ context.Context, req *codec.Request, resp *codec.Response) {
			switch string(req.Key) {
			case "panic":
				panic("later")
			case "exit":
				runtime.Goexit()
			case "large":
				resp.Status, resp.Value = codec.StatusValue, make([]byte, 1<<20+1)
			}
		}})
		for key, want := range map[string]codec.Status{
			"panic-now": codec.StatusFailed, "panic": codec.StatusFailed, "exit": codec.StatusFailed,
			"nothing": codec.StatusFailed, "large": codec.StatusTooLarge,
		} {
			if status, text, err := w.get(t.Context(), key, 0); err != nil || status != want {
				t.Errorf("%s: status %d, %q, %v", key, status, text, err)
			}
		}
		w.mustGet(t, "hit")
		wiretest.WantLog(t, &w.logB, "stack=")
		if n := w.a.Totals().Dials; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestUnknownNamespace(t *testing.T) {
	w := newPair(t, false, nil)
	if status, _, err := w.get(t.Context(), "hit", 0); err != nil || status != codec.StatusUnknown {
		t.Errorf("status %d, %v", status, err)
	}
	unregister, err := w.b.Register("n", 2, gated(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if status, _, err := w.get(t.Context(), "hit", 0); err != nil || status != codec.StatusMismatch {
		t.Errorf("status %d, %v", status, err)
	}
	if _, err := w.b.Register("n", 1, gated(nil, nil)); err == nil {
		t.Error("a namespace was registered twice")
	}
	unregister()
	if status, _, err := w.get(t.Context(), "hit", 0); err != nil || status != codec.StatusUnknown {
		t.Errorf("status %d, %v", status, err)
	}
}

func TestCloseFailsWaiters(t *testing.T) {
	for _, asker := range []bool{true, false} {
		both(t, func(t *testing.T, tcp bool) {
			started := make(chan context.Context, 1)
			w := newPair(t, tcp, gated(nil, started))
			done := make(chan error, 1)
			go func() {
				_, _, err := w.get(t.Context(), "slow", 0)
				done <- err
			}()
			there := <-started
			want := wire.ErrUnreachable
			if asker {
				want = wire.ErrClosed
				w.a.Close(context.Background())
			} else {
				w.b.Close(context.Background())
			}
			if err := <-done; !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			<-there.Done()
			if asker {
				if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrClosed) {
					t.Errorf("after close: %v", err)
				}
			}
		})
	}
}

// TestNoAddressIsNoMember checks that a member without an address is not dialled.
func TestNoAddressIsNoMember(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, gated(nil, nil))
		whole := w.to
		for range 2 {
			w.to.Addr = ""
			if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) || !strings.Contains(err.Error(), w.to.Name) {
				t.Errorf("got %v", err)
			}
			w.to = whole
			w.mustGet(t, "hit") // the record of the member is unchanged
		}
		if n := w.a.Totals().Dials; n != 1 {
			t.Errorf("%d attempts to connect", n)
		}
	})
}
