package peer

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/weircache/weir/peer/internal/trust"
)

// SecretSize is the length of a Secret, in bytes.
const SecretSize = 32

// howToSecret says how to get a secret.
const howToSecret = "make one with `openssl rand -hex 32`, read it with peer.ParseSecret, and give all members the same"

// A Secret is shared by the members of a cluster and known to nobody else: SecretSize random bytes. Any process that has it
// is a member. It cannot be printed: formatting, logging or marshalling it gives a placeholder.
type Secret []byte

// ParseSecret reads a secret from text: SecretSize bytes in hexadecimal or in base64. It ignores white space around the
// secret, so the text may be the contents of a file. The error contains nothing of the text.
func ParseSecret(text string) (Secret, error) {
	text = strings.TrimSpace(text)
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString,
		base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		if b, err := decode(text); err == nil && len(b) == SecretSize {
			return b, nil
		}
	}
	return nil, fmt.Errorf("peer: the secret, %d characters, is not %d bytes in hexadecimal or base64; %s", len(text), SecretSize, howToSecret)
}

const redacted = "[secret]"

// String returns a placeholder.
func (s Secret) String() string { return redacted }

// GoString returns a placeholder.
func (s Secret) GoString() string { return redacted }

// Format writes a placeholder, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// check returns what is wrong with the secret, without revealing any of it.
func (s Secret) check() error {
	if len(s) != SecretSize {
		return fmt.Errorf("it has %d bytes and must have %d random ones; %s", len(s), SecretSize, howToSecret)
	}
	var differ byte
	for _, b := range s {
		differ |= b ^ s[0]
	}
	if differ == 0 {
		return errors.New("all its bytes are the same; " + howToSecret)
	}
	return nil
}

// equal compares in constant time.
func (s Secret) equal(other Secret) bool { return subtle.ConstantTimeCompare(s, other) == 1 }

// newTrust returns the trust that cfg asks for of the member with this name.
func newTrust(cfg *Config, name string) (*trust.Trust, error) {
	o := trust.Options{Name: name, Cluster: cfg.ClusterName, TLS: cfg.TLS}
	if len(cfg.Secret) > 0 {
		o.Secrets = append(o.Secrets, cfg.Secret)
		for _, s := range cfg.AcceptSecrets {
			o.Secrets = append(o.Secrets, s)
		}
	}
	return trust.New(o)
}
