package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// Explain adds to a failed handshake's error what it means for an operator.
func Explain(err error) error {
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		alert     tls.AlertError
		text      string
	)
	isVerify := errors.As(err, &verify)
	switch {
	case errors.As(err, &record):
		text = "it does not speak TLS: has it no Secret?"
	case errors.As(err, &authority):
		text = "its certificate is from another authority: has it another Secret?"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		text = "its certificate is not valid now: do the clocks agree?"
	case errors.As(err, &host):
		text = "its certificate is another's"
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		text = "it has no certificate that this node's authorities vouch for"
	case isVerify:
		text = "its certificate is not accepted"
	case errors.As(err, &alert) || strings.Contains(err.Error(), "remote error: tls:"):
		text = "it does not accept this node's certificate or TLS: do both have one Secret, and do the clocks agree?"
	default:
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return fmt.Errorf("TLS handshake: %s: %w", text, err)
}

// ExplainRefusal is Explain for errors after this side's handshake. In TLS 1.3 the dialling side learns only then that its
// certificate is not accepted.
func ExplainRefusal(err error) error {
	if strings.Contains(err.Error(), "remote error: tls:") {
		return Explain(err)
	}
	return err
}

// IsEnd reports whether err says only that a connection has ended.
func IsEnd(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
