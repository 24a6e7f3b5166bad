package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/peer/internal/trust"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestOneSecret checks that nodes with one secret form a cluster, and that an eavesdropper learns nothing but the label.
func TestOneSecret(t *testing.T) {
	const name = "n2-with-a-name-too-long-to-occur-by-chance"
	for _, secret := range []Secret{nil, secretOf("a")} {
		bubble(t, func(t *testing.T) {
			r := newRig()
			tapped := tap{Network: r.world.host("10.0.0.2"), mu: new(sync.Mutex), seen: new(bytes.Buffer)}
			n1 := r.add(t, 1, Config{Secret: secret})
			cfg := Config{Name: name, Bind: "10.0.0.2:7946", Join: []string{n1.Addr()}, Network: tapped, Secret: secret, Logger: quick("").Logger}
			n2 := start(t, cfg)
			if _, err := n2.Register("n", 7, wiretest.Value("v")); err != nil {
				t.Fatal(err)
			}
			awaitNames(t, "n1 "+name, n1, n2)
			mustServe(t, n1, n2)
			pause(t.Context(), time.Minute)
			awaitNames(t, "n1 "+name, n1, n2)
			tapped.mu.Lock()
			defer tapped.mu.Unlock()
			if plain := bytes.Contains(tapped.seen.Bytes(), []byte(name+"/")); plain != (secret == nil) {
				t.Errorf("with %d bytes of secret: the name is readable: %v", len(secret), plain)
			}
			hello := bytes.Contains(tapped.seen.Bytes(), append([]byte(wire.Magic), 0, 0))
			if hello != (secret == nil) {
				t.Errorf("with %d bytes of secret: the hello is readable: %v", len(secret), hello)
			}
		})
	}
}

// apart starts two members with a secret, and a third node that wants to join them with another configuration.
func (r *rig) apart(t *testing.T, other Config) (n1, n2, n3 *Node) {
	t.Helper()
	n1, n2 = r.two(t, Config{Secret: secretOf("a")})
	other.Join = []string{n1.Addr()}
	return n1, n2, r.add(t, 3, other)
}

func TestWrongSecret(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1, n2, n3 := r.apart(t, Config{Secret: secretOf("b")})
		pause(t.Context(), 30*time.Second)
		awaitNames(t, "n1 n2", n1, n2)
		awaitNames(t, "n3", n3)
		r.mustLog(t, "n1", "WARN", "connection refused", "do both have one Secret")
		r.mustLog(t, "n3", "no seed answered", "another Secret")
		r.mustRefuse(t, n3, n1, "another Secret", "data connection refused")
		r.mustRefuse(t, n1, n3, "another Secret", "do both have one Secret")
		mustServe(t, n1, n2)
	})
}

// TestSecretAndNone checks what happens when a node without a secret meets one that has one.
func TestSecretAndNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1, n2, n3 := r.apart(t, Config{})
		n4 := r.add(t, 4, Config{Secret: secretOf("a"), Join: []string{n3.Addr()}})
		pause(t.Context(), 30*time.Second)
		awaitNames(t, "n1 n2", n1, n2)
		awaitNames(t, "n3", n3)
		r.mustLog(t, "n1", "connection refused", "its gossip is not encrypted")
		r.mustLog(t, "n3", "no seed answered", "its log says why")
		r.mustLog(t, "n3", "connection refused", "its gossip is encrypted")
		r.mustLog(t, "n4", "no seed answered", "its log says why")
		r.mustRefuse(t, n3, n1, "you speak without", "does not speak TLS")
		r.mustRefuse(t, n4, n3, "does not speak TLS", "it speaks TLS, and this node does not")
		mustServe(t, n1, n2)
	})
}

// TestPlainGossip checks that a node with a secret ignores plain gossip, over packets and streams.
func TestPlainGossip(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1, n2 := r.two(t, Config{Secret: secretOf("a")})
		conn := r.dial(t, 8, n1)
		if _, err := io.WriteString(conn, "\xf4\x09weir/weir\x06"); err != nil {
			t.Fatal(err)
		}
		wiretest.MustEnd(t, conn)
		pc, err := r.world.host("10.0.0.9").ListenPacket(t.Context(), "10.0.0.9:7946")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		for range 100 {
			claim := append([]byte("\xf4\x09weir/weir"), claimAlive(n1, "n9", "10.0.0.9", 1)...)
			if _, err := pc.WriteTo(claim, net.TCPAddrFromAddrPort(n1.addr)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		r.mustLog(t, "n1", "its gossip is not encrypted", "10.0.0.8")
		r.mustLog(t, "n1", "Decrypt packet failed", "another Secret, or none", "10.0.0.9")
		awaitNames(t, "n1 n2", n1, n2)
		mustServe(t, n1, n2)
	})
}

