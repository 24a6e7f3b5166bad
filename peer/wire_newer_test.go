package peer

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/weircache/weir/codec"
)

// TestNewerRequests checks that a request of a later version of weir that this one does not know is rejected with an
// answer, and that the connection goes on.
func TestNewerRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n := recordedNode(t, r)
		h := n.data.self
		h.name = "newer"
		hello := codec.EndFrame(append(h.append(nil), "what a later version adds"...), 0)
		conn := r.dial(t, 2, n)
		if b := exchange(t, conn, append([]byte(dataMagic), hello...)); codec.Kind(b[codec.FrameHeader]) != codec.KindHello {
			t.Fatalf("a longer hello was answered with %q", b)
		}
		schema := productSchema(t, n)
		made := func(r codec.Request, change func(body []byte)) []byte {
			r.ID, r.Namespace, r.Schema, r.Key = 7, []byte("product"), schema, []byte("sku-1")
			b := codec.AppendRequest(nil, &r)
			change(b[codec.FrameHeader+codec.FrameMin:])
			return b
		}
		flag := func(body []byte) { body[0] |= 1 << 6 }
		for what, request := range map[string][]byte{
			"a kind":             frame(12, 7, "anything"),
			"a kind of nothing":  frame(200, 7, ""),
			"a flag of a put":    made(codec.Request{Kind: codec.KindPut, Value: []byte("\xa1v")}, flag),
			"a flag of a sync":   made(codec.Request{Kind: codec.KindSync}, flag),
			"a flag of a push":   made(codec.Request{Kind: codec.KindPush}, flag),
			"a flag of get many": made(codec.Request{Kind: codec.KindGetMany}, flag),
			"a mode of get many": made(codec.Request{Kind: codec.KindGetMany, Mode: 77}, func([]byte) {}),
			"a scope": made(codec.Request{Kind: codec.KindInvalidate, News: &codec.News{
				Invalidations: []codec.Invalidation{{Mark: codec.Mark{Incarnation: 1, Seq: 1}, Scope: 9}}}}, func([]byte) {}),
		} {
			got := gist(t, exchange(t, conn, request))
			if !strings.Contains(got, `7: status 18 flags 0 owner "n1" text "unsupported request: `) {
				t.Errorf("%s: %s", what, got)
			}
			known := made(codec.Request{Kind: codec.KindGet}, func([]byte) {})
			if got := gist(t, exchange(t, conn, known)); !strings.Contains(got, "value of sku-1") {
				t.Errorf("after %s: %s", what, got)
			}
		}
	})
}

// TestNewerProtocol checks that a node with another protocol version is told so, whatever else its hello says.
func TestNewerProtocol(t *testing.T) {
	w := newWire(t, false, value("v"))
	near, far := net.Pipe()
	defer near.Close()
	w.b.accept(far, func() {})
	go func() {
		body := append(binary.BigEndian.AppendUint16(nil, protocolVersion+1), "nobody knows what"...)
		_, _ = near.Write(frame(codec.KindHello, 0, string(body)))
	}()
	kind, _, why := readFrame(t, near)
	if kind != codec.KindGoodbye || !strings.Contains(why, "protocol version 2 here, 3 there: run versions of weir that share one") {
		t.Errorf("kind %d, %q", kind, why)
	}
	mustEnd(t, near)
}

// TestNewerAnswer checks that an answer with a status of a later version fails only its own call, and not others on the
// connection.
func TestNewerAnswer(t *testing.T) {
	w := newWire(t, false, nil)
	answering(t, w, func(conn net.Conn) {
		for id := uint64(1); ; id++ {
			if kind, _, _ := readAny(conn); kind == 0 {
				return
			}
			answer := frame(codec.KindAnswer, id, "\x4d\x80\x00\x00\x00\x00\x00\x00\x00\x05 and more")
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
