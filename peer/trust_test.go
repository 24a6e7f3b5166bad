package peer

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// TestOneSecret checks that nodes with one secret form a cluster, and that an eavesdropper learns nothing but the label.
func TestOneSecret(t *testing.T) {
	for _, secret := range []Secret{nil, secretOf("a")} {
		bubble(t, func(t *testing.T) {
			r := newRig()
			wire := tap{Network: r.world.host("10.0.0.2"), mu: new(sync.Mutex), seen: new(bytes.Buffer)}
			n1 := r.add(t, 1, Config{Secret: secret})
			cfg := Config{Name: "n2", Bind: "10.0.0.2:7946", Join: []string{n1.Addr()}, Network: wire, Secret: secret, Logger: quick("").Logger}
			n2 := start(t, cfg)
			if _, err := n2.Register("n", 7, value("v")); err != nil {
				t.Fatal(err)
			}
			awaitNames(t, "n1 n2", n1, n2)
			mustServe(t, n1, n2)
			pause(t.Context(), time.Minute)
			awaitNames(t, "n1 n2", n1, n2)
			wire.mu.Lock()
			defer wire.mu.Unlock()
			if plain := bytes.Contains(wire.seen.Bytes(), []byte("n2/")); plain != (secret == nil) {
				t.Errorf("with %d bytes of secret: the name is readable: %v", len(secret), plain)
			}
			hello := bytes.Contains(wire.seen.Bytes(), append([]byte(dataMagic), 0, 0))
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
		mustEnd(t, conn)
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

// setLeaf makes a node present another certificate.
func setLeaf(t *testing.T, n *Node, at time.Time, name string) {
	t.Helper()
	leaf, err := n.trust.mint(at, name)
	if err != nil {
		t.Fatal(err)
	}
	n.trust.server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return leaf, nil }
	n.trust.client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return leaf, nil }
}

func TestExpiredCertificate(t *testing.T) {
	for _, age := range []time.Duration{certLife + time.Minute, -certBefore - time.Minute} { // expired, and not yet valid
		bubble(t, func(t *testing.T) {
			r := newRig()
			n1, n2 := r.two(t, Config{Secret: secretOf("a")})
			n3 := r.add(t, 3, Config{Secret: secretOf("a"), Join: []string{n1.Addr()}})
			awaitNames(t, "n1 n2 n3", n1, n2, n3)
			setLeaf(t, n3, time.Now().Add(-age), "n3")
			r.mustRefuse(t, n3, n1, "do the clocks agree", "is not valid now: do the clocks agree")
			r.mustRefuse(t, n2, n3, "is not valid now: do the clocks agree", "does not accept this node's certificate")
			mustServe(t, n1, n2)
		})
	}
}

// TestCertificatesAreRenewed checks that certificates are renewed long before they expire, while a node runs.
func TestCertificatesAreRenewed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1, n2 := r.two(t, Config{Secret: secretOf("a")})
		at := func(d time.Duration) *x509.Certificate {
			c, err := n1.trust.certificate(time.Now().Add(d))
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf
		}
		first := at(0)
		if first != at(certRenew-time.Second) {
			t.Error("each connection makes a certificate")
		}
		second := at(certRenew)
		if second == first || second.NotAfter.Sub(first.NotAfter) < certRenew || first.NotAfter.Sub(second.NotBefore) < certBefore {
			t.Error("it was not renewed in time")
		}
		// This clock went back by 12 hours: the node must not present a certificate of tomorrow.
		third := at(0)
		if third == second || third.NotBefore.After(time.Now()) {
			t.Error("it shows a certificate of tomorrow")
		}
		pause(t.Context(), certRenew/60)
		n1.trust.mu.Lock()
		n1.trust.renew = time.Now() // gossiping for that long would take too much time
		n1.trust.mu.Unlock()
		mustServe(t, n1, n2)
		n1.trust.mu.Lock()
		fourth := n1.trust.leaf.Leaf
		n1.trust.mu.Unlock()
		if fourth == third {
			t.Error("it was not renewed for a connection")
		}
	})
}

func TestWrongName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1, n2 := r.two(t, Config{Secret: secretOf("a")})
		n3 := r.add(t, 3, Config{Secret: secretOf("a"), Join: []string{n1.Addr()}})
		awaitNames(t, "n1 n2 n3", n1, n2, n3)
		setLeaf(t, n3, time.Now(), "n2")
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
		if nodes[0].trust.id == old.trust.id || nodes[0].trust.id != nodes[1].trust.id {
			t.Errorf("ids: %s and %s, the old one %s", nodes[0].trust.id, nodes[1].trust.id, old.trust.id)
		}
	})
}

