package wire_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

func getFrame(id uint64, key string) []byte {
	return codec.AppendRequest(nil, &codec.Request{Kind: codec.KindGet, ID: id, Namespace: []byte("n"), Schema: 1, Key: []byte(key)})
}

// TestMalformedRequests checks that malformed frames close only their own connection, with a reason on both sides.
func TestMalformedRequests(t *testing.T) {
	for name, bad := range map[string][]byte{
		"garbage":      []byte("GET / HTTP/1.1\r\n\r\n"),
		"short length": {0, 0, 0, 1, 2},
		"oversized":    {0x7f, 0, 0, 0, byte(codec.KindGet)},
		"an answer":    wiretest.Frame(codec.KindAnswer, 1, ""),
		"a hello":      wiretest.Frame(codec.KindHello, 0, ""),
		"empty get":    wiretest.Frame(codec.KindGet, 1, ""),
		"cut get":      wiretest.Frame(codec.KindGet, 1, string(getFrame(1, "hit")[codec.FrameHeader+codec.FrameMin:30])),
		"twice":        append(getFrame(1, "slow"), getFrame(1, "slow")...),
	} {
		t.Run(name, func(t *testing.T) {
			w := newPair(t, false, gated(nil, nil))
			conn := dialRaw(t, w.b)
			go func() { _, _ = conn.Write(bad) }()
			kind, _, reason := wiretest.ReadFrame(t, conn)
			if kind != codec.KindGoodbye || !strings.Contains(reason, codec.ErrFrame.Error()) {
				t.Errorf("kind %d, %q", kind, reason)
			}
			wiretest.MustEnd(t, conn)
			wiretest.WantLog(t, &w.logB, codec.ErrFrame.Error())
			w.mustGet(t, "hit")
		})
	}
}

func TestTruncatedRequest(t *testing.T) {
	w := newPair(t, false, gated(nil, nil))
	conn := dialRaw(t, w.b)
	whole := getFrame(1, "hit")
	if _, err := conn.Write(whole[:len(whole)-1]); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	wiretest.Until(t, "for the session to end", func() bool { return w.b.Totals().Accepted == 0 })
}

// TestLengthAloneAllocatesNothing checks that a large claimed length does not cause an allocation before the bytes arrive.
func TestLengthAloneAllocatesNothing(t *testing.T) {
	const claimed = 0x3f000000
	w := newPair(t, false, gated(nil, nil), func(a, b *wire.Config) { a.ValueLimit, b.ValueLimit = 1<<30, 1<<30 })
	conn := dialRaw(t, w.b)
	frame := binary.BigEndian.AppendUint32(nil, claimed)
	frame = append(frame, byte(codec.KindGet), 2, 3, 4)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, b := range frame { // into a pipe, so each byte is read before the next one is written
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > claimed/16 {
		t.Errorf("%d bytes of a frame of %d made it allocate %d", len(frame), claimed, got)
	}
}

// answering installs a peer that says hello and then does what the test prescribes.
func answering(t *testing.T, w *pair, act func(conn net.Conn)) *wire.Plane {
	t.Helper()
	return answeringWith(t, w, w.b.Hello(), act)
}

// answeringWith is answering with a hello of the test's own.
func answeringWith(t *testing.T, w *pair, h *wire.Hello, act func(conn net.Conn)) *wire.Plane {
	t.Helper()
	cfg := configOf("a", &w.logA)
	cfg.Budget = 1 << 20
	cfg.Dial = func(context.Context, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			_, _ = io.ReadFull(far, make([]byte, len(wire.Magic)))
			if _, err := wire.ReadHello(far); err == nil {
				_, _ = far.Write(h.Append(nil))
				act(far)
			}
		}()
		return near, nil
	}
	w.a.Close(context.Background())
	w.a = wire.New(cfg)
	return w.a
}

func TestMalformedAnswers(t *testing.T) {
	good := codec.AppendResponse(nil, &codec.Response{ID: 1, Status: codec.StatusDone})
	for name, bad := range map[string][]byte{
		"garbage":     []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"never asked": wiretest.Frame(codec.KindAnswer, 2, ""),
		"number 0":    wiretest.Frame(codec.KindAnswer, 0, ""),
		"no status":   wiretest.Frame(codec.KindAnswer, 1, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		"cut":         wiretest.Frame(codec.KindAnswer, 1, "\x01"),
		"a request":   getFrame(1, "hit"),
		"goodbye":     wiretest.Frame(codec.KindGoodbye, 0, "so long"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newPair(t, false, nil)
			answering(t, w, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write(bad)
				_, _ = io.Copy(io.Discard, conn)
			})
			_, _, err := w.get(t.Context(), "k", 0)
			if !errors.Is(err, wire.ErrUnreachable) || errors.Is(err, codec.ErrFrame) == (name == "goodbye") {
				t.Errorf("got %v", err)
			}
			wiretest.WantLog(t, &w.logA, "connection to peer lost")
		})
	}
	t.Run("replayed", func(t *testing.T) {
		w := newPair(t, false, nil)
		answering(t, w, func(conn net.Conn) {
			b := make([]byte, 4096)
			_, _ = conn.Read(b)
			_, _ = conn.Write(append(append([]byte{}, good...), good...)) // the second is dropped
			_, _ = conn.Read(b)
			_, _ = conn.Write(codec.AppendResponse(nil, &codec.Response{ID: 2, Status: codec.StatusDone}))
			_, _ = io.Copy(io.Discard, conn)
		})
		for range 2 {
			if status, _, err := w.get(t.Context(), "k", 0); err != nil || status != codec.StatusDone {
				t.Errorf("status %d, %v", status, err)
			}
		}
	})
}

