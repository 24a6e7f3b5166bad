package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// A gossip stream between nodes with a Secret starts with sealedMagic. Then follows a TLS 1.3 handshake with certificates
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
	sealedMagic = "WEIG"
	// gossipALPN distinguishes gossip streams from data connections, which have the same certificates.
	gossipALPN = "weir-gossip/1"
)

// sealedStream is a gossip stream over TLS. Close closes the raw connection without a TLS close message, which a peer that
// does not read would block. memberlist does not need that message, since its own messages have lengths.
type sealedStream struct {
	*tls.Conn
	raw net.Conn
}

// Read reads, and explains a rejection in its error. The dialling side learns of a rejection only here.
func (s *sealedStream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if err != nil {
		err = explainRefusal(err)
	}
	return n, err
}

// Close closes the raw connection.
func (s *sealedStream) Close() error { return s.raw.Close() }

// acceptGossip runs the accepting side's handshake of a gossip stream whose magic has been read. The caller sets the
// deadline.
func (t *trust) acceptGossip(conn net.Conn) (net.Conn, error) {
	s := &sealedStream{tls.Server(conn, t.gossipServer), conn}
	return s, t.shakeGossip(s, "the other side has given up or stopped")
}

// gossipDialer returns how to open a gossip stream to another node.
func (t *trust) gossipDialer(network Network) func(ctx context.Context, addr string) (net.Conn, error) {
	if t.gossipClient == nil {
		return network.Dial
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := network.Dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		sealed, err := t.dialGossip(ctx, conn)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		return sealed, nil
	}
}

// dialGossip runs the dialling side's handshake of a gossip stream.
func (t *trust) dialGossip(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	s := &sealedStream{tls.Client(&preface{Conn: conn, front: []byte(sealedMagic)}, t.gossipClient), conn}
	// A node without gossip handshakes says nothing. It only closes the stream, as a node that stops does.
	err := t.shakeGossip(s, "the other side has stopped, has no Secret, or runs a version of weir without handshakes of gossip streams; its log says which")
	if err != nil {
		stop()
		return nil, err
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return s, conn.SetDeadline(time.Time{})
}

// shakeGossip runs a handshake. ended explains a connection that ends before the handshake does.
func (t *trust) shakeGossip(s *sealedStream, ended string) error {
	if err := s.Handshake(); err != nil {
		var record tls.RecordHeaderError
		switch {
		case errors.As(err, &record):
			return fmt.Errorf("the other side does not shake hands: it has no Secret, or runs a version of weir without handshakes of gossip streams; its log says which: %w", err)
		case strings.HasSuffix(err.Error(), "EOF") || isEnd(err):
			return fmt.Errorf("TLS handshake: the connection ended: %s: %w", ended, err)
		}
		return explain(err)
	}
	state := s.ConnectionState()
	if state.NegotiatedProtocol != gossipALPN {
		return fmt.Errorf("it speaks %q where a gossip stream was due", state.NegotiatedProtocol)
	}
	return t.ofCluster(state.PeerCertificates[0])
}
