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

// A gossip stream between nodes with a Secret starts with sealedMagic, and then goes through TLS 1.3 with certificates of the secret on
// both sides, before memberlist reads a byte of it:
//
//	the dialling node                      the other one
//	"WEIG", TLS handshake              ->
//	                                   <-  TLS handshake; a stranger gets no further
//	memberlist's label and its stream  ->
//
// memberlist allocates what a stream claims before it has decrypted any of it, so only a holder of the secret may get that far. The
// handshake has random numbers of both sides in it: a recorded stream cannot be played again. Without a Secret streams are
// plain and start with the label.
const (
	sealedMagic = "WEIG"
	// gossipALPN keeps gossip streams and data connections apart, which have the same certificates.
	gossipALPN = "weir-gossip/1"
)

// sealedStream is a gossip stream over TLS. Close closes the raw connection without a farewell, which a peer that does
// not read would hold up: memberlist's messages have lengths.
type sealedStream struct {
	*tls.Conn
	raw net.Conn
}

// Read reads, and says what a refusal means, which the dialling side learns only here.
func (s *sealedStream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if err != nil {
		err = explainRefusal(err)
	}
	return n, err
}

// Close closes the raw connection.
func (s *sealedStream) Close() error { return s.raw.Close() }

// acceptGossip is the accepting side's handshake of a gossip stream whose magic has been read. The deadline is the caller's.
func (t *trust) acceptGossip(conn net.Conn) (net.Conn, error) {
	s := &sealedStream{tls.Server(conn, t.gossipServer), conn}
	return s, t.shakeGossip(s, "the other side has given up or stopped")
}

// dialGossip is the dialling side's handshake of a gossip stream.
func (t *trust) dialGossip(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	s := &sealedStream{tls.Client(&preface{Conn: conn, front: []byte(sealedMagic)}, t.gossipClient), conn}
	// A node without a handshake of gossip streams says nothing: it only closes the stream, as one that stops does.
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

// shakeGossip does a handshake. ended says what it means that the connection ends before the handshake does.
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
