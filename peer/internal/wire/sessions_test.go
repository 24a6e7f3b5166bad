package wire_test

import (
	"bytes"
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

// TestSessionsAreBounded checks that 4,096 connections are served at once, and that one more is closed, with a line in the log.
func TestSessionsAreBounded(t *testing.T) {
	const most = 4096
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, nil)
		var decided atomic.Int64
		accept := func() net.Conn {
			near, far := net.Pipe()
			t.Cleanup(func() { _ = near.Close() })
			w.b.Accept(far, func() { decided.Add(1) })
			return near
		}
		for range most {
			accept()
		}
		if s := w.b.Totals(); s.Accepted != most || s.Refused != 0 || decided.Load() != 0 {
			t.Errorf("%d connections are served, %d were refused, %d are decided", s.Accepted, s.Refused, decided.Load())
		}
		if _, err := accept().Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("one more: %v", err)
		}
		if s := w.b.Totals(); s.Accepted != most || s.Refused != 1 || decided.Load() != 1 || !strings.Contains(w.logB.String(), "4096 connections are open already") {
			t.Errorf("%d connections are served, %d were refused, %d are decided; the log is\n%s", s.Accepted, s.Refused, decided.Load(), &w.logB)
		}
		wiretest.Pause(t.Context(), 2*wire.HelloTimeout) // the strangers say nothing
		synctest.Wait()
		if s := w.b.Totals(); s.Accepted != 0 || decided.Load() != most+1 {
			t.Errorf("later %d connections are served, %d are decided", s.Accepted, decided.Load())
		}
	})
}

// TestSessionsOfOneMember checks that a member has as many connections as configured, is told why it gets no more, and takes
// nothing from the others.
func TestSessionsOfOneMember(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, gated(nil, nil), func(_, b *wire.Config) { b.Sessions = 2 })
		for range 2 {
			dialRaw(t, w.b)
			synctest.Wait()
		}
		third := dialRaw(t, w.b)
		if kind, _, why := wiretest.ReadFrame(t, third); kind != codec.KindGoodbye || why != `too many connections from "stranger"` {
			t.Errorf("kind %d, %q", kind, why)
		}
		wiretest.MustEnd(t, third)
		w.mustGet(t, "hit")
		synctest.Wait()
		if s := w.b.Totals(); s.Accepted != 3 || s.Refused != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestOneHostDoesNotFillTheLog checks that bad connections from one host, which differ in their ports, are logged once.
func TestOneHostDoesNotFillTheLog(t *testing.T) {
	w := newPair(t, true, nil)
	for n := range int64(3) {
		conn, err := net.Dial("tcp", w.to.Addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(wire.Magic + "GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		wiretest.MustEnd(t, conn)
		_ = conn.Close()
		wiretest.Until(t, "for the connection to be refused", func() bool { return w.b.Totals().Refused == n+1 && w.b.Totals().Accepted == 0 })
	}
	if n := strings.Count(w.logB.String(), "data connection refused"); n != 1 {
		t.Errorf("%d lines:\n%s", n, &w.logB)
	}
}

// counting is a connection that counts its writes.
type counting struct {
	net.Conn
	writes *atomic.Int64
}

func (c counting) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// TestAnswersAreBatched checks that the answers to requests that arrive together are sent together, up to 64 KiB and the
// answer that exceeds them.
func TestAnswersAreBatched(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, wiretest.HandlerFunc(func(req *codec.Request, resp *codec.Response) bool {
			resp.Status = codec.StatusValue
			if resp.Value = []byte("small"); string(req.Key) == "large" {
				resp.Value = make([]byte, 40<<10)
			}
			return true
		}))
		for key, want := range map[string]int64{"small": 1, "large": 5} {
			near, far := net.Pipe()
			defer near.Close()
			var writes atomic.Int64
			w.b.Accept(counting{far, &writes}, func() {})
			if _, err := near.Write(w.a.Hello().Append(nil)); err != nil {
				t.Fatal(err)
			}
			if _, err := wire.ReadHello(near); err != nil {
				t.Fatal(err)
			}
			hello := writes.Load()
			var requests []byte
			for id := range uint64(10) {
				requests = append(requests, getFrame(id+1, key)...)
			}
			if _, err := near.Write(requests); err != nil {
				t.Fatal(err)
			}
			for id := range uint64(10) {
				synctest.Wait()
				if kind, got, _ := wiretest.ReadFrame(t, near); kind != codec.KindAnswer || got != id+1 {
					t.Errorf("kind %d, answer to request %d instead of %d", kind, got, id+1)
				}
			}
			if got := writes.Load() - hello; got > want {
				t.Errorf("%s: 10 answers took %d writes", key, got)
			}
		}
	})
}

