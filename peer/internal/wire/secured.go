package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/weircache/weir/peer/internal/trust"
)

// gatherKeep is the largest buffer of sealed bytes, in bytes, that is kept for reuse.
const gatherKeep = outboxKeep

// sealedLimit bounds the bytes that TLS writes on its own and that wait to be sent. TLS answers each request for new keys,
// and a hostile peer may send such requests without end.
const sealedLimit = 64 << 10

var errRekeying = errors.New("the peer asks for new keys again and again")

// A secured connection is TLS over a raw one. During the handshake it is a plain *tls.Conn. Afterwards, what is written is
// sealed into memory, so that the caller of seal can write to the socket as it likes, for example without blocking: see
// outbox.
//
// Close closes the raw connection without a TLS close message. A truncated connection is noticed anyway, because frames
// have lengths, and a close message to a peer that does not read would take time.
type secured struct {
	*tls.Conn
	raw net.Conn
	g   *sealing
}

// NetConn returns the raw connection.
func (s *secured) NetConn() net.Conn { return s.raw }

// sealing is the raw connection as TLS sees it.
type sealing struct {
	net.Conn               // raw
	mu          sync.Mutex // guards the rest
	buffering   bool       // the handshake is over: what is written is kept in buf
	sealRunning bool       // seal is running
	buf         []byte     // sealed bytes, to be taken
	spare       []byte     // empty, for reuse

	// of the one reader
	ahead []byte // the buffer for reading from raw; nil: the handshake is not over
	front []byte // the part of it that TLS has not read yet
}

// Read reads ahead. Without that, TLS reads from the socket twice for each record of 16 KiB.
func (g *sealing) Read(p []byte) (int, error) {
	if len(g.front) == 0 {
		if g.ahead == nil || len(p) >= len(g.ahead) {
			return g.Conn.Read(p)
		}
		n, err := g.Conn.Read(g.ahead)
		if g.front = g.ahead[:n]; n == 0 {
			return 0, err
		}
	}
	n := copy(p, g.front)
	g.front = g.front[n:]
	return n, nil
}

func (g *sealing) Write(p []byte) (int, error) {
	g.mu.Lock()
	if !g.buffering {
		g.mu.Unlock()
		return g.Conn.Write(p)
	}
	defer g.mu.Unlock()
	if !g.sealRunning && len(g.buf)+len(p) > sealedLimit {
		return 0, errRekeying
	}
	if g.buf == nil {
		g.buf, g.spare = g.spare, nil
	}
	g.buf = append(g.buf, p...)
	return len(p), nil
}

// secureServer makes a secured connection of an accepted one. The handshake has not run yet.
func secureServer(raw net.Conn, cfg *tls.Config) *secured {
	g := &sealing{Conn: raw}
	return &secured{Conn: tls.Server(g, cfg), raw: raw, g: g}
}

// dialSecured secures a connection to a member and runs the handshake. The caller sets the deadline, and closes raw on
// error.
func dialSecured(t *trust.Trust, raw net.Conn, member string) (*secured, error) {
	g := &sealing{Conn: trust.Preface(raw, []byte(Magic))}
	s := &secured{Conn: tls.Client(g, t.Client(member)), raw: raw, g: g}
	if err := s.shake(); err != nil {
		return s, err
	}
	if err := t.Names(s.certificate(), member); err != nil {
		goodbye(s, fmt.Sprintf("%q was expected here: %v", member, err))
		return s, err
	}
	return s, nil
}

// shake runs the handshake and then switches to gathering.
func (s *secured) shake() error {
	if err := s.Handshake(); err != nil {
		return trust.Explain(err)
	}
	s.g.mu.Lock()
	s.g.buffering = true
	s.g.mu.Unlock()
	s.g.ahead = make([]byte, readBuffer)
	return nil
}

// certificate returns the other side's certificate, after the handshake.
func (s *secured) certificate() *x509.Certificate { return s.ConnectionState().PeerCertificates[0] }

// seal returns the bytes that carry p. They belong to the caller until it gives them back. Only one goroutine at a time may
// seal, and it must write the sealed bytes before the next one seals.
func (s *secured) seal(p []byte) ([]byte, error) {
	s.g.mu.Lock()
	s.g.sealRunning = true
	s.g.mu.Unlock()
	_, err := s.Conn.Write(p)
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	s.g.sealRunning = false
	sealed := s.g.buf
	s.g.buf = nil
	if sealed == nil {
		sealed = []byte{} // another writer has taken the bytes along with its own
	}
	return sealed, err
}

// give takes back bytes that seal returned.
func (s *secured) give(sealed []byte) {
	if cap(sealed) > gatherKeep {
		return
	}
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if s.g.spare == nil {
		s.g.spare = sealed[:0]
	}
}

// Write seals p and writes it. The outbox does not use it.
func (s *secured) Write(p []byte) (int, error) {
	sealed, err := s.seal(p)
	if err == nil {
		_, err = s.raw.Write(sealed)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close closes the raw connection.
func (s *secured) Close() error { return s.raw.Close() }

// CloseWrite is not supported on a secured connection.
func (s *secured) CloseWrite() error { return errors.ErrUnsupported }

// SetWriteDeadline sets the deadline of the raw connection, because a failed Write makes a TLS connection unusable.
func (s *secured) SetWriteDeadline(t time.Time) error { return s.raw.SetWriteDeadline(t) }

// notTLS reports whether the handshake failed because the other side does not speak TLS.
func (s *secured) notTLS(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) && record.Conn != nil
}
