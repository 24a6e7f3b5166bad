package peer

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// TestHelloOfManyNamespaces checks that the largest hello that a node sends fits, and that the excess is left out.
func TestHelloOfManyNamespaces(t *testing.T) {
	h := hello{
		protocol: protocolVersion, cluster: strings.Repeat("c", MaxClusterName), name: strings.Repeat("n", MaxName),
	}
	for i := range maxHelloNamespaces + 10 {
		h.namespaces = append(h.namespaces, helloNamespace{fmt.Sprintf("%0*d", codec.MaxNamespace, i), uint64(i)})
	}
	b := h.append(nil)
	if n := len(b) - codec.FrameHeader; n > helloLimit {
		t.Fatalf("a hello has %d bytes, the limit is %d", n, helloLimit)
	}
	near, far := net.Pipe()
	defer near.Close()
	go func() { _, _ = near.Write(b) }()
	got, err := readHello(far)
	if err != nil || len(got.namespaces) != maxHelloNamespaces || got.namespaces[255].schema != 255 || got.name != h.name {
		t.Errorf("%d namespaces, %v", len(got.namespaces), err)
	}
}

// TestHelloOfTooManyNamespaces checks that a hello with one namespace more than a node sends is rejected.
func TestHelloOfTooManyNamespaces(t *testing.T) {
	h := hello{protocol: protocolVersion, cluster: "c", name: "n"}
	fixed := len(h.append(nil)) - 2 // the count comes last
	for i := range maxHelloNamespaces {
		h.namespaces = append(h.namespaces, helloNamespace{fmt.Sprint(i), 1})
	}
	b := h.append(nil)
	binary.BigEndian.PutUint16(b[fixed:], maxHelloNamespaces+1)
	b = binary.BigEndian.AppendUint64(appendName(b, "one more"), 1)
	if _, err := decodeHello(b[codec.FrameHeader+codec.FrameMin:]); !isMalformed(err) {
		t.Errorf("%v", err)
	}
}

// TestHelloTooLong checks that a hello above the limit is rejected before its bytes have arrived.
func TestHelloTooLong(t *testing.T) {
	w := newWire(t, false, value("v"))
	near, far := net.Pipe()
	defer near.Close()
	w.b.accept(far, func() {})
	go func() { _, _ = near.Write([]byte{0, 1, 0, 0, byte(codec.KindHello)}) }()
	kind, _, reason := readFrame(t, near)
	if kind != codec.KindGoodbye || !strings.Contains(reason, "65536") {
		t.Errorf("kind %d, %q", kind, reason)
	}
	mustEnd(t, near)
	wantLog(t, &w.logB, "data connection refused")
}

// TestNamespaceDiffers checks that a namespace that differs is rejected on its own: its requests are misses, those of other
// namespaces go on, and both logs say so at the handshake.
func TestNamespaceDiffers(t *testing.T) {
	for _, secret := range []Secret{nil, secretOf("a")} {
		bubble(t, func(t *testing.T) {
			r := newRig()
			n1 := r.add(t, 1, Config{Secret: secret})
			n2 := r.add(t, 2, Config{Secret: secret, Join: []string{n1.Addr()}})
			for i, n := range []*Node{n1, n2} {
				if _, err := n.Register("price", uint64(i), value("p")); err != nil {
					t.Fatal(err)
				}
			}
			awaitNames(t, "n1 n2", n1, n2)
			for i, n := range []*Node{n1, n2} {
				other := []*Node{n2, n1}[i]
				var resp codec.Response
				req := codec.Request{Kind: codec.KindGet, Namespace: []byte("price"), Schema: uint64(i), Key: []byte("k")}
				if err := n.Call(t.Context(), memberOf(other), &req, &resp); err != nil || resp.Status != codec.StatusMismatch || len(resp.Value) > 0 {
					t.Errorf("%s: status %d, value %q, %v", n.Name(), resp.Status, resp.Value, err)
				}
				resp.Release()
			}
			mustServe(t, n1, n2)
			synctest.Wait()
			r.mustLog(t, "n1", "a namespace is not shared with a member", "namespace=price", "peer=n2", "here=0000000000000000", "there=0000000000000001")
			r.mustLog(t, "n2", "a namespace is not shared with a member", "namespace=price", "peer=n1", "here=0000000000000001")
		})
	}
}

// TestPlacementDiffers checks that members that place keys differently do not talk, however they learned of each other.
func TestPlacementDiffers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1 := r.add(t, 1, Config{Secret: secretOf("a")})
		n2 := r.add(t, 2, Config{Secret: secretOf("a"), Ring: ring.Config{Partitions: 271}})
		r.mustRefuse(t, n2, n1, "Config.Ring differs", "Config.Ring differs")
	})
}
