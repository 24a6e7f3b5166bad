package wire

import (
	"net"
	"testing"
)

// TestRekeyingIsBounded checks that a peer that asks for new keys without end and never lets them be sent is disconnected.
func TestRekeyingIsBounded(t *testing.T) {
	near, _ := net.Pipe()
	defer near.Close()
	g := &sealing{Conn: near, buffering: true}
	for n := 0; ; n += 100 {
		if _, err := g.Write(make([]byte, 100)); err != nil {
			if n < sealedLimit/2 || n > sealedLimit {
				t.Errorf("refused after %d bytes", n)
			}
			return
		}
		if n > 2*sealedLimit {
			t.Fatal("it grows and grows")
		}
	}
}
