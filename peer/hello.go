package peer

import (
	"context"
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
	"github.com/weircache/weir/ring"
)

const (
	// protocolVersion is the version of the frames that nodes exchange.
	protocolVersion = 2
	// helloTimeout bounds the exchange of hellos.
	helloTimeout = 3 * time.Second
	// maxHelloNamespaces is how many namespaces a hello lists. Further ones are left out, because each request is checked
	// in any case.
	maxHelloNamespaces = 256
	// helloLimit is the longest hello or goodbye frame, in bytes: numbers, two names, and
	// the namespaces.
	helloLimit = 2<<10 + maxHelloNamespaces*(2+codec.MaxNamespace+8)
	maxReason  = 256
)

// hello is what each side sends about itself before anything else.
type hello struct {
	protocol    uint16
	ringVersion uint16
	incarnation uint64
	valueLimit  uint64 // bytes
	placement   uint64 // fingerprint of ring version and configuration
	cluster     string
	name        string
	namespaces  []helloNamespace // sorted by name
}

// A helloNamespace describes a namespace that is registered on a node.
type helloNamespace struct {
	name   string
	schema uint64 // fingerprint of freshness, codec and value type
}

func (h *hello) append(dst []byte) []byte {
	start := len(dst)
	dst = codec.BeginFrame(dst, codec.KindHello, 0)
	dst = binary.BigEndian.AppendUint16(dst, h.protocol)
	dst = binary.BigEndian.AppendUint16(dst, h.ringVersion)
	dst = binary.BigEndian.AppendUint64(dst, h.incarnation)
	dst = binary.BigEndian.AppendUint64(dst, h.valueLimit)
	dst = binary.BigEndian.AppendUint64(dst, h.placement)
	dst = appendName(dst, h.cluster)
	dst = appendName(dst, h.name)
	n := min(len(h.namespaces), maxHelloNamespaces)
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	for _, ns := range h.namespaces[:n] {
		dst = binary.BigEndian.AppendUint64(appendName(dst, ns.name), ns.schema)
	}
	return codec.EndFrame(dst, start)
}

