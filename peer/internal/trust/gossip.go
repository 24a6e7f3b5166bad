package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// A gossip stream between nodes with a Secret starts with GossipMagic. Then follows a TLS 1.3 handshake with certificates
// of the secret on both sides, before memberlist reads a byte of the stream:
//
//	the dialling node                      the accepting node
//	"WEIG", TLS handshake              ->
//	                                   <-  TLS handshake; a stranger gets no further
//	memberlist's label and its stream  ->
//
// memberlist allocates what a stream claims before it has decrypted any of it, so only a holder of the secret may get that
// far. The handshake contains random numbers of both sides, so a recorded stream cannot be replayed. Without a Secret
// streams are plain and start with the label.
const (
	// GossipMagic is what a gossip stream between nodes with a Secret starts with.
	GossipMagic = "WEIG"
	// gossipALPN distinguishes gossip streams from data connections, which have the same certificates.
	gossipALPN = "weir-gossip/1"
)

// gossipStream is a gossip stream over TLS. Close closes the raw connection without a TLS close message, which a peer that
// does not read would block. memberlist does not need that message, since its own messages have lengths.
type gossipStream struct {
	*tls.Conn
	raw net.Conn
}

// Read reads, and explains a rejection in its error. The dialling side learns of a rejection only here.
func (s *gossipStream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if err != nil {
		err = ExplainRefusal(err)
	}
	return n, err
}

// Close closes the raw connection.
func (s *gossipStream) Close() error { return s.raw.Close() }

// SealsGossip reports whether gossip streams start with a handshake.
func (t *Trust) SealsGossip() bool { return t.gossip != nil }

// AcceptGossip runs the accepting side's handshake of a gossip stream whose magic has been read. The caller sets the
// deadline, and closes conn on error.
func (t *Trust) AcceptGossip(conn net.Conn) (net.Conn, error) {
	s := &gossipStream{tls.Server(conn, t.gossip), conn}
	return s, t.shake(s, "the other side has given up or stopped")
}

// GossipDialer returns how to open a gossip stream to another node, over what dial opens.
func (t *Trust) GossipDialer(dial func(ctx context.Context, addr string) (net.Conn, error)) func(ctx context.Context, addr string) (net.Conn, error) {
	if t.gossip == nil {
		return dial
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		sealed, err := t.shakeDialled(ctx, conn)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		return sealed, nil
	}
}

// shakeDialled runs the dialling side's handshake of a gossip stream, until ctx ends.
func (t *Trust) shakeDialled(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	s := &gossipStream{tls.Client(Preface(conn, []byte(GossipMagic)), t.gossip), conn}
	// A node without gossip handshakes says nothing. It only closes the stream, as a node that stops does.
	err := t.shake(s, "the other side has stopped, has no Secret, or runs a version of weir without handshakes of gossip streams; its log says which")
	if err != nil {
		stop()
		return nil, err
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return s, conn.SetDeadline(time.Time{})
}

// shake runs a handshake. ended explains a connection that ends before the handshake does.
func (t *Trust) shake(s *gossipStream, ended string) error {
	if err := s.Handshake(); err != nil {
		var record tls.RecordHeaderError
		switch {
		case errors.As(err, &record):
			return fmt.Errorf("the other side does not shake hands: it has no Secret, or runs a version of weir without handshakes of gossip streams; its log says which: %w", err)
		case strings.HasSuffix(err.Error(), "EOF") || IsEnd(err):
			return fmt.Errorf("TLS handshake: the connection ended: %s: %w", ended, err)
		}
		return Explain(err)
	}
	state := s.ConnectionState()
	if state.NegotiatedProtocol != gossipALPN {
		return fmt.Errorf("it speaks %q where a gossip stream was due", state.NegotiatedProtocol)
	}
	return t.ofCluster(state.PeerCertificates[0])
}

// Preface returns conn with some bytes that are sent together with the first write, ahead of it. Only one goroutine at a
// time may write.
func Preface(conn net.Conn, front []byte) net.Conn { return &preface{conn, front} }

type preface struct {
	net.Conn
	front []byte // used only by the writer of the handshake
}

// Write writes b, after what is still to be sent ahead of it.
func (p *preface) Write(b []byte) (int, error) {
	if len(p.front) == 0 {
		return p.Conn.Write(b)
	}
	n, err := p.Conn.Write(append(p.front, b...))
	n = max(0, n-len(p.front))
	p.front = nil
	return n, err
}
