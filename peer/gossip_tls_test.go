package peer

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/peer/internal/trust"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestStrangersDoNotGossip checks that what a stranger sends to a node with a Secret does not reach memberlist, which would
// allocate what it claims. The stranger sends the public label, the handshake's magic, a handshake with another secret, or
// a recorded stream of a member.
func TestStrangersDoNotGossip(t *testing.T) {
	claim := "\xf4\x09weir/weir\x0a\x01\x40\x00\x00" // 20 MiB of encrypted bytes
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1 := r.add(t, 1, Config{Secret: secretOf("a")})
		tape := &recorder{Network: r.world.host("10.0.0.2")}
		n2 := r.addOver(t, 2, tape, Config{Secret: secretOf("a"), Join: []string{n1.Addr()}})
		awaitNames(t, "n1 n2", n1, n2)
		recorded := tape.streams()
		if !slices.ContainsFunc(recorded, func(s string) bool { return strings.HasPrefix(s, trust.GossipMagic) }) {
			t.Fatalf("no gossip stream is recorded among %d", len(recorded))
		}
		for i, s := range recorded {
			conn := r.dial(t, 20+i, n1)
			_, _ = io.WriteString(conn, s)
			wiretest.MustEnd(t, conn)
		}
		for i, c := range []struct{ send, log string }{
			{claim, "without a handshake"},
			{trust.GossipMagic + claim, "does not shake hands"},
			{trust.GossipMagic, "TLS handshake"},
			{"WEIX", "not a weir connection"},
		} {
			conn := r.dial(t, 60+i, n1)
			_, _ = io.WriteString(conn, c.send)
			wiretest.MustEnd(t, conn)
			synctest.Wait()
			r.mustLog(t, "n1", "connection refused", fmt.Sprintf("10.0.0.%d:", 60+i), c.log)
		}
		// A peer that disconnects in the middle reveals nothing about its Secret.
		gone := r.dial(t, 69, n1)
		_, _ = io.WriteString(gone, trust.GossipMagic)
		_ = gone.Close()
		synctest.Wait()
		r.mustLog(t, "n1", "connection refused", "10.0.0.69:", "given up or stopped")
		if bad := r.lines("n1", "10.0.0.69:", "Secret"); len(bad) > 0 {
			t.Errorf("a Secret is blamed: %s", bad[0])
		}

		other, err := newTrust(&Config{ClusterName: DefaultClusterName, Secret: secretOf("b")}, "n9")
		if err != nil {
			t.Fatal(err)
		}
		from := func(i int) func(context.Context, string) (net.Conn, error) {
			return other.GossipDialer(func(context.Context, string) (net.Conn, error) { return r.dial(t, i, n1), nil })
		}
		if s, err := from(70)(t.Context(), ""); err == nil {
			_, err = s.Read(make([]byte, 1))
			t.Errorf("another secret is accepted, then %v", err)
		}
		synctest.Wait()
		r.mustLog(t, "n1", "connection refused", "10.0.0.70:", "do both have one Secret", "TLS handshake")
		if other, err = newTrust(&Config{ClusterName: "another", Secret: secretOf("a")}, "n9"); err != nil {
			t.Fatal(err)
		}
		if s, err := from(71)(t.Context(), ""); err == nil {
			_, err = s.Read(make([]byte, 1))
			t.Errorf("another cluster with the same secret is accepted, then %v", err)
		}
		for _, line := range r.lines("n1", "from=gossip", "Stream connection") {
			if !strings.Contains(line, "10.0.0.2:") {
				t.Errorf("it got to memberlist: %s", line)
			}
		}
		mustServe(t, n1, n2)
	})
}

// TestStrangersDoNotStopJoins checks that strangers that hold all they can hold do not keep a node from joining.
func TestStrangersDoNotStopJoins(t *testing.T) {
	for name, send := range map[string]string{"silent": "", "handshake": trust.GossipMagic, "data": wire.Magic} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig()
				n1, n2 := r.two(t, Config{Secret: secretOf("a")})
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := range maxUndecided + maxUndecidedOf {
					wg.Go(func() { // repeatedly
						for ctx.Err() == nil {
							conn, err := r.world.host(fmt.Sprintf("10.0.0.%d", 20+i/maxUndecidedOf)).Dial(ctx, n1.Addr())
							if err != nil {
								continue
							}
							_, _ = io.WriteString(conn, send)
							end := context.AfterFunc(ctx, func() { _ = conn.Close() })
							_, _ = io.Copy(io.Discard, conn)
							end()
							_ = conn.Close()
							pause(ctx, 50*time.Millisecond)
						}
					})
				}
				pause(t.Context(), 5*time.Second)
				n3 := r.add(t, 3, Config{Secret: secretOf("a"), Join: []string{n1.Addr()}})
				began := time.Now()
				awaitNames(t, "n1 n2 n3", n1, n2, n3)
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v to join", took)
				}
				stop()
				wg.Wait()
				mustServe(t, n1, n2, n3)
			})
		})
	}
}

// recorder is a Network that records what is written to the connections that it dials.
type recorder struct {
	Network
	mu   sync.Mutex // guards the rest
	tape []*recorded
}

type recorded struct {
	net.Conn
	r    *recorder
	sent []byte // guarded by r.mu
}

func (r *recorder) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := r.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &recorded{Conn: conn, r: r}
	r.tape = append(r.tape, c)
	return c, nil
}

func (c *recorded) Write(b []byte) (int, error) {
	c.r.mu.Lock()
	c.sent = append(c.sent, b...)
	c.r.mu.Unlock()
	return c.Conn.Write(b)
}

func (r *recorder) streams() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.tape {
		out = append(out, string(c.sent))
	}
	return out
}
