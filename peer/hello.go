package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

const (
	// protocolVersion is the version of the frames that nodes exchange.
	protocolVersion = 1
	// helloTimeout bounds the exchange of hellos.
	helloTimeout = 3 * time.Second
	// helloLimit is the longest hello or goodbye frame, in bytes: three names and numbers.
	helloLimit = 2 << 10
	maxReason  = 256
)

// hello is what each side says of itself before anything else.
type hello struct {
	protocol    uint16
	ringVersion uint16
	incarnation uint64
	valueLimit  uint64 // bytes
	cluster     string
	name        string
}

func (h *hello) append(dst []byte) []byte {
	start := len(dst)
	dst = codec.BeginFrame(dst, codec.KindHello, 0)
	dst = binary.BigEndian.AppendUint16(dst, h.protocol)
	dst = binary.BigEndian.AppendUint16(dst, h.ringVersion)
	dst = binary.BigEndian.AppendUint64(dst, h.incarnation)
	dst = binary.BigEndian.AppendUint64(dst, h.valueLimit)
	dst = appendName(dst, h.cluster)
	dst = appendName(dst, h.name)
	return codec.EndFrame(dst, start)
}

func appendName(dst []byte, s string) []byte {
	s = s[:min(len(s), maxReason)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// decodeHello reads a hello's body. The protocol comes first, so that of a newer
// hello at least that is understood. The error wraps codec.ErrFrame.
func decodeHello(b []byte) (h hello, err error) {
	const fixed = 2 + 2 + 8 + 8
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
	b = b[fixed:]
	if h.cluster, b, err = readName(b); err != nil {
		return h, err
	}
	if h.name, b, err = readName(b); err != nil {
		return h, err
	}
	if len(b) != 0 {
		return h, fmt.Errorf("%w: %d bytes after a hello", codec.ErrFrame, len(b))
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

// mismatch says why two nodes cannot talk, in words for an operator. "": they can.
func (h *hello) mismatch(other *hello) string {
	switch {
	case other.protocol != h.protocol:
		return fmt.Sprintf("protocol version %d here, %d there: run versions of weir that share one", h.protocol, other.protocol)
	case other.ringVersion != h.ringVersion:
		return fmt.Sprintf("ring version %d here, %d there: keys would have two owners; finish the upgrade", h.ringVersion, other.ringVersion)
	case other.cluster != h.cluster:
		return fmt.Sprintf("cluster %q here, %q there: an address of another cluster", h.cluster, other.cluster)
	case other.valueLimit != h.valueLimit:
		return fmt.Sprintf("value limit %d bytes here, %d there: set Config.ValueLimit alike", h.valueLimit, other.valueLimit)
	}
	return ""
}

// goodbye sends why the connection is closed. It is a courtesy: errors do not matter.
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

// greet is the dialling side's part of the handshake.
func (d *data) greet(ctx context.Context, conn net.Conn, to ring.Member) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(d.self.append([]byte(dataMagic))); err != nil {
		return fmt.Errorf("sending a hello: %w", err)
	}
	other, err := readHello(conn)
	if err != nil {
		return err
	}
	if why := d.self.mismatch(&other); why != "" {
		return errors.New(why)
	}
	if other.name != to.Name {
		goodbye(conn, fmt.Sprintf("%q was expected at %s, not %q", to.Name, to.Addr, other.name))
		return fmt.Errorf("%q answers at %s where %q was expected", other.name, to.Addr, to.Name)
	}
	if !stop() {
		return ctx.Err()
	}
	return conn.SetDeadline(time.Time{})
}

// welcome is the accepting side's part of the handshake.
func (d *data) welcome(conn net.Conn) (hello, error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return hello{}, err
	}
	other, err := readHello(conn)
	if err != nil {
		goodbye(conn, err.Error())
		return other, err
	}
	if why := d.self.mismatch(&other); why != "" {
		goodbye(conn, why)
		return other, errors.New(why)
	}
	if _, err := conn.Write(d.self.append(nil)); err != nil {
		return other, fmt.Errorf("sending a hello: %w", err)
	}
	return other, conn.SetDeadline(time.Time{})
}

// isEnd reports whether err only says that a connection has ended.
func isEnd(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isMalformed(err error) bool { return errors.Is(err, codec.ErrFrame) }