// TestStalledServer checks that callers of a stopped peer fail within half a second, and that a slow peer is waited for.
func TestStalledServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, nil)
		answering(t, w, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		began := time.Now()
		_, _, err := w.get(t.Context(), "k", 0)
		if took := time.Since(began); !errors.Is(err, wire.ErrUnreachable) || took < 400*time.Millisecond || took > 600*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
	})
	bubble(t, func(t *testing.T) {
		open := make(chan struct{})
		w := newPair(t, false, gated(open, nil))
		time.AfterFunc(time.Minute, func() { close(open) })
		w.mustGet(t, "slow")
	})
}

// TestBoundedQueue checks that the queue to a peer that reads nothing is bounded: more requests fail at once.
func TestBoundedQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, nil)
		d := answering(t, w, func(conn net.Conn) { <-t.Context().Done() })
		keys := make([][]byte, 900)
		for i := range keys {
			keys[i] = make([]byte, codec.MaxKey)
		}
		all := &codec.News{Invalidations: []codec.Invalidation{{Mark: codec.Mark{Incarnation: 1, Seq: 1}, Scope: codec.ScopeKeys, Names: keys}}}
		errs := make(chan error, 20)
		for range 20 {
			go func() {
				var resp codec.Response
				req := codec.Request{Kind: codec.KindInvalidate, Namespace: []byte("n"), News: all}
				errs <- d.Call(t.Context(), w.to, &req, &resp)
			}()
		}
		synctest.Wait()
		if n := d.Peers()[0].Queued; n == 0 || n > outboxLimit {
			t.Errorf("%d bytes wait", n)
		}
		busy := 0
		for ; len(errs) > 0; busy++ {
			if err := <-errs; !errors.Is(err, wire.ErrBusy) {
				t.Errorf("got %v", err)
			}
		}
		if busy < 14 {
			t.Errorf("%d of 20 calls were refused", busy)
		}
		for range 20 - busy {
			if err := <-errs; !errors.Is(err, wire.ErrUnreachable) { // in the end the peer counts as dead
				t.Errorf("got %v", err)
			}
		}
		for i := range keys {
			keys[i] = make([]byte, 2*codec.MaxKey)
		}
		var resp codec.Response
		if err := d.Call(t.Context(), w.to, &codec.Request{Kind: codec.KindInvalidate, News: all}, &resp); err == nil {
			t.Error("a request above the limit was sent")
		}
	})
}

// TestClientThatNeverReads checks that a client that sends requests and never reads is disconnected, and delays no one
// else.
func TestClientThatNeverReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		large := make([]byte, 1<<20) // one for all answers: the client fits thousands of requests into its window
		w := newPair(t, false, &scripted{serve: func(_ context.Context, _ *codec.Request, resp *codec.Response) {
			resp.Status, resp.Value = codec.StatusValue, large
		}})
		conn := dialRaw(t, w.b)
		_ = conn.SetDeadline(time.Time{})
		began := time.Now()
		go func() {
			for id := uint64(1); ; id++ {
				if _, err := conn.Write(getFrame(id, "slow")); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if n := w.b.Totals().InFlight; n > 64<<20 {
			t.Errorf("%d bytes in flight", n)
		}
		wiretest.Pause(t.Context(), 2*wire.WriteTimeout)
		synctest.Wait()
		if n := w.b.Totals().InFlight; n != 0 || !strings.Contains(w.logB.String(), "timeout") {
			t.Errorf("after %v: %d bytes in flight, log: %s", time.Since(began), n, w.logB.String())
		}
		w.mustGet(t, "hit")
	})
}

