package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// ALPN keeps apart data connections and those of other protocols that trust the same authority.
	ALPN = "weir/1"
	// TLSRecord is the first byte of a TLS handshake.
	TLSRecord = 0x16
)

// Options says what a Trust is made from.
type Options struct {
	Name    string      // of this node's member
	Cluster string      // its cluster's name
	Secrets [][]byte    // the first encrypts and signs, all decrypt and are trusted; none: gossip is plaintext
	TLS     *tls.Config // for data connections, with the user's own authority; nil: as the secrets say
}

// Trust holds the means by which a node recognizes members. Its fields do not change after New. It is safe for
// concurrent use.
type Trust struct {
	Keyring *memberlist.Keyring // of gossip; nil: plaintext
	ID      string              // distinguishes secrets without revealing them; "" without a secret
	Accepts []string            // ids of the other secrets

	name, cluster string
	server        *tls.Config // of accepted data connections; nil: plaintext
	client        *tls.Config // of dialled data connections; nil: plaintext
	gossip        *tls.Config // of gossip streams, with certificates of the secret; nil: plaintext
	own           bool        // the certificates of data connections are made here, from a secret
	authority     authority   // of the first secret

	mu    sync.Mutex       // guards the rest
	leaf  *tls.Certificate // the certificate that this node presents
	renew time.Time        // when to create the next one
}

// New creates the trust that o asks for. An error says what is wrong with Options.TLS.
func New(o Options) (*Trust, error) {
	t := &Trust{name: o.Name, cluster: o.Cluster}
	if len(o.Secrets) > 0 {
		if err := t.useSecrets(o.Secrets); err != nil {
			return nil, err
		}
	}
	if o.TLS != nil {
		if err := t.useTLS(o.TLS); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// useSecrets derives the keys of gossip and the authorities.
func (t *Trust) useSecrets(secrets [][]byte) error {
	var keys [][]byte
	pool := x509.NewCertPool()
	for i, s := range secrets {
		key, err := derive(s, purposeGossip)
		if err != nil {
			return err
		}
		keys = append(keys, key)
		a, err := newAuthority(s)
		if err != nil {
			return err
		}
		pool.AddCert(a.cert)
		if i == 0 {
			t.authority, t.ID = a, a.id
		} else {
			t.Accepts = append(t.Accepts, a.id)
		}
	}
	var err error
	if t.Keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
		return err
	}
	t.own = true
	base := &tls.Config{
		RootCAs: pool, ClientCAs: pool, ServerName: certHost, Time: time.Now,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.Certificate(time.Now()) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.Certificate(time.Now()) },
	}
	t.server, t.client = harden(base), harden(base)
	t.gossip = harden(base)
	t.gossip.NextProtos = []string{gossipALPN}
	_, err = t.Certificate(time.Now())
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
	c.NextProtos = []string{ALPN}
	return c
}

// useTLS takes the user's own authority from c.
func (t *Trust) useTLS(c *tls.Config) error {
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

// Server returns the configuration for accepting data connections, or nil if they are plaintext.
func (t *Trust) Server() *tls.Config { return t.server }

// Client returns the configuration for dialling a member's data connections, or nil if they are plaintext.
func (t *Trust) Client(member string) *tls.Config {
	if t.client == nil || t.own {
		return t.client
	}
	c := t.client.Clone()
	c.ServerName = hostOf(member)
	return c
}

// hostOf returns what a certificate of the user's own authority must name for a member: the member's name, or the
// address if the name is an address and a port, as it is by default.
func hostOf(name string) string {
	if host, _, err := net.SplitHostPort(name); err == nil {
		return host
	}
	return name
}

func namesHost(cert *x509.Certificate, name string) error { return cert.VerifyHostname(hostOf(name)) }

// An OtherMemberError says that another member answers at a member's address.
type OtherMemberError struct{ Err error }

// Error implements error.
func (e OtherMemberError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e OtherMemberError) Unwrap() error { return e.Err }

// Names returns an error unless a data connection's certificate, which is known to come from a trusted authority,
// belongs to the named member. It is an OtherMemberError if the certificate belongs to another member of this
// cluster.
func (t *Trust) Names(cert *x509.Certificate, member string) error {
	if !t.own {
		if err := namesHost(cert, member); err != nil {
			return fmt.Errorf("its certificate does not name the member %q: %w", member, err)
		}
		return nil
	}
	if err := t.ofCluster(cert); err != nil {
		return err
	}
	if name := memberOf(cert).Get("name"); name != member {
		return OtherMemberError{fmt.Errorf("its certificate is for the member %q, not %q", name, member)}
	}
	return nil
}

// ofCluster returns an error unless a certificate that was made from a secret is for a member of this cluster.
func (t *Trust) ofCluster(cert *x509.Certificate) error {
	is := memberOf(cert)
	switch cluster := is.Get("cluster"); {
	case is == nil:
		return errors.New("its certificate names no member")
	case cluster != t.cluster:
		return fmt.Errorf("its certificate is for the cluster %q, this is %q; both have one Secret: give each its own", cluster, t.cluster)
	}
	return nil
}

// Kind returns one word for what protects the data connections.
func (t *Trust) Kind() string {
	switch {
	case t.server == nil:
		return "none"
	case t.own:
		return "secret"
	}
	return "tls"
}
