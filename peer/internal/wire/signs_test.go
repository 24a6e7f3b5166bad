package wire_test

import (
	"errors"
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

// TestSilenceInTime checks what happens when a peer falls silent: a ping every 100 ms, the end of the waiting call after half
// a second, and the end of the connection after two seconds, each with its reason.
func TestSilenceInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, nil)
		var pings atomic.Int64
		answering(t, w, func(conn net.Conn) {
			for {
				kind, _, err := readAny(conn)
				if err != nil || kind == 0 {
					return
				}
				if kind == codec.KindPing {
					pings.Add(1)
				}
			}
		})
		done := make(chan error, 1)
		go func() {
			_, _, err := w.get(t.Context(), "k", 0)
			done <- err
		}()
		for n := range int64(20) {
			wiretest.Pause(t.Context(), 10*linkTick-linkTick/2)
			if got := pings.Load(); got != n {
				t.Errorf("just before %v: %d pings", time.Duration(n+1)*10*linkTick, got)
			}
			if ended := len(done) > 0; ended != (n >= 5) {
				t.Errorf("just before %v: the call has ended: %v", time.Duration(n+1)*10*linkTick, ended)
			}
			if up := w.a.Peers()[0].Connected; up != 1 {
				t.Errorf("just before %v: %d connections", time.Duration(n+1)*10*linkTick, up)
			}
			wiretest.Pause(t.Context(), linkTick/2)
			synctest.Wait()
		}
		if up := w.a.Peers()[0].Connected; up != 0 || !strings.Contains(w.logA.String(), "no sign of life for 2s") {
			t.Errorf("after two seconds: %d connections, the log is\n%s", up, &w.logA)
		}
		if err := <-done; !errors.Is(err, wire.ErrUnreachable) || !strings.HasSuffix(err.Error(), "no sign of life for 500ms") {
			t.Error(err)
		}
	})
}

// TestTickingEnds checks for how many ticks without a call a connection ticks.
func TestTickingEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, gated(nil, nil))
		w.mustGet(t, "hit")
		wiretest.Pause(t.Context(), time.Second)
		w.mustGet(t, "hit")
		wiretest.Pause(t.Context(), idleTicks*linkTick-linkTick/2)
		if ticking, _ := w.a.Ticking("b"); !ticking {
			t.Error("the ticking has ended early")
		}
		wiretest.Pause(t.Context(), linkTick)
		if ticking, _ := w.a.Ticking("b"); ticking {
			t.Error("the ticking goes on")
		}
	})
}

// TestCallsOnAConnectionAreBounded checks that 65,536 calls may wait on a connection, and that one more is not sent until
// one of them has ended.
func TestCallsOnAConnectionAreBounded(t *testing.T) {
	const most = 1 << 16
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, nil)
		answering(t, w, func(conn net.Conn) {
			for first := true; ; first = false {
				kind, id, err := readAny(conn)
				if err != nil || kind == 0 {
					return
				}
				if first {
					_, _ = conn.Write(codec.AppendResponse(nil, &codec.Response{ID: id, Status: codec.StatusDone}))
				}
			}
		})
		if _, _, err := w.get(t.Context(), "first", 0); err != nil {
			t.Fatal(err)
		}
		done := make(chan *codec.Call, most+1)
		send := func() (*codec.Call, bool) {
			call := &codec.Call{
				Req:  &codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 1, Key: []byte("k")},
				Resp: new(codec.Response), Done: done,
			}
			return call, w.a.Send(t.Context(), w.to, call)
		}
		var last *codec.Call
		for n := range most {
			call, sent := send()
			if !sent {
				t.Fatalf("call %d is not sent", n)
			}
			if last = call; n%1000 == 0 {
				synctest.Wait()
			}
		}
		if _, sent := send(); sent {
			t.Error("one call more is sent")
		}
		if n := w.a.Peers()[0].InFlight; n != most {
			t.Errorf("%d calls wait", n)
		}
		if !last.Withdraw() {
			t.Error("the last call has ended")
		}
		if _, sent := send(); !sent {
			t.Error("there is room for another call, and it is not sent")
		}
	})
}
