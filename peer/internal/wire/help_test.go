package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/ring"
)

// The times and limits that the tests expect.
const (
	linkTick    = 10 * time.Millisecond // how often a connection with calls in flight is checked
	idleTicks   = 3                     // so many ticks without a call end the checks
	silentAfter = 50 * linkTick         // a peer that owes an answer and is silent for so long is bypassed
	deafMost    = 4 * time.Second       // for so long, silence does not count while this node cannot listen, or the peer acknowledges
	ackedWithin = 300 * time.Millisecond
	backoffMax  = 2 * time.Second // the longest pause between connection attempts
	servingCost = 8 << 10         // what a waiting request counts for in the budget, beside its size
	outboxLimit = 4 << 20         // bytes that may wait for one connection
	outboxFloor = 64 << 10        // bytes that may wait for each connection, whatever waits for the others
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

// pair is two data planes, the caller "a" and the server "b", and the network between them.
type pair struct {
	a, b     *wire.Plane
	logA     testlog.Log
	logB     testlog.Log
	to       ring.Member
	noServer atomic.Bool // refuse to connect

	mu    sync.Mutex // guards conns
	conns []net.Conn // a's ends
}

// configOf returns the configuration of a data plane that logs to log.
func configOf(name string, log *testlog.Log) wire.Config {
	return wire.Config{
		Name: name, Incarnation: 7, Cluster: "c", Connections: 1, Sessions: 32, ValueLimit: 1 << 20, Budget: 64 << 20,
		Dial: dialTCP, Logger: log.Logger(), Seed: 1, Hearing: hearing.New(time.Now()),
	}
}

// newPair connects a to b over pipes in memory, or over the loopback if tcp is set. The changes are made to the two
// configurations first.
func newPair(t *testing.T, tcp bool, h codec.Handler, changes ...func(a, b *wire.Config)) *pair {
	t.Helper()
	w := &pair{to: ring.Member{Name: "b", Addr: "10.0.0.2:1", Incarnation: 7}}
	here, there := configOf("a", &w.logA), configOf("b", &w.logB)
	dial := func(context.Context, string) (net.Conn, error) {
		if w.noServer.Load() {
			return nil, errors.New("no server")
		}
		near, far := net.Pipe()
		go func() {
			if _, err := io.ReadFull(far, make([]byte, len(wire.Magic))); err == nil {
				w.b.Accept(far, func() {})
			}
		}()
		return near, nil
	}
	if tcp {
		dial = dialTCP
	}
	here.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err == nil {
			w.mu.Lock()
			w.conns = append(w.conns, conn)
			w.mu.Unlock()
		}
		return conn, err
	}
	for _, change := range changes {
		change(&here, &there)
	}
	w.a, w.b = wire.New(here), wire.New(there)
	if tcp {
		w.to.Addr = listenData(t, w.b)
	}
	if h != nil {
		if _, err := w.b.Register("n", 1, h); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		w.a.Close(context.Background())
		w.b.Close(context.Background())
		if n := w.a.Totals().InFlight + w.b.Totals().InFlight; n != 0 {
			t.Errorf("%d bytes are still counted as in flight", n)
		}
	})
	return w
}

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// listenData serves d's data connections on the loopback until the test ends.
func listenData(t *testing.T, d *wire.Plane) string {
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
			if _, err := io.ReadFull(conn, make([]byte, len(wire.Magic))); err != nil {
				_ = conn.Close()
				continue
			}
			d.Accept(conn, func() {})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// cut breaks the connections made so far.
func (w *pair) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// get asks for a key and returns the value.
func (w *pair) get(ctx context.Context, key string, timeout time.Duration) (codec.Status, string, error) {
	req := codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 1, Key: []byte(key), Timeout: timeout}
	var resp codec.Response
	if err := w.a.Call(ctx, w.to, &req, &resp); err != nil {
		return 0, "", err
	}
	defer resp.Release()
	return resp.Status, string(resp.Value) + string(resp.Text), nil
}

func (w *pair) mustGet(t *testing.T, key string) {
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

// dialRaw opens a connection to d as a stranger does, says hello and reads the answer.
func dialRaw(t *testing.T, d *wire.Plane) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	d.Accept(far, func() {})
	t.Cleanup(func() { _ = near.Close() })
	_ = near.SetDeadline(time.Now().Add(10 * time.Second))
	h := d.Hello()
	h.Name = "stranger"
	if _, err := near.Write(h.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.ReadHello(near); err != nil {
		t.Fatal(err)
	}
	return near
}