func TestWrongClusterName(t *testing.T) {
	for _, secret := range []Secret{nil, secretOf("a")} {
		bubble(t, func(t *testing.T) {
			r := newRig()
			n1, n2 := r.two(t, Config{Secret: secret})
			n3 := r.add(t, 3, Config{Secret: secret, ClusterName: "other", Join: []string{n1.Addr()}})
			pause(t.Context(), 30*time.Second)
			synctest.Wait()
			awaitNames(t, "n1 n2", n1, n2)
			awaitNames(t, "n3", n3)
			if secret == nil {
				r.mustLog(t, "n1", "connection refused", `belongs to the cluster`, "weir/other")
			} else {
				r.mustLog(t, "n1", "msg=\"connection refused", `certificate is for the cluster`, "other")
			}
			r.mustRefuse(t, n3, n1, `other`, `other`)
			mustServe(t, n1, n2)
		})
	}
}

// setLeaf makes a node with a secret present the certificate that a node of that name would have made at that time.
func setLeaf(t *testing.T, n *Node, secret Secret, at time.Time, name string) {
	t.Helper()
	tr, err := trust.New(trust.Options{Name: name, Cluster: DefaultClusterName, Secrets: [][]byte{secret}})
	if err != nil {
		t.Fatal(err)
	}
	var leaf *tls.Certificate
	for _, now := range []time.Time{at.Add(-2 * trust.CertRenew), at} { // the second is made at that time
		if leaf, err = tr.Certificate(now); err != nil {
			t.Fatal(err)
		}
	}
	n.trust.Server().GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return leaf, nil }
	n.trust.Client("").GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return leaf, nil }
}

func TestExpiredCertificate(t *testing.T) {
	for _, age := range []time.Duration{trust.CertLife + time.Minute, -trust.CertBefore - time.Minute} { // expired, and not yet valid
		bubble(t, func(t *testing.T) {
			r := newRig()
			n1, n2 := r.two(t, Config{Secret: secretOf("a")})
			n3 := r.add(t, 3, Config{Secret: secretOf("a"), Join: []string{n1.Addr()}})
			awaitNames(t, "n1 n2 n3", n1, n2, n3)
			setLeaf(t, n3, secretOf("a"), time.Now().Add(-age), "n3")
			r.mustRefuse(t, n3, n1, "do the clocks agree", "is not valid now: do the clocks agree")
			r.mustRefuse(t, n2, n3, "is not valid now: do the clocks agree", "does not accept this node's certificate")
			mustServe(t, n1, n2)
		})
	}
}

// TestCertificatesAreRenewed checks that a data connection presents a certificate that is valid then, and not the one that
// the node made first.
func TestCertificatesAreRenewed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1, n2 := r.two(t, Config{Secret: secretOf("a")})
		tomorrow, err := n1.trust.Certificate(time.Now().Add(24 * time.Hour)) // gossiping for that long would take too much time
		if err != nil {
			t.Fatal(err)
		}
		var shown *tls.Certificate
		get := n1.trust.Server().GetCertificate
		n1.trust.Server().GetCertificate = func(h *tls.ClientHelloInfo) (_ *tls.Certificate, err error) {
			shown, err = get(h)
			return shown, err
		}
		if err := ask(t.Context(), n2, memberOf(n1)); err != nil {
			t.Fatal(err)
		}
		if shown == nil || shown == tomorrow || shown.Leaf.NotBefore.After(time.Now()) {
			t.Errorf("shown: %+v", shown)
		}
	})
}

func TestWrongName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1, n2 := r.two(t, Config{Secret: secretOf("a")})
		n3 := r.add(t, 3, Config{Secret: secretOf("a"), Join: []string{n1.Addr()}})
		awaitNames(t, "n1 n2 n3", n1, n2, n3)
		setLeaf(t, n3, secretOf("a"), time.Now(), "n2")
		r.mustRefuse(t, n3, n1, `is for the member \"n2\", not \"n3\"`, `is for the member \"n2\", not \"n3\"`)
		r.mustRefuse(t, n1, n3, `is for the member "n2", not "n3"`, `was expected here`)
		mustServe(t, n1, n2)
	})
}

// TestRotation checks that a secret can be changed in three rolling restarts, during each of which every node answers every
// other. After that the old secret opens nothing.
func TestRotation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		r.world.SetName("weir.svc", "10.0.0.1", "10.0.0.2", "10.0.0.3")
		before, after := secretOf("old"), secretOf("new")
		steps := []Config{
			{Secret: before},
			{Secret: before, AcceptSecrets: []Secret{after}},
			{Secret: after, AcceptSecrets: []Secret{before}},
			{Secret: after},
		}
		nodes := make([]*Node, 3)
		for step, cfg := range steps {
			cfg.Join = []string{"weir.svc:7946"}
			for i := range nodes {
				if nodes[i] != nil {
					if err := nodes[i].Leave(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				nodes[i] = r.add(t, i+1, cfg)
				if step > 0 || i == 2 {
					awaitNames(t, "n1 n2 n3", nodes...)
					mustServe(t, nodes...)
				}
				for name := range r.books {
					for _, differs := range []string{"another Secret", "one Secret"} {
						if bad := r.lines(name, differs); len(bad) > 0 {
							t.Fatalf("step %d, node %d: %s", step, i, bad[0])
						}
					}
				}
			}
		}
		old := r.add(t, 4, Config{Secret: before, Join: []string{"weir.svc:7946"}})
		pause(t.Context(), 10*time.Second)
		awaitNames(t, "n4", old)
		awaitNames(t, "n1 n2 n3", nodes...)
		r.mustRefuse(t, old, nodes[0], "another Secret", "data connection refused")
		r.mustRefuse(t, nodes[1], old, "another Secret", "data connection refused")
		if nodes[0].trust.ID == old.trust.ID || nodes[0].trust.ID != nodes[1].trust.ID {
			t.Errorf("ids: %s and %s, the old one %s", nodes[0].trust.ID, nodes[1].trust.ID, old.trust.ID)
		}
	})
}

