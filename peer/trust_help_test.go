package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// secretOf returns a secret that is the same each time.
func secretOf(name string) Secret {
	sum := sha256.Sum256([]byte(name))
	return sum[:]
}

// rig is a cluster in a bubble whose nodes keep their logs and answer requests.
type rig struct {
	world memNet
	books map[string]*testlog.Log
}

func newRig() *rig { return &rig{world: newMemNet(), books: make(map[string]*testlog.Log)} }

// add starts node n<i> at 10.0.0.<i>.
func (r *rig) add(t *testing.T, i int, cfg Config) *Node {
	t.Helper()
	return r.addOver(t, i, nil, cfg)
}

// addOver is add with a network in front of the rig's, or without one if over is nil.
func (r *rig) addOver(t *testing.T, i int, over Network, cfg Config) *Node {
	t.Helper()
	book := &testlog.Log{}
	cfg.Logger, cfg.Network = book.Logger(), over
	n := simulated(t, r.world, i, cfg)
	r.books[n.Name()] = book
	if _, err := n.Register("n", 7, wiretest.Value("v")); err != nil {
		t.Fatal(err)
	}
	return n
}

// two starts n1 and n2 with one configuration, and waits until they know each other.
func (r *rig) two(t *testing.T, cfg Config) (*Node, *Node) {
	t.Helper()
	n1 := r.add(t, 1, cfg)
	cfg.Join = []string{n1.Addr()}
	n2 := r.add(t, 2, cfg)
	awaitNames(t, "n1 n2", n1, n2)
	return n1, n2
}

// dial connects host i to a node as a stranger does.
func (r *rig) dial(t *testing.T, i int, to *Node) net.Conn {
	t.Helper()
	conn, err := r.world.host(fmt.Sprintf("10.0.0.%d", i)).Dial(t.Context(), to.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// memberOf returns a node as others address it.
func memberOf(n *Node) ring.Member {
	return ring.Member{Name: n.Name(), Addr: n.Addr(), Incarnation: n.id.Incarnation}
}

// ask sends a request from one node to a member.
func ask(ctx context.Context, from *Node, to ring.Member) error {
	var resp codec.Response
	if err := from.Call(ctx, to, wiretest.Get(3*time.Second), &resp); err != nil {
		return err
	}
	defer resp.Release()
	if string(resp.Value) != "v" {
		return fmt.Errorf("status %d, value %q, text %q", resp.Status, resp.Value, resp.Text)
	}
	return nil
}

// mustServe checks that the nodes answer one another.
func mustServe(t *testing.T, nodes ...*Node) {
	t.Helper()
	for _, from := range nodes {
		for _, to := range nodes {
			if from == to {
				continue
			}
			if err := ask(t.Context(), from, memberOf(to)); err != nil {
				t.Errorf("%s asks %s: %v", from.Name(), to.Name(), err)
			}
		}
	}
}

// mustRefuse checks that one node cannot call another, and that its error and the log of the called node say why.
func (r *rig) mustRefuse(t *testing.T, from, to *Node, here, there string) {
	t.Helper()
	from.data.Allow(map[string]uint64{to.Name(): to.id.Incarnation}) // as if it were a member
	err := ask(t.Context(), from, memberOf(to))
	if err == nil || !strings.Contains(err.Error(), here) {
		t.Errorf("%s asks %s: %v; want an error with %q", from.Name(), to.Name(), err, here)
	}
	pause(t.Context(), 5*time.Second) // goodbyes to a side that does not listen
	r.mustLog(t, to.Name(), "WARN", "data connection refused", there)
}

// lines returns the lines of a node's log that contain all of the texts, once nothing runs in the bubble any more: a node
// may write its log after its answer.
func (r *rig) lines(name string, texts ...string) []string {
	synctest.Wait()
	var out []string
	for line := range strings.Lines(r.books[name].String()) {
		has := true
		for _, text := range texts {
			has = has && strings.Contains(line, text)
		}
		if has {
			out = append(out, line)
		}
	}
	return out
}

// mustLog checks that exactly one line of a node's log contains all of the texts.
func (r *rig) mustLog(t *testing.T, name string, texts ...string) {
	t.Helper()
	if lines := r.lines(name, texts...); len(lines) != 1 {
		t.Errorf("%d lines in the log of %s have %q, want 1:\n%s", len(lines), name, texts, r.books[name])
	}
}

// tap is a network that records what passes over it.
type tap struct {
	Network
	mu   *sync.Mutex // guards seen
	seen *bytes.Buffer
}

func (n tap) note(b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen.Write(b)
}

func (n tap) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return tapConn{conn, n}, nil
}

func (n tap) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	pc, err := n.Network.ListenPacket(ctx, addr)
	return tapPackets{pc, n}, err
}

type tapConn struct {
	net.Conn
	tap tap
}

func (c tapConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap.note(b[:n])
	return n, err
}

func (c tapConn) Write(b []byte) (int, error) {
	c.tap.note(b)
	return c.Conn.Write(b)
}

type tapPackets struct {
	net.PacketConn
	tap tap
}

func (p tapPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	p.tap.note(b)
	return p.PacketConn.WriteTo(b, to)
}
