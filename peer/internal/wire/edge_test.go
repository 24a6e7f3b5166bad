package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// plane returns a data plane that dials real addresses and is closed with the test.
func plane(t *testing.T, name string, change func(*wire.Config)) *wire.Plane {
	t.Helper()
	cfg := configOf(name, new(testlog.Log))
	if change != nil {
		change(&cfg)
	}
	d := wire.New(cfg)
	t.Cleanup(func() { d.Close(context.Background()) })
	return d
}

func serving(t *testing.T, h codec.Handler) (*wire.Plane, string) {
	t.Helper()
	d := plane(t, "server", nil)
	if _, err := d.Register("n", 7, h); err != nil {
		t.Fatal(err)
	}
	return d, listenData(t, d)
}

// TestContextDeadlineCrosses checks that the context's deadline crosses the wire even if req.Timeout is 0.
func TestContextDeadlineCrosses(t *testing.T) {
	got := make(chan time.Duration, 1)
	_, addr := serving(t, wiretest.HandlerFunc(func(q *codec.Request, r *codec.Response) bool {
		got <- q.Timeout
		return wiretest.Value("v")(q, r)
	}))
	d := plane(t, "client", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var resp codec.Response
	if err := d.Call(ctx, ring.Member{Name: "server", Addr: addr}, wiretest.Get(0), &resp); err != nil {
		t.Fatal(err)
	}
	resp.Release()
	if d := <-got; d <= 0 || d > 5*time.Second {
		t.Fatalf("the server saw a timeout of %v", d)
	}
}

// TestDialTimeoutIsNotTheCallersDeadline checks that an error that means "unreachable" is not mistaken for the caller's own
// deadline.
func TestDialTimeoutIsNotTheCallersDeadline(t *testing.T) {
	d := plane(t, "client", func(c *wire.Config) {
		c.Dial = func(context.Context, string) (net.Conn, error) { return nil, context.DeadlineExceeded }
	})
	var resp codec.Response
	err := d.Call(t.Context(), ring.Member{Name: "server", Addr: "127.0.0.1:1"}, wiretest.Get(0), &resp)
	if !errors.Is(err, wire.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v: unreachable %v, deadline %v", err, errors.Is(err, wire.ErrUnreachable), errors.Is(err, context.DeadlineExceeded))
	}
}

// TestConnectionsAreBounded checks that a stranger that completes the handshake cannot open an unlimited number of
// connections.
func TestConnectionsAreBounded(t *testing.T) {
	server, addr := serving(t, wiretest.Value("v"))
	client := plane(t, "client", nil)
	for i := range 400 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := client.Handshake(t.Context(), conn, ring.Member{Name: "server", Addr: addr}); err != nil {
			t.Logf("refused at %d", i)
			return
		}
	}
	served := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); runtime.Gosched() {
		served = server.Totals().Accepted
		if served <= 64 {
			return
		}
	}
	t.Fatalf("%d connections of one node are served, each with a buffer outside the budget", served)
}

// TestOneLinkOfTwo checks that one link that cannot be opened does not fail calls while another is up.
func TestOneLinkOfTwo(t *testing.T) {
	_, addr := serving(t, wiretest.Value("v"))
	var mu sync.Mutex
	dials := 0
	d := plane(t, "client", func(c *wire.Config) {
		dial := c.Dial
		c.Connections = 2
		c.Dial = func(ctx context.Context, a string) (net.Conn, error) {
			mu.Lock()
			dials++
			n := dials
			mu.Unlock()
			if n > 1 {
				return nil, fmt.Errorf("no more files")
			}
			return dial(ctx, a)
		}
	})
	for range 10 {
		var resp codec.Response
		if err := d.Call(t.Context(), ring.Member{Name: "server", Addr: addr}, wiretest.Get(0), &resp); err != nil {
			t.Fatal(err)
		}
		resp.Release()
	}
}