// TestWhichRequestsNeedOneSchema checks that only requests that carry values, or ask for them, are refused if the namespace
// has another schema here.
func TestWhichRequestsNeedOneSchema(t *testing.T) {
	w := newPair(t, false, wiretest.HandlerFunc(func(_ *codec.Request, resp *codec.Response) bool {
		resp.Status = codec.StatusDone
		return true
	}))
	news := &codec.News{Invalidations: []codec.Invalidation{{Mark: codec.Mark{Incarnation: 1, Seq: 1}, Scope: codec.ScopeKeys, Names: [][]byte{[]byte("k")}}}}
	for _, c := range []struct {
		req   codec.Request
		needs bool
	}{
		{codec.Request{Kind: codec.KindGet, Key: []byte("k")}, true},
		{codec.Request{Kind: codec.KindGetMany, Many: []codec.Wanted{{Key: []byte("k")}}}, true},
		{codec.Request{Kind: codec.KindPut, Key: []byte("k"), Value: []byte("v")}, true},
		{codec.Request{Kind: codec.KindPush, News: &codec.News{}}, true},
		{codec.Request{Kind: codec.KindInvalidate, News: news}, false},
		{codec.Request{Kind: codec.KindSync, News: &codec.News{}}, false},
	} {
		for _, schema := range []uint64{1, 2} {
			want := codec.StatusDone
			if schema == 2 && c.needs {
				want = codec.StatusMismatch
			}
			c.req.Namespace, c.req.Schema = []byte("n"), schema
			var resp codec.Response
			if err := w.a.Call(t.Context(), w.to, &c.req, &resp); err != nil || resp.Status != want {
				t.Errorf("kind %d with schema %d: status %d, %v", c.req.Kind, schema, resp.Status, err)
			}
			resp.Release()
		}
	}
}

// TestOwnerOfAnAnswer checks that an answer names this node as its owner, unless the handler names another one or says that
// the key has moved.
func TestOwnerOfAnAnswer(t *testing.T) {
	var answer codec.Response
	w := newPair(t, false, wiretest.HandlerFunc(func(_ *codec.Request, resp *codec.Response) bool {
		*resp = answer
		return true
	}))
	for _, c := range []struct {
		answer codec.Response
		want   string
	}{
		{codec.Response{Status: codec.StatusFailed}, "b"}, {codec.Response{Status: codec.StatusFailed, Owner: []byte("other")}, "other"},
		{codec.Response{Status: codec.StatusMoved}, ""}, {codec.Response{Status: codec.StatusMoved, Owner: []byte("other")}, "other"},
	} {
		answer = c.answer
		req := codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 1, Key: []byte("k")}
		var resp codec.Response
		if err := w.a.Call(t.Context(), w.to, &req, &resp); err != nil || resp.Status != c.answer.Status || string(resp.Owner) != c.want {
			t.Errorf("status %d, owner %q instead of %q, %v", resp.Status, resp.Owner, c.want, err)
		}
		resp.Release()
	}
}

// TestConfine checks that Confine closes the connections to members that are not named and to other incarnations, keeps the
// rest, and says why to the calls that wait.
func TestConfine(t *testing.T) {
	w := newPair(t, false, gated(nil, nil))
	w.mustGet(t, "hit")
	w.a.Confine(map[string]uint64{"b": w.to.Incarnation})
	w.mustGet(t, "hit")
	if s := w.a.Peers(); len(s) != 1 || s[0].Dials != 1 {
		t.Errorf("the same incarnation: %+v", s)
	}
	for _, members := range []map[string]uint64{{"b": w.to.Incarnation + 1}, {"c": 1}} {
		w.a.Allow(map[string]uint64{"b": w.to.Incarnation})
		w.a.Confine(map[string]uint64{"b": w.to.Incarnation})
		w.mustGet(t, "hit")
		_, done := w.sent(t, "slow", 0)
		w.a.Confine(members)
		if call := <-done; !errors.Is(call.Err, wire.ErrUnreachable) || !strings.Contains(call.Err.Error(), "b is no longer a member") {
			t.Errorf("%v: %v", members, call.Err)
		}
		if s := w.a.Peers(); len(s) != 0 {
			t.Errorf("%v: %+v", members, s)
		}
		if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) {
			t.Errorf("%v: a late call: %v", members, err)
		}
	}
}

