package wire_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestNewerProtocol checks that a node with another protocol version is told so, whatever else its hello says.
func TestNewerProtocol(t *testing.T) {
	w := newPair(t, false, wiretest.Value("v"))
	near, far := net.Pipe()
	defer near.Close()
	w.b.Accept(far, func() {})
	go func() {
		body := append(binary.BigEndian.AppendUint16(nil, wire.ProtocolVersion+1), "nobody knows what"...)
		_, _ = near.Write(wiretest.Frame(codec.KindHello, 0, string(body)))
	}()
	kind, _, why := wiretest.ReadFrame(t, near)
	if kind != codec.KindGoodbye || !strings.Contains(why, "protocol version 2 here, 3 there: run versions of weir that share one") {
		t.Errorf("kind %d, %q", kind, why)
	}
	wiretest.MustEnd(t, near)
}

// TestShortestHello checks that a hello that has only its version is enough to say which one, and that one byte is not.
func TestShortestHello(t *testing.T) {
	newer := binary.BigEndian.AppendUint16(nil, wire.ProtocolVersion+1)
	if h, err := wire.DecodeHello(newer); err != nil || h.Protocol != wire.ProtocolVersion+1 {
		t.Errorf("version %d, %v", h.Protocol, err)
	}
	if _, err := wire.DecodeHello(newer[:1]); !errors.Is(err, codec.ErrFrame) {
		t.Errorf("of one byte: %v", err)
	}
}

// TestNewerAnswer checks that an answer with a status of a later version fails only its own call, and not others on the
// connection.
func TestNewerAnswer(t *testing.T) {
	w := newPair(t, false, nil)
	answering(t, w, func(conn net.Conn) {
		for id := uint64(1); ; id++ {
			if kind, _, _ := readAny(conn); kind == 0 {
				return
			}
			answer := wiretest.Frame(codec.KindAnswer, id, "\x4d\x80\x00\x00\x00\x00\x00\x00\x00\x05 and more")
			if id == 2 {
				answer = codec.AppendResponse(nil, &codec.Response{ID: id, Status: codec.StatusDone})
			}
			_, _ = conn.Write(answer)
		}
	})
	for i, want := range []codec.Status{codec.StatusUnsupported, codec.StatusDone, codec.StatusUnsupported} {
		status, text, err := w.get(t.Context(), "k", 0)
		if err != nil || status != want || want == codec.StatusUnsupported && text != "status 77 is unknown here" {
			t.Errorf("call %d: status %d, %q, %v", i, status, text, err)
		}
	}
	if strings.Contains(w.logA.String(), "connection to peer lost") {
		t.Errorf("the connection was given up: %s", &w.logA)
	}
}

// readAny reads a frame of any kind. It returns 0 if the connection has ended.
func readAny(conn net.Conn) (codec.Kind, uint64, error) {
	var head [codec.FrameHeader]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, 0, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(conn, b); err != nil {
		return 0, 0, errors.New("cut")
	}
	kind, id, _, err := codec.FrameKind(b)
	return kind, id, err
}
