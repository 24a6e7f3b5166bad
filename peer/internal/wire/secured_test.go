package wire_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/trust"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// trusting returns the trust of a member with a secret. Without a secret it has no TLS.
func trusting(t *testing.T, name, secret string) *trust.Trust {
	t.Helper()
	o := trust.Options{Name: name, Cluster: "c"}
	if secret != "" {
		sum := sha256.Sum256([]byte(secret))
		o.Secrets = [][]byte{sum[:]}
	}
	tr, err := trust.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestSecuredConnection checks that values of every size arrive intact over TLS, many at once and in both directions, and
// that a Trust without a secret means plaintext.
func TestSecuredConnection(t *testing.T) {
	for _, secret := range []string{"a secret", ""} {
		both(t, func(t *testing.T, tcp bool) {
			w := newPair(t, tcp, &scripted{serve: func(_ context.Context, req *codec.Request, resp *codec.Response) {
				resp.Status, resp.Value = codec.StatusValue, bytes.Repeat(req.Key, 1<<20/len(req.Key))
			}}, func(a, b *wire.Config) { a.Trust, b.Trust = trusting(t, "a", secret), trusting(t, "b", secret) })
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() {
					key := fmt.Sprintf("%d%s", i, strings.Repeat("k", 1+150*i))
					for j := range 2 {
						status, value, err := w.get(t.Context(), key, 0)
						if want := strings.Repeat(key, 1<<20/len(key)); err != nil || status != codec.StatusValue || value != want {
							t.Errorf("status %d, %d bytes instead of %d, %v", status, len(value), len(want), err)
						}
						hit := fmt.Sprintf("hit %d %d", i, j)
						if status, value, err := w.get(t.Context(), hit, 0); err != nil || status != codec.StatusValue || value != "value of "+hit {
							t.Errorf("status %d, %q, %v", status, value, err)
						}
					}
				})
			}
			wg.Wait()
			if s := w.a.Peers()[0]; s.Dials != 1 || s.Errors != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestWrongTrust checks that two nodes whose secrets or certificates do not fit together say why, on both sides, and that
// only a peer that proves to be another member counts as ended.
func TestWrongTrust(t *testing.T) {
	for _, c := range []struct {
		name           string
		here, there    func(t *testing.T) *trust.Trust
		says, sayThere string // part of the caller's error, and of the log of the other side
		ended          bool
	}{
		{"no secret here", func(*testing.T) *trust.Trust { return nil }, func(t *testing.T) *trust.Trust { return trusting(t, "b", "x") },
			"this node has a Secret or TLS, and you speak without", "it does not speak TLS", false},
		{"no secret there", func(t *testing.T) *trust.Trust { return trusting(t, "a", "x") }, func(*testing.T) *trust.Trust { return nil },
			"it does not speak TLS", "it has a Secret, this one has none", false},
		{"other secret", func(t *testing.T) *trust.Trust { return trusting(t, "a", "x") }, func(t *testing.T) *trust.Trust { return trusting(t, "b", "y") },
			"has it another Secret?", "TLS handshake", false},
		{"certificate of another caller", func(t *testing.T) *trust.Trust { return trusting(t, "z", "x") }, func(t *testing.T) *trust.Trust { return trusting(t, "b", "x") },
			"its certificate is for the member", "its certificate is for the member", false},
		{"certificate of another member", func(t *testing.T) *trust.Trust { return trusting(t, "a", "x") }, func(t *testing.T) *trust.Trust { return trusting(t, "z", "x") },
			`its certificate is for the member "z", not "b"`, "was expected here", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ended := make(chan ring.Member, 1)
			w := newPair(t, true, gated(nil, nil), func(a, b *wire.Config) {
				a.Trust, b.Trust = c.here(t), c.there(t)
				a.Ended = func(m ring.Member) { ended <- m }
			})
			if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			wiretest.WantLog(t, &w.logB, c.sayThere)
			if got := len(ended) == 1; got != c.ended {
				t.Errorf("counts as ended: %v", got)
			}
			wiretest.Until(t, "for the session to end", func() bool { return w.b.Totals().Accepted == 0 })
			if n := w.b.Totals().Refused; n != 1 {
				t.Errorf("%d connections refused", n)
			}
		})
	}
}

// cannedConn is a connection whose writes fail with an error, and which delivers the bytes of read.
type cannedConn struct {
	net.Conn // of a pipe, for deadlines
	err      error
	read     *bytes.Reader
}

func (c cannedConn) Write([]byte) (int, error)  { return 0, c.err }
func (c cannedConn) Read(b []byte) (int, error) { return c.read.Read(b) }

// TestHelloCannotBeSent checks that a dialling node whose hello cannot be sent reports the reason that the other side sent
// before it closed, or else why the hello was not sent.
func TestHelloCannotBeSent(t *testing.T) {
	d := plane(t, "a", nil)
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	goodbye := wiretest.Frame(codec.KindGoodbye, 0, "too many of you")
	for _, c := range []struct {
		err  error
		read []byte
		want string
	}{
		{net.ErrClosed, goodbye, `refused: "too many of you"`},
		{net.ErrClosed, nil, "sending a hello: " + net.ErrClosed.Error()},
		{errors.New("no more memory"), goodbye, "sending a hello: no more memory"},
		{nil, nil, "waiting for a hello: EOF"},
		{nil, goodbye[:8], "reading a hello: unexpected EOF"},
	} {
		_, err := d.Handshake(t.Context(), cannedConn{near, c.err, bytes.NewReader(c.read)}, ring.Member{Name: "b"})
		if err == nil || err.Error() != c.want {
			t.Errorf("write: %v, read: %q: got %v, want %s", c.err, c.read, err, c.want)
		}
	}
}

// TestNamespaceThatDiffers checks that each side logs a namespace that the other side has with another schema, once, and
// only that one.
func TestNamespaceThatDiffers(t *testing.T) {
	w := newPair(t, true, gated(nil, nil))
	for d, schema := range map[*wire.Plane]uint64{w.a: 0xaaaa, w.b: 0xbbbb} {
		for ns, schema := range map[string]uint64{"alike": 5, "differs": schema, fmt.Sprintf("only at %x", schema): 6} {
			if _, err := d.Register(ns, schema, gated(nil, nil)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.mustGet(t, "hit")
	wiretest.WantLog(t, &w.logA, "namespace=differs peer=b here=000000000000aaaa there=000000000000bbbb")
	wiretest.WantLog(t, &w.logB, "namespace=differs peer=a here=000000000000bbbb there=000000000000aaaa")
	for _, log := range []*testlog.Log{&w.logA, &w.logB} {
		if n := strings.Count(log.String(), "namespace is not shared"); n != 1 {
			t.Errorf("%d namespaces are logged:\n%s", n, log)
		}
	}
}