// TestConnectionsByKind checks that gets use all connections to a member, and that other requests keep to one, so that they
// arrive in order.
func TestConnectionsByKind(t *testing.T) {
	for _, c := range []struct {
		req  codec.Request
		want int64
	}{
		{codec.Request{Kind: codec.KindGet, Key: []byte("k")}, 2},
		{codec.Request{Kind: codec.KindGetMany, Many: []codec.Wanted{{Key: []byte("k")}}}, 2},
		{codec.Request{Kind: codec.KindSync, News: &codec.News{}}, 1},
	} {
		bubble(t, func(t *testing.T) {
			w := newPair(t, false, nil, func(a, _ *wire.Config) { a.Connections = 2 })
			for range 10 {
				var resp codec.Response
				if err := w.a.Call(t.Context(), w.to, &c.req, &resp); err != nil {
					t.Fatal(err)
				}
				resp.Release()
				synctest.Wait()
			}
			if s := w.a.Peers()[0]; s.Dials != c.want || int64(s.Connected) != c.want {
				t.Errorf("kind %d: %+v", c.req.Kind, s)
			}
		})
	}
}

// TestSoonerDeadlineCrosses checks that the sooner of the two deadlines of a call crosses the wire.
func TestSoonerDeadlineCrosses(t *testing.T) {
	for _, c := range []struct{ timeout, ctx, want time.Duration }{{0, 5, 5}, {1, 5, 1}, {5, 1, 1}, {3, 3, 3}} {
		bubble(t, func(t *testing.T) {
			var got time.Duration
			w := newPair(t, false, wiretest.HandlerFunc(func(req *codec.Request, resp *codec.Response) bool {
				got, resp.Status = req.Timeout, codec.StatusDone
				return true
			}))
			ctx, cancel := context.WithTimeout(t.Context(), c.ctx*time.Second)
			defer cancel()
			if _, _, err := w.get(ctx, "k", c.timeout*time.Second); err != nil || got != c.want*time.Second {
				t.Errorf("%v, %v: the other side has %v, %v", c.timeout, c.ctx, got, err)
			}
		})
	}
}

// TestMovesWithoutARestart checks that a member may be called at a new address under the same incarnation.
func TestMovesWithoutARestart(t *testing.T) {
	w := newPair(t, false, gated(nil, nil))
	w.mustGet(t, "hit")
	w.to.Addr += "0"
	w.mustGet(t, "hit")
	if s := w.a.Peers(); len(s) != 1 || s[0].Addr != w.to.Addr || w.a.Totals().Dials != 2 {
		t.Errorf("%+v", s)
	}
}

// TestLargestRequest checks that a request as large as a frame may be is sent, and that a larger one is refused here.
func TestLargestRequest(t *testing.T) {
	const most = 1 << 20
	var got int
	w := newPair(t, false, wiretest.HandlerFunc(func(req *codec.Request, resp *codec.Response) bool {
		got, resp.Status = len(req.Value), codec.StatusDone
		return true
	}))
	put := func(size int) error {
		req := codec.Request{Kind: codec.KindPut, Namespace: []byte("n"), Schema: 1, Key: []byte("k"), Value: bytes.Repeat([]byte("v"), size-1)}
		var resp codec.Response
		defer resp.Release()
		return w.a.Call(t.Context(), w.to, &req, &resp)
	}
	if err := put(most); err != nil || got != most-1 {
		t.Errorf("the largest: %v, %d bytes arrived", err, got)
	}
	if err := put(most + 1); err == nil || errors.Is(err, wire.ErrUnreachable) || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("one byte more: %v", err)
	}
}