func appendName(dst []byte, s string) []byte {
	s = s[:min(len(s), maxReason)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// decodeHello reads a hello's body. The protocol version comes first, so that this node can read at least the version of a
// newer hello. Bytes after the namespaces are ignored, so that a later version may add fields. The error wraps
// codec.ErrFrame.
func decodeHello(b []byte) (h hello, err error) {
	const fixed = 2 + 2 + 8 + 8 + 8
	if len(b) < 2 {
		return h, fmt.Errorf("%w: hello of %d bytes", codec.ErrFrame, len(b))
	}
	if h.protocol = binary.BigEndian.Uint16(b); h.protocol != protocolVersion {
		return h, nil
	}
	if len(b) < fixed {
		return h, fmt.Errorf("%w: hello of %d bytes", codec.ErrFrame, len(b))
	}
	h.ringVersion = binary.BigEndian.Uint16(b[2:])
	h.incarnation = binary.BigEndian.Uint64(b[4:])
	h.valueLimit = binary.BigEndian.Uint64(b[12:])
	h.placement = binary.BigEndian.Uint64(b[20:])
	b = b[fixed:]
	if h.cluster, b, err = readName(b); err != nil {
		return h, err
	}
	if h.name, b, err = readName(b); err != nil {
		return h, err
	}
	if h.namespaces, _, err = readNamespaces(b); err != nil {
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

func readNamespaces(b []byte) ([]helloNamespace, []byte, error) {
	if len(b) < 2 {
		return nil, nil, fmt.Errorf("%w: hello cut short", codec.ErrFrame)
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n > maxHelloNamespaces || n > len(b)/10 {
		return nil, nil, fmt.Errorf("%w: hello with %d namespaces", codec.ErrFrame, n)
	}
	var out []helloNamespace
	for range n {
		var ns helloNamespace
		var err error
		if ns.name, b, err = readName(b); err != nil {
			return nil, nil, err
		}
		if len(b) < 8 {
			return nil, nil, fmt.Errorf("%w: hello cut short", codec.ErrFrame)
		}
		ns.schema, b = binary.BigEndian.Uint64(b), b[8:]
		out = append(out, ns)
	}
	return out, b, nil
}

// hello returns this node's hello as of now.
func (d *data) hello() *hello {
	h := d.self
	for name, r := range *d.registry.Load() {
		h.namespaces = append(h.namespaces, helloNamespace{name, r.schema})
	}
	slices.SortFunc(h.namespaces, func(a, b helloNamespace) int { return strings.Compare(a.name, b.name) })
	return &h
}

// compare logs the namespaces that differ at a peer. Those are not shared with it: its requests for them are rejected one
// by one, which its cache treats as misses.
func (d *data) compare(other *hello) {
	here := *d.registry.Load()
	for _, ns := range other.namespaces {
		r := here[ns.name]
		if r == nil || r.schema == ns.schema || !d.noise.Allow("namespace "+ns.name+" at "+other.name, time.Now()) {
			continue
		}
		d.cfg.logger.Warn("a namespace is not shared with a member: its freshness, codec or value type differs there",
			"namespace", ns.name, "peer", other.name, "here", fmt.Sprintf("%016x", r.schema), "there", fmt.Sprintf("%016x", ns.schema))
	}
}

// mismatch returns why two nodes cannot talk, in words for an operator, or "" if they can.
func (h *hello) mismatch(other *hello) string {
	switch {
	case other.protocol != h.protocol:
		return fmt.Sprintf("protocol version %d here, %d there: run versions of weir that share one", h.protocol, other.protocol)
	case other.ringVersion != h.ringVersion:
		return fmt.Sprintf("ring version %d here, %d there: keys would have two owners; finish the upgrade", h.ringVersion, other.ringVersion)
	case other.cluster != h.cluster:
		return fmt.Sprintf("cluster %q here, %q there: an address of another cluster", h.cluster, other.cluster)
	case other.placement != h.placement:
		return "Config.Ring differs: keys would have two owners; set it alike"
	case other.valueLimit != h.valueLimit:
		return fmt.Sprintf("value limit %d bytes here, %d there: set Config.ValueLimit alike", h.valueLimit, other.valueLimit)
	}
	return ""
}

// goodbye sends the reason for closing the connection. It is a courtesy: errors do not matter.
func goodbye(conn net.Conn, reason string) {
	b := codec.BeginFrame(nil, codec.KindGoodbye, 0)
	b = append(b, reason[:min(len(reason), maxReason)]...)
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(codec.EndFrame(b, 0))
}

// readHello reads the other side's first frame.
func readHello(conn net.Conn) (hello, error) {
	var head [codec.FrameHeader]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return hello{}, fmt.Errorf("waiting for a hello: %w", err)
	}
	if head[0] == trust.TLSRecord {
		return hello{}, errors.New("it speaks TLS, and this node does not: it has a Secret, this one has none")
	}
	n, err := codec.FrameLength(head[:], helloLimit)
	if err != nil {
		return hello{}, err
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(conn, frame); err != nil {
		return hello{}, fmt.Errorf("reading a hello: %w", err)
	}
	kind, _, body, err := codec.FrameKind(frame)
	switch {
	case err != nil:
		return hello{}, err
	case kind == codec.KindGoodbye:
		return hello{}, fmt.Errorf("refused: %q", body[:min(len(body), maxReason)])
	case kind != codec.KindHello:
		return hello{}, fmt.Errorf("%w: kind %d where a hello was due", codec.ErrFrame, kind)
	}
	return decodeHello(body)
}

// greet runs the dialling side of the handshake on a connection without TLS.
func (d *data) greet(ctx context.Context, conn net.Conn, to ring.Member) error {
	_, err := d.meetAt(ctx, conn, to, false)
	return err
}

// connectTo runs the dialling side of the handshake. It returns the connection to use. On error the caller closes raw.
func (d *data) connectTo(ctx context.Context, raw net.Conn, to ring.Member) (net.Conn, error) {
	return d.meetAt(ctx, raw, to, d.cfg.trust != nil && d.cfg.trust.Client(to.Name) != nil)
}

func (d *data) meetAt(ctx context.Context, conn net.Conn, to ring.Member, secure bool) (net.Conn, error) {
	raw := conn
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := raw.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, err
	}
	front := []byte(dataMagic)
	if secure {
		s, err := dialSecured(d.cfg.trust, raw, to.Name)
		if err != nil {
			return nil, err
		}
		conn, front = s, nil
	}
	_, sendErr := conn.Write(d.hello().append(front))
	if sendErr != nil && !trust.IsEnd(sendErr) {
		return nil, fmt.Errorf("sending a hello: %w", sendErr)
	}
	other, err := readHello(conn) // read even if the write failed: the other side may have sent a reason before it closed
	if err != nil && sendErr != nil && trust.IsEnd(err) {
		err = fmt.Errorf("sending a hello: %w", sendErr)
	}
	if err != nil {
		if secure {
			err = trust.ExplainRefusal(err)
		}
		return nil, err
	}
	if why := d.self.mismatch(&other); why != "" {
		return nil, errors.New(why)
	}
	if other.name != to.Name {
		goodbye(conn, fmt.Sprintf("%q was expected at %s, not %q", to.Name, to.Addr, other.name))
		return nil, trust.OtherMemberError{Err: fmt.Errorf("%q answers at %s where %q was expected", other.name, to.Addr, to.Name)}
	}
	d.compare(&other)
	if !stop() {
		return nil, ctx.Err()
	}
	return conn, raw.SetDeadline(time.Time{})
}

// welcome runs the accepting side of the handshake.
func (d *data) welcome(conn net.Conn) (hello, error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return hello{}, err
	}
	s, secure := conn.(*secured)
	if secure {
		if err := s.shake(); err != nil {
			if s.plain(err) {
				goodbye(s.raw, "this node has a Secret or TLS, and you speak without")
			}
			return hello{}, err
		}
	}
	other, err := readHello(conn)
	if err != nil {
		if secure {
			err = trust.ExplainRefusal(err)
		}
		goodbye(conn, err.Error())
		return other, err
	}
	if secure {
		if err := d.cfg.trust.Names(s.certificate(), other.name); err != nil {
			goodbye(conn, err.Error())
			return other, err
		}
	}
	if why := d.self.mismatch(&other); why != "" {
		goodbye(conn, why)
		return other, errors.New(why)
	}
	if _, err := conn.Write(d.hello().append(nil)); err != nil {
		return other, fmt.Errorf("sending a hello: %w", err)
	}
	d.compare(&other)
	return other, conn.SetDeadline(time.Time{})
}

func isMalformed(err error) bool { return errors.Is(err, codec.ErrFrame) }