// pki makes the certificates of a user's own authority.
func pki(t *testing.T, ca string) (authority *trust, pool *x509.CertPool) {
	t.Helper()
	tr := &trust{cluster: "x"}
	cert, key, _, err := authorityOf(secretOf(ca))
	if err != nil {
		t.Fatal(err)
	}
	tr.caCert, tr.caKey = cert, key
	pool = x509.NewCertPool()
	pool.AddCert(cert)
	return tr, pool
}

func TestOwnAuthority(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		ca, pool := pki(t, "ca")
		other, _ := pki(t, "another ca")
		config := func(ca *trust, name string) Config {
			leaf := hostLeaf(t, ca, name)
			return Config{Secret: secretOf("a"), TLS: &tls.Config{Certificates: []tls.Certificate{*leaf}, RootCAs: pool}}
		}
		n1 := r.add(t, 1, config(ca, "n1"))
		cfg := config(ca, "n2")
		cfg.Join = []string{n1.Addr()}
		n2 := r.add(t, 2, cfg)
		cfg = config(other, "n3")
		cfg.Join = []string{n1.Addr()}
		n3 := r.add(t, 3, cfg)
		awaitNames(t, "n1 n2 n3", n1, n2, n3)
		mustServe(t, n1, n2)
		r.mustRefuse(t, n3, n1, "does not accept this node's certificate", "no certificate that this node's authorities vouch for")
		r.mustRefuse(t, n1, n3, "from another authority", "does not accept this node's certificate")

		// A certificate that the authority vouches for, and that names another member.
		leaf := hostLeaf(t, ca, "n2")
		n3.trust.server.Certificates = []tls.Certificate{*leaf}
		n3.trust.client.Certificates = []tls.Certificate{*leaf}
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

// hostLeaf returns a certificate that names a host.
func hostLeaf(t *testing.T, ca *trust, host string) *tls.Certificate {
	t.Helper()
	leaf, err := ca.mintFor(time.Now(), []string{host}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
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
		show := func(ca *trust) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if ca == nil {
					return &tls.Certificate{}, nil
				}
				return ca.mint(time.Now(), "n2")
			}
		}
		for i, c := range []struct {
			log string
			cfg *tls.Config
		}{
			{"from another authority", &tls.Config{NextProtos: []string{alpn}, GetClientCertificate: show(other)}},
			{"no certificate", &tls.Config{NextProtos: []string{alpn}, GetClientCertificate: show(nil)}},
			{"application protocol", &tls.Config{NextProtos: []string{"h2"}, GetClientCertificate: show(n2.trust)}},
			{"unsupported versions", &tls.Config{MaxVersion: tls.VersionTLS12, GetClientCertificate: show(n2.trust)}},
			{"", &tls.Config{NextProtos: []string{alpn}, GetClientCertificate: show(n2.trust)}}, // this one is valid
		} {
			raw := r.dial(t, 10+i, n1)
			if _, err := io.WriteString(raw, dataMagic); err != nil {
				t.Fatal(err)
			}
			c.cfg.InsecureSkipVerify = true
			conn := tls.Client(raw, c.cfg)
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err := conn.Write(n2.data.hello().append(nil))
			if err == nil {
				_, err = readHello(conn)
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

// TestCertificateAfterAClockStep checks that a certificate is renewed by the wall clock, even if the wall clock was stepped
// while the monotonic clock went on or stood still.
func TestCertificateAfterAClockStep(t *testing.T) {
	tr, err := newTrust(&Config{Secret: bytes.Repeat([]byte{1, 2}, SecretSize/2), ClusterName: "weir"}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, d := range []time.Duration{13 * time.Hour, 25 * time.Hour, 30 * 24 * time.Hour, -2 * time.Hour} {
		later := stepped(now.Add(time.Second), d)
		if later.Sub(now) != time.Second || later.Round(0).Sub(now.Round(0)) != d+time.Second {
			t.Fatal("the clock is not stepped as it should be:", later.Sub(now), later.Round(0).Sub(now.Round(0)))
		}
		c, err := tr.certificate(later)
		if err != nil {
			t.Fatal(err)
		}
		if left := c.Leaf.NotAfter.Sub(later.Round(0)); left < certLife-certRenew || left > certLife {
			t.Errorf("the clock stepped by %v: the certificate is valid for another %v", d, left)
		}
	}
}

// stepped returns now with the wall clock d later and the same monotonic reading, as time.Now does after a step of the
// clock or after the machine was suspended.
func stepped(now time.Time, d time.Duration) time.Time {
	type raw struct {
		wall uint64
		ext  int64
		loc  *time.Location
	}
	r := (*raw)(unsafe.Pointer(&now))
	r.wall += uint64(int64(d/time.Second)) << 30 // seconds, in bits 30 to 62
	return now
}
