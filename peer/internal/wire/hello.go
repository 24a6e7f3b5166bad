package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/trust"
)

const (
	// Magic is what the dialling side sends first, ahead of TLS if there is any.
	Magic = "WEIR"
	// ProtocolVersion is the version of the frames that nodes exchange.
	ProtocolVersion = 2
	// HelloTimeout bounds the exchange of hellos.
	HelloTimeout = 3 * time.Second
	// maxHelloNamespaces is how many namespaces a hello lists. Further ones are left out, because each request is checked
	// in any case.
	maxHelloNamespaces = 256
	// helloLimit is the longest hello or goodbye frame, in bytes: numbers, two names, and the
	// namespaces.
	helloLimit = 2<<10 + maxHelloNamespaces*(2+codec.MaxNamespace+8)
	maxReason  = 256
)

// Hello is what each side sends about itself before anything else.
type Hello struct {
	Protocol    uint16
	RingVersion uint16
	Incarnation uint64
	ValueLimit  uint64 // bytes
	Placement   uint64 // fingerprint of ring version and configuration
	Cluster     string
	Name        string
	Namespaces  []Namespace // sorted by name
}

// A Namespace describes a namespace that is registered on a node.
type Namespace struct {
	Name   string
	Schema uint64 // fingerprint of freshness, codec and value type
}

// Append appends the frame of h to dst. It cuts names that are too long, and leaves out the namespaces that are too many.
func (h *Hello) Append(dst []byte) []byte {
	start := len(dst)
	dst = codec.BeginFrame(dst, codec.KindHello, 0)
	dst = binary.BigEndian.AppendUint16(dst, h.Protocol)
	dst = binary.BigEndian.AppendUint16(dst, h.RingVersion)
	dst = binary.BigEndian.AppendUint64(dst, h.Incarnation)
	dst = binary.BigEndian.AppendUint64(dst, h.ValueLimit)
	dst = binary.BigEndian.AppendUint64(dst, h.Placement)
	dst = appendName(dst, h.Cluster)
	dst = appendName(dst, h.Name)
	n := min(len(h.Namespaces), maxHelloNamespaces)
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	for _, ns := range h.Namespaces[:n] {
		dst = binary.BigEndian.AppendUint64(appendName(dst, ns.Name), ns.Schema)
	}
	return codec.EndFrame(dst, start)
}

func appendName(dst []byte, s string) []byte {
	s = s[:min(len(s), maxReason)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// DecodeHello reads a hello's body. The protocol version comes first, so that this node can read at least the version of a
// newer hello. Bytes after the namespaces are ignored, so that a later version may add fields. The error wraps
// codec.ErrFrame.
func DecodeHello(b []byte) (h Hello, err error) {
	const fixed = 2 + 2 + 8 + 8 + 8
	if len(b) < 2 {
		return h, fmt.Errorf("%w: hello of %d bytes", codec.ErrFrame, len(b))
	}
	if h.Protocol = binary.BigEndian.Uint16(b); h.Protocol != ProtocolVersion {
		return h, nil
	}
	if len(b) < fixed {
		return h, fmt.Errorf("%w: hello of %d bytes", codec.ErrFrame, len(b))
	}
	h.RingVersion = binary.BigEndian.Uint16(b[2:])
	h.Incarnation = binary.BigEndian.Uint64(b[4:])
	h.ValueLimit = binary.BigEndian.Uint64(b[12:])
	h.Placement = binary.BigEndian.Uint64(b[20:])
	b = b[fixed:]
	if h.Cluster, b, err = readName(b); err != nil {
		return h, err
	}
	if h.Name, b, err = readName(b); err != nil {
		return h, err
	}
	if h.Namespaces, _, err = readNamespaces(b); err != nil {
		return h, err
	}
	return h, nil
}

func readName(b []byte) (string, []byte, error) {
	if len(b) < 2 {
		return "", nil, fmt.Errorf("%w: hello cut short", codec.ErrFrame)
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n > maxReason || n > len(b) {
		return "", nil, fmt.Errorf("%w: hello with a name of %d bytes", codec.ErrFrame, n)
	}
	return string(b[:n]), b[n:], nil
}

func readNamespaces(b []byte) ([]Namespace, []byte, error) {
	if len(b) < 2 {
		return nil, nil, fmt.Errorf("%w: hello cut short", codec.ErrFrame)
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n > maxHelloNamespaces {
		return nil, nil, fmt.Errorf("%w: hello with %d namespaces", codec.ErrFrame, n)
	}
	var out []Namespace
	for range n {
		var ns Namespace
		var err error
		if ns.Name, b, err = readName(b); err != nil {
			return nil, nil, err
		}
		if len(b) < 8 {
			return nil, nil, fmt.Errorf("%w: hello cut short", codec.ErrFrame)
		}
		ns.Schema, b = binary.BigEndian.Uint64(b), b[8:]
		out = append(out, ns)
	}
	return out, b, nil
}

// Hello returns this node's hello as of now.
func (d *Plane) Hello() *Hello {
	h := d.self
	for name, r := range *d.registry.Load() {
		h.Namespaces = append(h.Namespaces, Namespace{name, r.schema})
	}
	slices.SortFunc(h.Namespaces, func(a, b Namespace) int { return strings.Compare(a.Name, b.Name) })
	return &h
}

// mismatch returns why two nodes cannot talk, in words for an operator, or "" if they can.
func (h *Hello) mismatch(other *Hello) string {
	switch {
	case other.Protocol != h.Protocol:
		return fmt.Sprintf("protocol version %d here, %d there: run versions of weir that share one", h.Protocol, other.Protocol)
	case other.RingVersion != h.RingVersion:
		return fmt.Sprintf("ring version %d here, %d there: keys would have two owners; finish the upgrade", h.RingVersion, other.RingVersion)
	case other.Cluster != h.Cluster:
		return fmt.Sprintf("cluster %q here, %q there: an address of another cluster", h.Cluster, other.Cluster)
	case other.Placement != h.Placement:
		return "Config.Ring differs: keys would have two owners; set it alike"
	case other.ValueLimit != h.ValueLimit:
		return fmt.Sprintf("value limit %d bytes here, %d there: set Config.ValueLimit alike", h.ValueLimit, other.ValueLimit)
	}
	return ""
}

// ReadHello reads the other side's first frame. The caller sets the deadline.
func ReadHello(conn net.Conn) (Hello, error) {
	var head [codec.FrameHeader]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return Hello{}, fmt.Errorf("waiting for a hello: %w", err)
	}
	if head[0] == trust.TLSRecord {
		return Hello{}, errors.New("it speaks TLS, and this node does not: it has a Secret, this one has none")
	}
	n, err := codec.FrameLength(head[:], helloLimit)
	if err != nil {
		return Hello{}, err
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(conn, frame); err != nil {
		return Hello{}, fmt.Errorf("reading a hello: %w", err)
	}
	kind, _, body, err := codec.FrameKind(frame)
	switch {
	case err != nil:
		return Hello{}, err
	case kind == codec.KindGoodbye:
		return Hello{}, fmt.Errorf("refused: %q", body[:min(len(body), maxReason)])
	case kind != codec.KindHello:
		return Hello{}, fmt.Errorf("%w: kind %d where a hello was due", codec.ErrFrame, kind)
	}
	return DecodeHello(body)
}
