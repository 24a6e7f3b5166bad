package wiretest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
)

// HandlerFunc is a handler that answers every request at once, with what f fills in.
type HandlerFunc func(*codec.Request, *codec.Response) bool

// TryServe implements codec.Handler.
func (f HandlerFunc) TryServe(q *codec.Request, r *codec.Response) bool { return f(q, r) }

// Serve implements codec.Handler.
func (f HandlerFunc) Serve(context.Context, *codec.Request, *codec.Response) {}

// Stats implements codec.Handler.
func (f HandlerFunc) Stats() any { return nil }

// Value returns a handler that answers every request with v.
func Value(v string) HandlerFunc {
	return func(_ *codec.Request, r *codec.Response) bool {
		r.Status, r.Value = codec.StatusValue, []byte(v)
		return true
	}
}

// Get returns a request for the key "k" of the namespace "n", with the schema 7.
func Get(timeout time.Duration) *codec.Request {
	return &codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 7, Timeout: timeout, Key: []byte("k")}
}

// Until polls ok until it returns true, for a condition that no event signals. It fails the test after two minutes.
func Until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// Frame makes a frame of any kind.
func Frame(kind codec.Kind, id uint64, body string) []byte {
	return codec.EndFrame(append(codec.BeginFrame(nil, kind, id), body...), 0)
}

// ReadFrame reads one frame, within a minute.
func ReadFrame(t *testing.T, conn net.Conn) (codec.Kind, uint64, string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
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

// WantLog waits until the log has a text.
func WantLog(t *testing.T, log *testlog.Log, text string) {
	t.Helper()
	Until(t, "for the log to say "+text, func() bool { return strings.Contains(log.String(), text) })
}

// MustEnd reads from conn until it ends and returns what was read.
func MustEnd(t *testing.T, conn net.Conn) string {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	b, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("the connection did not end: %v", err)
	}
	return string(b)
}

// Pause waits for d. It returns false if ctx ends first.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// AtMost checks that f allocates no more than 64 KiB and four times its input of n bytes.
func AtMost(t *testing.T, n int, f func()) {
	t.Helper()
	most, got := 4*uint64(n)+64<<10, uint64(0)
	for range 2 { // during the first run another goroutine may have allocated
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		if got = after.TotalAlloc - before.TotalAlloc; got <= most {
			return
		}
	}
	t.Errorf("%d bytes made it allocate %d, the bound is %d", n, got, most)
}
