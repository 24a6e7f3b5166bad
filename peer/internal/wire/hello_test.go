package wire_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

const (
	maxReason          = 256 // bytes of a name
	maxHelloNamespaces = 256
	helloLimit         = 2<<10 + maxHelloNamespaces*(2+codec.MaxNamespace+8) // bytes of a frame
)

// TestHelloOfManyNamespaces checks that the largest hello that a node sends fits, and that the excess is left out.
func TestHelloOfManyNamespaces(t *testing.T) {
	h := wire.Hello{
		Protocol: wire.ProtocolVersion, Cluster: strings.Repeat("c", maxReason), Name: strings.Repeat("n", maxReason),
	}
	for i := range maxHelloNamespaces + 10 {
		h.Namespaces = append(h.Namespaces, wire.Namespace{fmt.Sprintf("%0*d", codec.MaxNamespace, i), uint64(i)})
	}
	b := h.Append(nil)
	if n := len(b) - codec.FrameHeader; n > helloLimit {
		t.Fatalf("a hello has %d bytes, the limit is %d", n, helloLimit)
	}
	near, far := net.Pipe()
	defer near.Close()
	go func() { _, _ = near.Write(b) }()
	got, err := wire.ReadHello(far)
	if err != nil || len(got.Namespaces) != maxHelloNamespaces || got.Namespaces[255].Schema != 255 || got.Name != h.Name {
		t.Errorf("%d namespaces, %v", len(got.Namespaces), err)
	}
}

// TestHelloOfTooManyNamespaces checks that a hello with one namespace more than a node sends is rejected.
func TestHelloOfTooManyNamespaces(t *testing.T) {
	h := wire.Hello{Protocol: wire.ProtocolVersion, Cluster: "c", Name: "n"}
	fixed := len(h.Append(nil)) - 2 // the count comes last
	for i := range maxHelloNamespaces {
		h.Namespaces = append(h.Namespaces, wire.Namespace{fmt.Sprint(i), 1})
	}
	b := h.Append(nil)
	binary.BigEndian.PutUint16(b[fixed:], maxHelloNamespaces+1)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len("one more"))), "one more"...)
	b = binary.BigEndian.AppendUint64(b, 1)
	if _, err := wire.DecodeHello(b[codec.FrameHeader+codec.FrameMin:]); !errors.Is(err, codec.ErrFrame) {
		t.Errorf("%v", err)
	}
}

// TestHelloTooLong checks that a hello above the limit is rejected before its bytes have arrived.
func TestHelloTooLong(t *testing.T) {
	w := newPair(t, false, wiretest.Value("v"))
	near, far := net.Pipe()
	defer near.Close()
	w.b.Accept(far, func() {})
	go func() { _, _ = near.Write([]byte{0, 1, 0, 0, byte(codec.KindHello)}) }()
	kind, _, reason := wiretest.ReadFrame(t, near)
	if kind != codec.KindGoodbye || !strings.Contains(reason, "65536") {
		t.Errorf("kind %d, %q", kind, reason)
	}
	wiretest.MustEnd(t, near)
	wiretest.WantLog(t, &w.logB, "data connection refused")
}
