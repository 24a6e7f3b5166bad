package trust_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/trust"
)

// hostCert returns a self-signed certificate that names a host.
func hostCert(t *testing.T, host string) tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestUserTLS checks which TLS configurations of a user are refused, and what holds for those that are not.
func TestUserTLS(t *testing.T) {
	pool := x509.NewCertPool()
	here := hostCert(t, "n1")
	bare := here
	bare.Leaf = nil
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &here, nil }
	for _, c := range []struct {
		cfg  *tls.Config
		want string // in the error; "": none
	}{
		{&tls.Config{InsecureSkipVerify: true}, "InsecureSkipVerify"},
		{&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }}, "GetConfigForClient"},
		{&tls.Config{RootCAs: pool}, "it has no certificate"},
		{&tls.Config{RootCAs: pool, GetCertificate: get}, "it has no certificate"},
		{&tls.Config{Certificates: []tls.Certificate{here}}, "RootCAs is nil"},
		{&tls.Config{Certificates: []tls.Certificate{here, hostCert(t, "n2")}, RootCAs: pool}, "certificate 1 of it does not name this node"},
		{&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{{1}}}}, RootCAs: pool}, "certificate 0 of it"},
		{&tls.Config{Certificates: []tls.Certificate{bare}, RootCAs: pool}, ""},
		{&tls.Config{Certificates: []tls.Certificate{here}, ClientCAs: pool, MinVersion: tls.VersionTLS10, ClientAuth: tls.NoClientCert, NextProtos: []string{"h2"}}, ""},
	} {
		tr, err := trust.New(trust.Options{Name: "n1:7946", Cluster: "weir", TLS: c.cfg})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.want, err)
		}
		if err != nil {
			continue
		}
		dial := tr.Client("n2:7946")
		for _, made := range []*tls.Config{tr.Server(), dial} {
			if made.MinVersion != tls.VersionTLS13 || made.ClientAuth != tls.RequireAndVerifyClientCert || !made.SessionTicketsDisabled ||
				made.RootCAs == nil || made.ClientCAs == nil || len(made.NextProtos) != 1 || made.NextProtos[0] != trust.ALPN {
				t.Errorf("what the user may not choose: %+v", made)
			}
		}
		if dial.ServerName != "n2" || tr.Client("n3").ServerName != "n3" || tr.Kind() != "tls" || tr.SealsGossip() || tr.Keyring != nil || tr.ID != "" {
			t.Errorf("dials %q, kind %q, gossip %v", dial.ServerName, tr.Kind(), tr.SealsGossip())
		}
		if err := tr.Names(here.Leaf, "n1:1"); err != nil {
			t.Error(err)
		}
		if err := tr.Names(here.Leaf, "n2:1"); err == nil || !strings.Contains(err.Error(), `does not name the member "n2:1"`) {
			t.Errorf("another member: %v", err)
		}
	}
}

// TestKinds checks what secrets and their absence make.
func TestKinds(t *testing.T) {
	none, one, two := made(t, "n1", "weir"), made(t, "n1", "weir", "a"), made(t, "n1", "weir", "a", "b")
	if none.Kind() != "none" || none.Server() != nil || none.Client("n2") != nil || none.SealsGossip() || none.Keyring != nil || none.ID != "" {
		t.Errorf("nothing makes %+v", none)
	}
	if one.Kind() != "secret" || one.Server() == nil || one.Client("n2") == nil || !one.SealsGossip() || len(one.Keyring.GetKeys()) != 1 || len(one.Accepts) != 0 {
		t.Errorf("a secret makes kind %q, %d accepted", one.Kind(), len(one.Accepts))
	}
	if two.ID != one.ID || len(two.Accepts) != 1 || two.Accepts[0] != made(t, "n1", "weir", "b").ID || len(two.Keyring.GetKeys()) != 2 {
		t.Errorf("two secrets make %s, %v", two.ID, two.Accepts)
	}
}

// TestExplain checks that an operator reads what a failed handshake means, and that the cause is kept.
func TestExplain(t *testing.T) {
	verify := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{tls.RecordHeaderError{}, "it does not speak TLS"},
		{verify(x509.UnknownAuthorityError{}), "another authority"},
		{verify(x509.CertificateInvalidError{Reason: x509.Expired}), "do the clocks agree"},
		{verify(x509.CertificateInvalidError{Reason: x509.TooManyIntermediates}), "its certificate is not accepted"},
		{verify(x509.HostnameError{Certificate: &x509.Certificate{}}), "its certificate is another's"},
		{errors.New("tls: client didn't provide a certificate"), "no certificate that this node's authorities vouch for"},
		{tls.AlertError(42), "it does not accept this node's certificate"},
		{errors.New("remote error: tls: bad certificate"), "it does not accept this node's certificate"},
		{io.ErrUnexpectedEOF, "TLS handshake: unexpected EOF"},
	} {
		err := trust.Explain(c.err)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "TLS handshake: ") {
			t.Errorf("%v: %v", c.err, err)
		}
	}
	if alert := errors.New("remote error: tls: bad certificate"); trust.ExplainRefusal(alert).Error() == alert.Error() || trust.ExplainRefusal(io.EOF) != io.EOF {
		t.Error("a rejection that is learned late is not explained, or another error is")
	}
	for err, want := range map[error]bool{nil: true, io.EOF: true, net.ErrClosed: true, io.ErrClosedPipe: true, syscall.ECONNRESET: true, syscall.EPIPE: true, syscall.ECONNREFUSED: false, io.ErrUnexpectedEOF: false} {
		if trust.IsEnd(err) != want {
			t.Errorf("%v says only that a connection has ended: %v", err, !want)
		}
	}
}

// TestPreface checks that a preface travels with the first write and is not counted.
func TestPreface(t *testing.T) {
	near, far := net.Pipe()
	conn := trust.Preface(near, []byte("front "))
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(far)
		got <- b
	}()
	for _, s := range []string{"one ", "two"} {
		if n, err := io.WriteString(conn, s); n != len(s) || err != nil {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
	_ = conn.Close()
	if b := <-got; string(b) != "front one two" {
		t.Errorf("%q arrived", b)
	}
}
