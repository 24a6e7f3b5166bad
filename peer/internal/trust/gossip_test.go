package trust_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/weircache/weir/peer/internal/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestGossipHandshake checks which nodes get through the handshake of a gossip stream, and what the accepting node says of
// the others.
func TestGossipHandshake(t *testing.T) {
	for _, c := range []struct {
		dialler *trust.Trust
		refusal string // "": none
	}{
		{made(t, "n2", "weir", "a"), ""},
		{made(t, "n2", "weir", "b", "a"), "another Secret"},
		{made(t, "n2", "other", "a"), `for the cluster "other"`},
	} {
		near, far := net.Pipe()
		accepted := make(chan error, 1)
		go func() {
			defer far.Close()
			magic := make([]byte, len(trust.GossipMagic))
			if _, err := io.ReadFull(far, magic); err != nil {
				accepted <- err
				return
			}
			s, err := made(t, "n1", "weir", "a").AcceptGossip(far)
			if err == nil {
				_, err = io.WriteString(s, "welcome")
			}
			accepted <- err
		}()
		text := make([]byte, len("welcome"))
		dial := c.dialler.GossipDialer(func(context.Context, string) (net.Conn, error) { return near, nil })
		s, err := dial(t.Context(), "")
		if err == nil {
			_, err = io.ReadFull(s, text)
		}
		if (err == nil) != (c.refusal == "") || err == nil && string(text) != "welcome" {
			t.Errorf("want %q: the dialling node has %q, %v", c.refusal, text, err)
		}
		_ = near.Close()
		if err := <-accepted; (err == nil) != (c.refusal == "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("want %q: the accepting node says %v", c.refusal, err)
		}
	}
}
