package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/ring"
)

// scripted is a handler controlled by the key: "hit..." is answered at once, "panic-now" panics, and everything else is
// passed to Serve.
type scripted struct {
	serve  func(ctx context.Context, req *codec.Request, resp *codec.Response)
	served atomic.Int64 // calls of Serve that have ended
}

func (h *scripted) TryServe(req *codec.Request, resp *codec.Response) bool {
	if string(req.Key) == "panic-now" {
		panic("now")
	}
	if !bytes.HasPrefix(req.Key, []byte("hit")) {
		return false
	}
	resp.Status, resp.Value = codec.StatusValue, []byte("value of "+string(req.Key))
	return true
}

func (h *scripted) Serve(ctx context.Context, req *codec.Request, resp *codec.Response) {
	defer h.served.Add(1)
	h.serve(ctx, req, resp)
}
func (h *scripted) Stats() any { return nil }

// wire is two data planes, the caller "a" and the server "b", and the network between them.
type wire struct {
	a, b     *data
	logA     logBook
	logB     logBook
	to       ring.Member
	noServer atomic.Bool // refuse to connect

	mu    sync.Mutex // guards conns
	conns []net.Conn // a's ends
}

func dataFor(name string, log *logBook, budget int64, dial func(context.Context, string) (net.Conn, error)) *data {
	return newData(dataConfig{
		name: name, incarnation: 7, clusterName: "c", connections: 1, accepts: 32, valueLimit: 1 << 20, budget: budget,
		dial: dial, logger: log.logger(), seed: 1, hearing: hearing.New(time.Now()),
	})
}

// newWire connects a to b over pipes in memory, or over the loopback if tcp is set.
func newWire(t *testing.T, tcp bool, h codec.Handler) *wire {
	t.Helper()
	w := &wire{to: ring.Member{Name: "b", Addr: "10.0.0.2:1", Incarnation: 7}}
	w.b = dataFor("b", &w.logB, 64<<20, nil)
	dial := func(context.Context, string) (net.Conn, error) {
		if w.noServer.Load() {
			return nil, errors.New("no server")
		}
		near, far := net.Pipe()
		go func() {
			if _, err := io.ReadFull(far, make([]byte, len(dataMagic))); err == nil {
				w.b.accept(far, func() {})
			}
		}()
		return near, nil
	}
	if tcp {
		w.to.Addr = listenData(t, w.b)
		dial = systemNetwork{}.Dial
	}
	w.a = dataFor("a", &w.logA, 64<<20, func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err == nil {
			w.mu.Lock()
			w.conns = append(w.conns, conn)
			w.mu.Unlock()
		}
		return conn, err
	})
	if h != nil {
		if _, err := w.b.register("n", 1, h); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		w.a.close(context.Background())
		w.b.close(context.Background())
		if n := w.a.flying.Load() + w.b.flying.Load(); n != 0 {
			t.Errorf("%d bytes are still counted as in flight", n)
		}
	})
	return w
}

// listenData serves d's data connections on the loopback until the test ends.
func listenData(t *testing.T, d *data) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := io.ReadFull(conn, make([]byte, len(dataMagic))); err != nil {
				_ = conn.Close()
				continue
			}
			d.accept(conn, func() {})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// cut breaks the connections made so far.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// get asks for a key and returns the value.
func (w *wire) get(ctx context.Context, key string, timeout time.Duration) (codec.Status, string, error) {
	req := codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 1, Key: []byte(key), Timeout: timeout}
	var resp codec.Response
	if err := w.a.call(ctx, w.to, &req, &resp); err != nil {
		return 0, "", err
	}
	defer resp.Release()
	return resp.Status, string(resp.Value) + string(resp.Text), nil
}

func (w *wire) mustGet(t *testing.T, key string) {
	t.Helper()
	status, value, err := w.get(t.Context(), key, 0)
	if err != nil || status != codec.StatusValue || value != "value of "+key {
		t.Fatalf("get %q: status %d, %q, %v", key, status, value, err)
	}
}

// both runs a test over pipes and over TCP.
func both(t *testing.T, f func(t *testing.T, tcp bool)) {
	t.Run("pipe", func(t *testing.T) { f(t, false) })
	t.Run("tcp", func(t *testing.T) { f(t, true) })
}

// until polls ok when no event signals the condition. It fails the test after ten seconds.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// frame makes a frame of any kind.
func frame(kind codec.Kind, id uint64, body string) []byte {
	return codec.EndFrame(append(codec.BeginFrame(nil, kind, id), body...), 0)
}

// dialRaw opens a connection to d as a stranger does, says hello and reads the answer.
func dialRaw(t *testing.T, d *data) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	d.accept(far, func() {})
	t.Cleanup(func() { _ = near.Close() })
	_ = near.SetDeadline(time.Now().Add(10 * time.Second))
	h := d.self
	h.name = "stranger"
	if _, err := near.Write(h.append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := readHello(near); err != nil {
		t.Fatal(err)
	}
	return near
}

// readFrame reads one frame.
func readFrame(t *testing.T, conn net.Conn) (codec.Kind, uint64, string) {
	t.Helper()
	var head [codec.FrameHeader]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	kind, id, body, err := codec.FrameKind(b)
	if err != nil {
		t.Fatal(err)
	}
	return kind, id, string(body)
}

func wantLog(t *testing.T, log *logBook, text string) {
	t.Helper()
	until(t, "for the log to say "+text, func() bool { return strings.Contains(log.String(), text) })
}
