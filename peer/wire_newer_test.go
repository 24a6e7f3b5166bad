package peer

import (
	"strings"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestNewerRequests checks that a request of a later version of weir that this one does not know is rejected with an
// answer, and that the connection goes on.
func TestNewerRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n := recordedNode(t, r)
		h := n.data.Hello()
		h.Name = "newer"
		hello := codec.EndFrame(append(h.Append(nil), "what a later version adds"...), 0)
		conn := r.dial(t, 2, n)
		if b := exchange(t, conn, append([]byte(wire.Magic), hello...)); codec.Kind(b[codec.FrameHeader]) != codec.KindHello {
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
			"a kind":             wiretest.Frame(12, 7, "anything"),
			"a kind of nothing":  wiretest.Frame(200, 7, ""),
			"a flag of a put":    made(codec.Request{Kind: codec.KindPut, Value: []byte("\xa1v")}, flag),
			"a flag of a sync":   made(codec.Request{Kind: codec.KindSync}, flag),
			"a flag of a push":   made(codec.Request{Kind: codec.KindPush}, flag),
			"a flag of get many": made(codec.Request{Kind: codec.KindGetMany}, flag),
			"a mode of get many": made(codec.Request{Kind: codec.KindGetMany, Mode: 77}, func([]byte) {}),
			"a scope": made(codec.Request{Kind: codec.KindInvalidate, News: &codec.News{
				Invalidations: []codec.Invalidation{{Mark: codec.Mark{Incarnation: 1, Seq: 1}, Scope: 9}}}}, func([]byte) {}),
		} {
			got, _ := gist(t, exchange(t, conn, request))
			if !strings.Contains(got, `7: status 18 flags 0 owner "n1" text "unsupported request: `) {
				t.Errorf("%s: %s", what, got)
			}
			known := made(codec.Request{Kind: codec.KindGet}, func([]byte) {})
			if got, _ := gist(t, exchange(t, conn, known)); !strings.Contains(got, "value of sku-1") {
				t.Errorf("after %s: %s", what, got)
			}
		}
	})
}
