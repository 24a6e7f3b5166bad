package wire

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// TestRekeyingIsBounded checks that a peer that asks for new keys without end and never lets them be sent is disconnected.
func TestRekeyingIsBounded(t *testing.T) {
	near, _ := net.Pipe()
	defer near.Close()
	g := &sealing{Conn: near, buffering: true}
	for n := 0; n < sealedLimit; n += 64 {
		if _, err := g.Write(make([]byte, 64)); err != nil {
			t.Fatalf("%v after %d bytes", err, n)
		}
	}
	if _, err := g.Write(make([]byte, 1)); err != errRekeying {
		t.Errorf("beyond the limit: %v", err)
	}
	g.sealRunning = true // what this node has to say does not count
	if _, err := g.Write(make([]byte, sealedLimit)); err != nil {
		t.Error(err)
	}
}

// TestSealedReadsAhead checks that many small reads of TLS take one read of the socket, and that a large one does without
// the copy.
func TestSealedReadsAhead(t *testing.T) {
	sent := make([]byte, readBuffer)
	for i := range sent {
		sent[i] = byte(i)
	}
	conn := &bytesConn{rest: sent, piece: readBuffer}
	g := &sealing{Conn: conn, ahead: make([]byte, readBuffer)}
	var got []byte
	for range 4 {
		p := make([]byte, 100)
		n, err := g.Read(p)
		if got = append(got, p[:n]...); err != nil {
			t.Fatal(err)
		}
	}
	if conn.reads != 1 {
		t.Errorf("%d reads of the socket", conn.reads)
	}
	rest, err := io.ReadAll(g)
	if got = append(got, rest...); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, or others: %v", len(got), len(sent), err)
	}
	conn.rest = sent
	p := make([]byte, readBuffer)
	if n, err := g.Read(p); err != nil || n != len(p) || len(g.front) != 0 {
		t.Errorf("read %d bytes, %d wait: %v", n, len(g.front), err)
	}
}

// TestSealedBuffersAreReused checks that the buffer of sealed bytes is used again, unless it has grown too large.
func TestSealedBuffersAreReused(t *testing.T) {
	for size, reused := range map[int]bool{1: true, gatherKeep: true, gatherKeep + 1: false} {
		s := &secured{g: &sealing{buffering: true}}
		given := make([]byte, size)
		s.give(given)
		if _, err := s.g.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if is := &s.g.buf[0] == &given[0]; is != reused {
			t.Errorf("a buffer of %d bytes is used again: %v", size, is)
		}
	}
	s := &secured{g: &sealing{buffering: true}}
	first := make([]byte, 1)
	s.give(first)
	s.give(make([]byte, 1))
	if &s.g.spare[:1][0] != &first[0] {
		t.Error("a second buffer replaces the first, which is not in use")
	}
}
