package wire_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestAnswersThatWaitAreBounded checks that peers that request a lot and read nothing together hold a bounded part of the
// memory: the connections whose answers have waited longest are closed. A peer that reads is not affected, and the count is
// zero when all peers are gone.
func TestAnswersThatWaitAreBounded(t *testing.T) {
	const size, limit = 900 << 10, 2 << 20
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, wiretest.HandlerFunc(func(req *codec.Request, resp *codec.Response) bool {
			resp.Status, resp.Value = codec.StatusValue, []byte("value of "+string(req.Key))
			if string(req.Key) == "large" {
				resp.Value = make([]byte, size)
			}
			return true
		}), func(_, b *wire.Config) { b.Budget = limit })
		w.mustGet(t, "hit")
		for range 8 {
			conn := dialRaw(t, w.b)
			_ = conn.SetDeadline(time.Time{})
			go func() {
				for id := uint64(1); id <= 4; id++ {
					req := codec.Request{Kind: codec.KindGet, ID: id, Namespace: []byte("n"), Schema: 1, Key: []byte("large")}
					if _, err := conn.Write(codec.AppendRequest(nil, &req)); err != nil {
						return
					}
				}
			}()
			synctest.Wait()
			wiretest.Pause(t.Context(), time.Millisecond)
			if held := w.b.Waiting(); held > limit+size {
				t.Fatalf("%d bytes wait, the limit is %d", held, limit)
			}
		}
		if left := w.b.Totals().Accepted; left < 2 || left > 1+limit/(size-outboxFloor)+1 {
			t.Errorf("%d connections are left", left)
		}
		if !strings.Contains(w.logB.String(), "it does not read its answers") {
			t.Errorf("the log does not say why connections were closed:\n%s", w.logB.String())
		}
		w.mustGet(t, "hit")
		if _, value, err := w.get(t.Context(), "large", 0); err != nil || len(value) != size {
			t.Errorf("a peer that reads gets %d bytes, %v", len(value), err)
		}
		wiretest.Pause(t.Context(), 3*wire.WriteTimeout)
		synctest.Wait()
		if held, left := w.b.Waiting(), w.b.Totals().Accepted; held != 0 || left != 1 {
			t.Errorf("%d bytes are counted, %d connections open", held, left)
		}
	})
}

// greedy is a pair whose server b has a small budget, and a raw connection to b that has requested more large values than
// fit: two wait in its outbox, and two hold most of the budget because they have no room there.
func greedy(t *testing.T) (w *pair, conn net.Conn, size int) {
	t.Helper()
	const limit = 2 << 20
	size = 900 << 10
	w = newPair(t, false, &scripted{serve: func(_ context.Context, req *codec.Request, resp *codec.Response) {
		resp.Status, resp.Value = codec.StatusValue, make([]byte, size)
		if string(req.Key) == "medium" { // more than what is left of the budget, and less than what is left of the backlog
			resp.Value = make([]byte, 260<<10)
		}
	}}, func(_, b *wire.Config) { b.Budget = limit })
	w.mustGet(t, "hit")
	conn = dialRaw(t, w.b)
	_ = conn.SetDeadline(time.Time{})
	for id := range uint64(4) {
		requestLarge(t, conn, id+1)
		synctest.Wait() // one by one, so that the answers do not find the budget used up by one another
	}
	if held := w.b.Totals().InFlight; held < int64(limit-size) {
		t.Fatalf("answers hold %d bytes of the budget", held)
	}
	if status, _, err := w.get(t.Context(), "large", 0); err != nil || status != codec.StatusBusy {
		t.Fatalf("beside a peer that does not read: status %d, %v", status, err)
	}
	return w, conn, size
}

func requestLarge(t *testing.T, conn net.Conn, id uint64) {
	t.Helper()
	req := codec.Request{Kind: codec.KindGet, ID: id, Namespace: []byte("n"), Schema: 1, Key: []byte("large")}
	if _, err := conn.Write(codec.AppendRequest(nil, &req)); err != nil {
		t.Errorf("request %d: %v", id, err)
	}
}

// TestSlowReaderDoesNotHoldTheBudget checks that a peer which requests a lot and reads nothing cannot keep others from
// getting answers for longer than a second: the answers for which its connection has no room use up the budget.
func TestSlowReaderDoesNotHoldTheBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, _, size := greedy(t)
		wiretest.Pause(t.Context(), 1100*time.Millisecond)
		_, _, _ = w.get(t.Context(), "large", 0) // finds no room, and makes some
		synctest.Wait()
		if status, value, err := w.get(t.Context(), "large", 0); err != nil || status != codec.StatusValue || len(value) != size {
			t.Errorf("a second later: status %d, %d bytes, %v", status, len(value), err)
		}
		if !strings.Contains(w.logB.String(), "it does not read its answers") {
			t.Errorf("the log does not say why the connection was closed:\n%s", w.logB.String())
		}
	})
}

// TestSteadyReaderIsNotClosed checks that a peer which reads all the time keeps its connection, although some of its answers
// always wait and the budget is always used up.
func TestSteadyReaderIsNotClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, conn, size := greedy(t)
		chunk, read, busy := make([]byte, 64<<10), 0, 0
		for id := uint64(5); id < 100; id++ {
			if read > size { // an answer is through: the next request
				read -= size
				requestLarge(t, conn, id)
			}
			n, err := io.ReadFull(conn, chunk)
			if err != nil {
				t.Fatalf("at %d: %v\n%s", id, err, w.logB.String())
			}
			read += n
			wiretest.Pause(t.Context(), 100*time.Millisecond)
			if status, _, err := w.get(t.Context(), "medium", 0); err != nil {
				t.Fatal(err)
			} else if status == codec.StatusBusy {
				busy++
			}
		}
		if busy < 50 || w.b.Totals().Accepted != 2 {
			t.Errorf("%d gets found the budget used up, %d connections are open", busy, w.b.Totals().Accepted)
		}
	})
}
