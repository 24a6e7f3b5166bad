package wire_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wire"
)

// sent starts a call for a key with send, and returns it with the channel on which it ends.
func (w *pair) sent(t *testing.T, key string, timeout time.Duration) (*codec.Call, chan *codec.Call) {
	t.Helper()
	done := make(chan *codec.Call, 1)
	call := &codec.Call{
		Req:  &codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 1, Key: []byte(key), Timeout: timeout},
		Resp: new(codec.Response), Done: done,
	}
	if !w.a.Send(t.Context(), w.to, call) {
		t.Fatalf("%q is not sent", key)
	}
	return call, done
}

func TestSend(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		started := make(chan context.Context, 1)
		w := newPair(t, tcp, gated(nil, started))
		if w.a.Send(t.Context(), w.to, &codec.Call{Req: &codec.Request{}}) {
			t.Error("sent without a connection")
		}
		w.mustGet(t, "hit")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if w.a.Send(ended, w.to, &codec.Call{Req: &codec.Request{}}) {
			t.Error("sent although the context has ended")
		}
		call, done := w.sent(t, "hit", 0)
		if got := <-done; got != call || got.Err != nil || string(got.Resp.Value) != "value of hit" {
			t.Fatalf("got %+v", got)
		}
		call.Resp.Release()
		if call.Withdraw() {
			t.Error("withdrawn although it has ended")
		}

		call, done = w.sent(t, "hit", 0)
		<-done
		call.Resp.Release()

		call, done = w.sent(t, "slow", 0)
		there := <-started
		if !call.Withdraw() || call.Withdraw() {
			t.Error("withdrawn not at all, or twice")
		}
		<-there.Done()
		w.mustGet(t, "hit") // its outcome, if any, would have arrived by now
		if len(done) > 0 {
			t.Error("a withdrawn call has ended")
		}

		call, done = w.sent(t, "slow", 0)
		<-started
		w.cut()
		if <-done; !errors.Is(call.Err, wire.ErrUnreachable) || call.Withdraw() {
			t.Errorf("got %v", call.Err)
		}
		if s := w.a.Peers()[0]; s.Calls != 6 || s.Errors != 2 {
			t.Errorf("%d calls, %d errors", s.Calls, s.Errors)
		}
	})
}

// TestSendTimeout checks that a sent call ends when its time is up, whatever the other side does.
func TestSendTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		open := make(chan struct{})
		w := newPair(t, false, &scripted{serve: func(context.Context, *codec.Request, *codec.Response) { <-open }})
		w.mustGet(t, "hit")
		began := time.Now()
		_, done := w.sent(t, "slow", 50*time.Millisecond)
		call := <-done
		if took := time.Since(began); !errors.Is(call.Err, context.DeadlineExceeded) || took < 50*time.Millisecond || took > 50*time.Millisecond+2*linkTick {
			t.Errorf("%v after %v", call.Err, took)
		}
		close(open)
		synctest.Wait()
		w.mustGet(t, "hit")
	})
}