// TestBudget checks that beyond the budget of bytes in flight the answer is busy, and memory does not grow.
func TestBudget(t *testing.T) {
	open, started := make(chan struct{}), make(chan context.Context, 4)
	w := newPair(t, false, gated(open, started), func(_, b *wire.Config) { b.Budget = 3*servingCost + 512 })
	done := make(chan struct{})
	for range 2 {
		go func() { w.mustGet(t, "slow"); done <- struct{}{} }()
		<-started
	}
	if status, _, err := w.get(t.Context(), "slow"+strings.Repeat("x", 1000), 0); err != nil || status != codec.StatusBusy {
		t.Errorf("status %d, %v", status, err)
	}
	w.mustGet(t, "hit")
	close(open) // the answers fit
	<-done
	<-done
	w.mustGet(t, "hit")

	w = newPair(t, false, gated(nil, nil), func(a, _ *wire.Config) { a.Budget = 8 })
	if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("got %v", err)
	}
}

// TestWrongHello checks that two nodes that do not fit together say why, on both sides, whichever of them dials.
func TestWrongHello(t *testing.T) {
	for reason, change := range map[string]func(c *wire.Config, to *ring.Member){
		"cluster":      func(c *wire.Config, _ *ring.Member) { c.Cluster = "other" },
		"Config.Ring":  func(c *wire.Config, _ *ring.Member) { c.Placement++ },
		"value limit":  func(c *wire.Config, _ *ring.Member) { c.ValueLimit++ },
		"was expected": func(_ *wire.Config, to *ring.Member) { to.Name = "c" },
	} {
		t.Run(reason, func(t *testing.T) {
			var to ring.Member
			w := newPair(t, true, gated(nil, nil), func(a, _ *wire.Config) { change(a, &to) })
			w.to.Name = cmp.Or(to.Name, w.to.Name)
			if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) || !strings.Contains(err.Error(), reason) {
				t.Errorf("got %v", err)
			}
			wiretest.WantLog(t, &w.logA, reason)
			wiretest.WantLog(t, &w.logB, reason)
		})
	}
	for reason, change := range map[string]func(h *wire.Hello){
		"protocol":     func(h *wire.Hello) { h.Protocol++ },
		"ring version": func(h *wire.Hello) { h.RingVersion++ },
	} {
		t.Run(reason, func(t *testing.T) {
			w := newPair(t, false, gated(nil, nil))
			h := w.b.Hello()
			change(h)
			near, far := net.Pipe()
			defer near.Close()
			w.b.Accept(far, func() {})
			go func() { _, _ = near.Write(h.Append(nil)) }()
			if kind, _, why := wiretest.ReadFrame(t, near); kind != codec.KindGoodbye || !strings.Contains(why, reason) {
				t.Errorf("the other side is told %q, kind %d", why, kind)
			}
			wiretest.WantLog(t, &w.logB, reason)

			answeringWith(t, w, h, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
			if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) || !strings.Contains(err.Error(), reason) {
				t.Errorf("got %v", err)
			}
			wiretest.WantLog(t, &w.logA, reason)
		})
	}
}

// TestSilentStranger checks that a stranger that says nothing is disconnected after the handshake timeout.
func TestSilentStranger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newPair(t, false, nil)
		near, far := net.Pipe()
		w.b.Accept(far, func() {})
		var gone atomic.Bool
		go func() { _, _ = io.Copy(io.Discard, near); gone.Store(true) }()
		wiretest.Pause(t.Context(), wire.HelloTimeout+2*time.Second)
		synctest.Wait()
		if !gone.Load() {
			t.Error("the connection is still open")
		}
		_ = near.Close()
	})
}

func FuzzHello(f *testing.F) {
	h := wire.Hello{Protocol: wire.ProtocolVersion, RingVersion: 2, Incarnation: 3, ValueLimit: 4, Placement: 5, Cluster: "c", Name: "n",
		Namespaces: []wire.Namespace{{"product", 6}, {"stock", 7}}}
	whole := h.Append(nil)[codec.FrameHeader+codec.FrameMin:]
	for cut := range whole {
		f.Add(whole[:cut])
	}
	f.Add(whole)
	f.Add(append(slices.Clone(whole), 0))
	f.Add([]byte{0, 9, 1})
	names := 2 + 2 + 8 + 8 + 8 // where the first length is
	for _, at := range []int{names, names + 3, names + 6, names + 8} {
		for _, n := range []uint16{0, maxReason, maxReason + 1, maxHelloNamespaces, maxHelloNamespaces + 1, 1 << 15, 1<<16 - 1} {
			b := slices.Clone(whole)
			binary.BigEndian.PutUint16(b[at:], n)
			f.Add(b)
		}
	}
	f.Add(bytes.Repeat([]byte{0x80}, 1<<20))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h wire.Hello
		var err error
		wiretest.AtMost(t, len(b), func() { h, err = wire.DecodeHello(b) })
		if err != nil {
			if !errors.Is(err, codec.ErrFrame) {
				t.Errorf("%v does not wrap ErrFrame", err)
			}
			return
		}
		if h.Protocol == wire.ProtocolVersion {
			if again := string(h.Append(nil)[codec.FrameHeader+codec.FrameMin:]); !strings.HasPrefix(string(b), again) {
				t.Errorf("%q became %q", b, again)
			}
		}
	})
}