// userCA is a user's own authority.
type userCA struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
	pool *x509.CertPool
}

func newUserCA(t *testing.T) *userCA {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ca := &userCA{key: key, pool: x509.NewCertPool()}
	ca.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	ca.cert = ca.sign(t, ca.cert, public)
	ca.pool.AddCert(ca.cert)
	return ca
}

func (ca *userCA) sign(t *testing.T, template *x509.Certificate, public ed25519.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(nil, template, ca.cert, public, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf returns a certificate that names a host.
func (ca *userCA) leaf(t *testing.T, host string) tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{host}, NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, public)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func TestOwnAuthority(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		ca, other := newUserCA(t), newUserCA(t)
		config := func(own *userCA, name string) Config {
			return Config{Secret: secretOf("a"), TLS: &tls.Config{Certificates: []tls.Certificate{own.leaf(t, name)}, RootCAs: ca.pool}}
		}
		n1 := r.add(t, 1, config(ca, "n1"))
		cfg := config(ca, "n2")
		cfg.Join = []string{n1.Addr()}
		n2 := r.add(t, 2, cfg)
		leaf := other.leaf(t, "n3") // what n3 presents
		n3 := r.add(t, 3, Config{Secret: secretOf("a"), Join: []string{n1.Addr()}, TLS: &tls.Config{
			GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &leaf, nil },
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf, nil },
			RootCAs:              ca.pool,
		}})
		awaitNames(t, "n1 n2 n3", n1, n2, n3)
		mustServe(t, n1, n2)
		r.mustRefuse(t, n3, n1, "does not accept this node's certificate", "its certificate is from another authority")
		r.mustRefuse(t, n1, n3, "from another authority", "does not accept this node's certificate")

		// A certificate that the authority vouches for, and that names another member.
		leaf = ca.leaf(t, "n2")
		pause(t.Context(), time.Minute)
		r.mustRefuse(t, n3, n2, "does not name the member", "does not name the member")
		mustServe(t, n1, n2)

		cfg = config(ca, "n9")
		cfg.Bind, cfg.Network, cfg.Name = "10.0.0.5:1", r.world.host("10.0.0.5"), "n5"
		if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `does not name this node, "n5"`) {
			t.Errorf("a node with another's certificate: %v", err)
		}
	})
}

// TestServerVerifiesItsClients checks that a client that trusts anybody and presents any certificate gets no further than
// the handshake.
func TestServerVerifiesItsClients(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1, n2 := r.two(t, Config{Secret: secretOf("a")})
		other, err := newTrust(&Config{ClusterName: DefaultClusterName, Secret: secretOf("b")}, "n2")
		if err != nil {
			t.Fatal(err)
		}
		show := func(of *trust.Trust) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if of == nil {
					return &tls.Certificate{}, nil
				}
				return of.Certificate(time.Now())
			}
		}
		for i, c := range []struct {
			log string
			cfg *tls.Config
		}{
			{"from another authority", &tls.Config{NextProtos: []string{trust.ALPN}, GetClientCertificate: show(other)}},
			{"no certificate", &tls.Config{NextProtos: []string{trust.ALPN}, GetClientCertificate: show(nil)}},
			{"application protocol", &tls.Config{NextProtos: []string{"h2"}, GetClientCertificate: show(n2.trust)}},
			{"unsupported versions", &tls.Config{MaxVersion: tls.VersionTLS12, GetClientCertificate: show(n2.trust)}},
			{"", &tls.Config{NextProtos: []string{trust.ALPN}, GetClientCertificate: show(n2.trust)}}, // this one is valid
		} {
			raw := r.dial(t, 10+i, n1)
			if _, err := io.WriteString(raw, wire.Magic); err != nil {
				t.Fatal(err)
			}
			c.cfg.InsecureSkipVerify = true
			conn := tls.Client(raw, c.cfg)
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err := conn.Write(n2.data.Hello().Append(nil))
			if err == nil {
				_, err = wire.ReadHello(conn)
			}
			if (err == nil) != (c.log == "") {
				t.Errorf("%q: %v", c.log, err)
			}
			_ = raw.Close()
			synctest.Wait()
			if c.log != "" {
				r.mustLog(t, "n1", "data connection refused", c.log, raw.LocalAddr().(*net.TCPAddr).IP.String())
			}
		}
		mustServe(t, n1, n2)
	})
}
