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
	// certBefore is how long before its creation a certificate is already valid, because the clocks of two members may
	// differ by as much as this.
	certBefore = time.Hour
	// certLife is how long after its creation it is valid. It is never stored, so that need not be long.
	certLife = 24 * time.Hour
	// certRenew is the age at which a new one is created for the next connection: long before the old one has expired for a
	// member whose clock is ahead.
	certRenew = 12 * time.Hour

	// certHost is in each certificate that is created here, and is the name that a dialling node verifies, because the
	// standard library wants a host name. The member's name is in the URI.
	certHost = "member.weir"
	// certScheme is the scheme of that URI: weir:member?cluster=...&name=....
	certScheme = "weir"
	// alpn keeps apart connections of other protocols that trust the same authority.
	alpn = "weir/1"
)

// trust holds the means by which a node recognizes members: the keys of gossip, and TLS for the data connections. It does
// not compare secrets byte by byte: a peer that lacks a key cannot produce what the key opens.
type trust struct {
	name, cluster string
	keyring       *memberlist.Keyring // of gossip; nil: plaintext
	server        *tls.Config         // of data connections; nil: plaintext
	client        *tls.Config         // likewise
	gossipServer  *tls.Config         // of gossip streams, with certificates of the secret; nil: plaintext
	gossipClient  *tls.Config         // likewise
	own           bool                // certificates are created here, from a secret
	id            string              // distinguishes secrets without revealing them; "" without a secret
	accepts       []string            // ids of the other secrets

	// of the first secret
	caCert *x509.Certificate
	caKey  ed25519.PrivateKey

	mu    sync.Mutex       // guards the rest
	leaf  *tls.Certificate // the certificate that this node presents
	renew time.Time        // when to create the next one
}

// newTrust creates the trust that cfg asks for. The cluster trusts what its secrets, or cfg.TLS, vouch for.
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

// useSecrets derives the keys of gossip and the authorities. The first secret encrypts and signs; all of them decrypt and
// are trusted.
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

// harden sets what the user may not choose. Sessions are not resumed. Connections last long, so resumption would save
// nothing, and without it each connection is judged by the current certificate.
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

// authorityOf returns the certificate authority that is derived from a secret. It is the same on every node, since nothing
// in it is random. id is a fingerprint of its public key.
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

// certificate returns the certificate that this node presents, and creates a new one from time to time. Creating one takes
// less than a millisecond and waits for nothing. Certificates expire by the wall clock, so this compares wall clock times:
// after a step of the clock, or while the machine was suspended, the monotonic clock differs.
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

// mint creates a certificate for a member's name.
func (t *trust) mint(now time.Time, name string) (*tls.Certificate, error) {
	return t.mintFor(now, []string{certHost}, []*url.URL{memberURI(t.cluster, name)})
}

// mintFor creates a certificate with a key of its own.
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

// memberURI returns the URI by which a certificate that is created here names its member.
func memberURI(cluster, name string) *url.URL {
	return &url.URL{Scheme: certScheme, Opaque: "member", RawQuery: url.Values{"cluster": {cluster}, "name": {name}}.Encode()}
}

// useTLS takes the user's own authority from c.
func (t *trust) useTLS(c *tls.Config) error {
	c = c.Clone()
	switch {
	case c.InsecureSkipVerify:
		return errors.New("InsecureSkipVerify accepts any peer; set RootCAs instead")
	case c.GetConfigForClient != nil:
		return errors.New("GetConfigForClient would undo what weir requires of a connection; leave it nil")
	case len(c.Certificates) == 0 && (c.GetCertificate == nil || c.GetClientCertificate == nil):
		return errors.New("it has no certificate; set Certificates, or both GetCertificate and GetClientCertificate: a member dials and is dialled")
	case c.RootCAs == nil && c.ClientCAs == nil:
		return errors.New("RootCAs is nil, so any public authority could vouch for a member; set RootCAs")
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

// hostOf returns what a certificate of the user's own authority must name for a member: the member's name, or the address
// if the name is an address and a port, as it is by default.
func hostOf(name string) string {
	if host, _, err := net.SplitHostPort(name); err == nil {
		return host
	}
	return name
}

func namesHost(cert *x509.Certificate, name string) error { return cert.VerifyHostname(hostOf(name)) }

// names returns an error unless a certificate, which is known to come from a trusted authority, belongs to the named
// member.
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

// ofCluster returns an error unless a certificate that was created from a secret is for a member of this cluster.
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

// memberOfCert returns what a certificate that was created from a secret says about its member, or nil.
func memberOfCert(cert *x509.Certificate) url.Values {
	for _, u := range cert.URIs {
		if u.Scheme == certScheme {
			return u.Query()
		}
	}
	return nil
}

// kind returns one word for what protects the data connections.
func (t *trust) kind() string {
	switch {
	case t.server == nil:
		return "none"
	case t.own:
		return "secret"
	}
	return "tls"
}
