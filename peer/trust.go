package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// certBefore is how long before its making a certificate is valid already: the clocks of
	// two members may differ by so much.
	certBefore = time.Hour
	// certLife is how long after its making it is valid. It is never stored, so it need not be long.
	certLife = 24 * time.Hour
	// certRenew is after how long a new one is made for the next connection: long before
	// the old one is past for a member whose clock is ahead.
	certRenew = 12 * time.Hour

	// certHost is in each certificate that is made here, and what a dialling node asks for:
	// the standard library wants a host name. The member's name is in the URI.
	certHost = "member.weir"
	// certScheme is the scheme of that URI: weir:member?cluster=...&name=....
	certScheme = "weir"
	// alpn keeps connections of other protocols that trust the same authority apart.
	alpn = "weir/1"
)

// trust is how a node knows its own: the keys of gossip, and TLS for the data connections.
// Nothing in it is compared byte by byte: who lacks a key cannot make what the key opens.
type trust struct {
	name, cluster string
	keyring       *memberlist.Keyring // of gossip; nil: plaintext
	server        *tls.Config         // of data connections; nil: plaintext
	client        *tls.Config         // likewise
	gossipServer  *tls.Config         // of gossip streams, with certificates of the secret; nil: plaintext
	gossipClient  *tls.Config         // likewise
	own           bool                // certificates are made here, of a secret
	id            string              // tells secrets apart, tells nothing of them; "" without a secret
	accepts       []string            // ids of the other secrets

	// of the first secret
	caCert *x509.Certificate
	caKey  ed25519.PrivateKey

	mu    sync.Mutex       // guards the rest
	leaf  *tls.Certificate // what this node shows
	renew time.Time        // when to make the next one
}

// newTrust makes what cfg asks for. The cluster trusts what its secrets, or cfg.TLS, vouch for.
func newTrust(cfg *Config, name string) (*trust, error) {
	t := &trust{name: name, cluster: cfg.ClusterName}
	if len(cfg.Secret) > 0 {
		if err := t.useSecrets(append([]Secret{cfg.Secret}, cfg.AcceptSecrets...)); err != nil {
			return nil, err
		}
	}
	if cfg.TLS != nil {
		if err := t.useTLS(cfg.TLS); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// useSecrets derives the keys of gossip and the authorities. The first secret seals and
// signs, all open and are believed.
func (t *trust) useSecrets(secrets []Secret) error {
	var keys [][]byte
	pool := x509.NewCertPool()
	for i, s := range secrets {
		key, err := s.derive(purposeGossip)
		if err != nil {
			return err
		}
		keys = append(keys, key)
		cert, private, id, err := authorityOf(s)
		if err != nil {
			return err
		}
		pool.AddCert(cert)
		if i == 0 {
			t.caCert, t.caKey, t.id = cert, private, id
		} else {
			t.accepts = append(t.accepts, id)
		}
	}
	var err error
	if t.keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
		return err
	}
	t.own = true
	base := &tls.Config{
		RootCAs: pool, ClientCAs: pool, ServerName: certHost, Time: time.Now,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.certificate(time.Now()) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.certificate(time.Now()) },
	}
	t.server, t.client = harden(base), harden(base)
	gossip := harden(base)
	gossip.NextProtos = []string{gossipALPN}
	t.gossipServer, t.gossipClient = gossip, gossip
	_, err = t.certificate(time.Now())
	return err
}

// harden sets what is not up to the user. Sessions are not resumed: connections last, so
// it would save nothing, and so each one is judged by the certificate of today.
func harden(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion = tls.VersionTLS13
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.SessionTicketsDisabled = true
	c.ClientSessionCache = nil
	c.DynamicRecordSizingDisabled = true
	c.NextProtos = []string{alpn}
	return c
}

// authorityOf is the certificate authority that a secret stands for: the same on every node,
// since nothing in it is random. id is a fingerprint of its public key.
func authorityOf(s Secret) (cert *x509.Certificate, private ed25519.PrivateKey, id string, err error) {
	seed, err := s.derive(purposeCA)
	if err != nil {
		return nil, nil, "", err
	}
	private = ed25519.NewKeyFromSeed(seed)
	sum := sha256.Sum256(private.Public().(ed25519.PublicKey))
	id = hex.EncodeToString(sum[:4])
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "weir secret " + id},
		SubjectKeyId: sum[:20],
		NotBefore:    time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), // the secret has no date
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		IsCA:         true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, "", err
	}
	cert, err = x509.ParseCertificate(der)
	return cert, private, id, err
}

