package peer

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
)

// funcHandler is a handler that answers at once with f.
type funcHandler func(*codec.Request, *codec.Response) bool

func (f funcHandler) TryServe(q *codec.Request, r *codec.Response) bool      { return f(q, r) }
func (f funcHandler) Serve(context.Context, *codec.Request, *codec.Response) {}
func (f funcHandler) Stats() any                                             { return nil }

// value is a handler that answers with v.
func value(v string) funcHandler {
	return func(_ *codec.Request, r *codec.Response) bool {
		r.Status, r.Value = codec.StatusValue, []byte(v)
		return true
	}
}

func getReq(timeout time.Duration) *codec.Request {
	return &codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 7, Timeout: timeout, Key: []byte("k")}
}

// until polls ok when no event signals the condition.
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
