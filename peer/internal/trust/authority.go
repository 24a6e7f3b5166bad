package trust

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net/url"
	"time"
)

const (
	// CertBefore is how long before its creation a certificate is already valid, because the clocks of two members may
	// differ by as much as this.
	CertBefore = time.Hour
	// CertLife is how long after its creation it is valid. It is never stored, so that need not be long.
	CertLife = 24 * time.Hour
	// CertRenew is the age at which a new one is created for the next connection: long before the old one has expired for a
	// member whose clock is ahead.
	CertRenew = 12 * time.Hour

	// certHost is in each certificate that is created here, and is the name that a dialling node verifies, because the
	// standard library wants a host name. The member's name is in the URI.
	certHost = "member.weir"
	// certScheme is the scheme of that URI: weir:member?cluster=...&name=....
	certScheme = "weir"
)

// The purposes of derived keys. Each key has a purpose of its own, so that none reveals anything about another.
const (
	purposeGossip    = "weir 1 gossip key"
	purposeAuthority = "weir 1 certificate authority"
)

// derive returns 32 bytes for a purpose.
func derive(secret []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, purpose, 32)
}

// An authority is the certificate authority that is derived from a secret. It is the same on every node, since
// nothing in it is random.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
	id   string // a fingerprint of the public key
}

func newAuthority(secret []byte) (a authority, err error) {
	seed, err := derive(secret, purposeAuthority)
	if err != nil {
		return a, err
	}
	a.key = ed25519.NewKeyFromSeed(seed)
	sum := sha256.Sum256(a.key.Public().(ed25519.PublicKey))
	a.id = hex.EncodeToString(sum[:4])
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "weir secret " + a.id},
		SubjectKeyId: sum[:20],
		NotBefore:    time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), // the secret has no date
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		IsCA:         true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, template, template, a.key.Public(), a.key)
	if err != nil {
		return a, err
	}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

// issue creates a certificate for a member, with a key of its own.
func (a *authority) issue(now time.Time, cluster, member string) (*tls.Certificate, error) {
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
		DNSNames:     []string{certHost},
		URIs:         []*url.URL{memberURI(cluster, member)},
		NotBefore:    now.Add(-CertBefore), NotAfter: now.Add(CertLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
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
func memberURI(cluster, member string) *url.URL {
	return &url.URL{Scheme: certScheme, Opaque: "member", RawQuery: url.Values{"cluster": {cluster}, "name": {member}}.Encode()}
}

// memberOf returns what a certificate that was created from a secret says about its member, or nil.
func memberOf(cert *x509.Certificate) url.Values {
	for _, u := range cert.URIs {
		if u.Scheme == certScheme {
			return u.Query()
		}
	}
	return nil
}

// Certificate returns the certificate that this node presents if it has a secret, and creates a new one from time to
// time. Creating one takes less than a millisecond and waits for nothing. Certificates expire by the wall clock, so
// this compares wall clock times: after a step of the clock, or while the machine was suspended, the monotonic clock
// differs.
func (t *Trust) Certificate(now time.Time) (*tls.Certificate, error) {
	now = now.Round(0)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leaf != nil && now.Before(t.renew) && !now.Before(t.leaf.Leaf.NotBefore.Add(CertBefore/2)) {
		return t.leaf, nil
	}
	leaf, err := t.authority.issue(now, t.cluster, t.name)
	if err != nil {
		return nil, err
	}
	t.leaf, t.renew = leaf, now.Add(CertRenew)
	return leaf, nil
}