// certificate returns what this node shows, and makes another one now and then. Making one takes less
// than a millisecond and waits for nothing. Certificates end by the wall clock, and so does what is compared here: after
// a step of the clock, or while the machine was suspended, the monotonic one says something else.
func (t *trust) certificate(now time.Time) (*tls.Certificate, error) {
	now = now.Round(0)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leaf != nil && now.Before(t.renew) && !now.Before(t.leaf.Leaf.NotBefore.Add(certBefore/2)) {
		return t.leaf, nil
	}
	leaf, err := t.mint(now, t.name)
	if err != nil {
		return nil, err
	}
	t.leaf, t.renew = leaf, now.Add(certRenew)
	return leaf, nil
}

// mint makes a certificate for a name.
func (t *trust) mint(now time.Time, name string) (*tls.Certificate, error) {
	return t.mintFor(now, []string{certHost}, []*url.URL{memberURI(t.cluster, name)})
}

// mintFor makes a certificate with a key of its own.
func (t *trust) mintFor(now time.Time, hosts []string, uris []*url.URL) (*tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "weir member"},
		DNSNames:     hosts,
		URIs:         uris,
		NotBefore:    now.Add(-certBefore), NotAfter: now.Add(certLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, t.caCert, public, t.caKey)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: cert}, nil
}

// memberURI is how a certificate that is made here names its member.
func memberURI(cluster, name string) *url.URL {
	return &url.URL{Scheme: certScheme, Opaque: "member", RawQuery: url.Values{"cluster": {cluster}, "name": {name}}.Encode()}
}

// useTLS takes over what the user's own authority needs.
func (t *trust) useTLS(c *tls.Config) error {
	c = c.Clone()
	switch {
	case c.InsecureSkipVerify:
		return errors.New("InsecureSkipVerify lets everybody in; set RootCAs instead")
	case c.GetConfigForClient != nil:
		return errors.New("GetConfigForClient would undo what weir requires of a connection; leave it nil")
	case len(c.Certificates) == 0 && (c.GetCertificate == nil || c.GetClientCertificate == nil):
		return errors.New("it has no certificate; set Certificates, or both GetCertificate and GetClientCertificate: a member dials and is dialled")
	case c.RootCAs == nil && c.ClientCAs == nil:
		return errors.New("it names no authority, so any public one could vouch for a member; set RootCAs")
	}
	if c.RootCAs == nil {
		c.RootCAs = c.ClientCAs
	}
	if c.ClientCAs == nil {
		c.ClientCAs = c.RootCAs
	}
	for i := range c.Certificates {
		cert := c.Certificates[i].Leaf
		if cert == nil && len(c.Certificates[i].Certificate) > 0 {
			var err error
			if cert, err = x509.ParseCertificate(c.Certificates[i].Certificate[0]); err != nil {
				return fmt.Errorf("certificate %d of it: %w", i, err)
			}
		}
		if cert != nil {
			if err := namesHost(cert, t.name); err != nil {
				return fmt.Errorf("certificate %d of it does not name this node, %q: %w", i, t.name, err)
			}
		}
	}
	t.own = false
	t.server, t.client = harden(c), harden(c)
	return nil
}

// hostOf is what a certificate of the user's own authority must name for a member: the
// member's name, or where that is an address and a port, as it is by default, the address.
func hostOf(name string) string {
	if host, _, err := net.SplitHostPort(name); err == nil {
		return host
	}
	return name
}

func namesHost(cert *x509.Certificate, name string) error { return cert.VerifyHostname(hostOf(name)) }

// names reports whether a certificate, which is known to be from a trusted authority, is the
// named member's.
func (t *trust) names(cert *x509.Certificate, name string) error {
	if !t.own {
		if err := namesHost(cert, name); err != nil {
			return fmt.Errorf("its certificate does not name the member %q: %w", name, err)
		}
		return nil
	}
	if err := t.ofCluster(cert); err != nil {
		return err
	}
	if member := memberOfCert(cert).Get("name"); member != name {
		return otherMemberError{fmt.Errorf("its certificate is for the member %q, not %q", member, name)}
	}
	return nil
}

// ofCluster reports whether a certificate that was made of a secret is for a member of this cluster.
func (t *trust) ofCluster(cert *x509.Certificate) error {
	is := memberOfCert(cert)
	switch cluster := is.Get("cluster"); {
	case is == nil:
		return errors.New("its certificate names no member")
	case cluster != t.cluster:
		return fmt.Errorf("its certificate is for the cluster %q, this is %q; both have one Secret: give each its own", cluster, t.cluster)
	}
	return nil
}

// memberOfCert is what a certificate that was made of a secret says of its member; nil: nothing.
func memberOfCert(cert *x509.Certificate) url.Values {
	for _, u := range cert.URIs {
		if u.Scheme == certScheme {
			return u.Query()
		}
	}
	return nil
}

// kind says in a word what protects the data connections.
func (t *trust) kind() string {
	switch {
	case t.server == nil:
		return "none"
	case t.own:
		return "secret"
	}
	return "tls"
}
