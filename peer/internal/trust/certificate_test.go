package trust_test

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/weircache/weir/peer/internal/trust"
)

// made returns the trust of a member that has a secret.
func made(t *testing.T, name, cluster string, secrets ...string) *trust.Trust {
	t.Helper()
	o := trust.Options{Name: name, Cluster: cluster}
	for _, s := range secrets {
		sum := sha256.Sum256([]byte(s))
		o.Secrets = append(o.Secrets, sum[:])
	}
	tr, err := trust.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestCertificatesAreRenewed checks that certificates are kept for a while, and renewed long before they expire.
func TestCertificatesAreRenewed(t *testing.T) {
	tr, now := made(t, "n1", "weir", "a"), time.Now()
	at := func(d time.Duration) *x509.Certificate {
		c, err := tr.Certificate(now.Add(d))
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := at(time.Second)
	if first != at(trust.CertRenew-time.Second) {
		t.Error("each connection makes a certificate")
	}
	second := at(trust.CertRenew + time.Second)
	if second == first || second.NotAfter.Sub(first.NotAfter) < trust.CertRenew || first.NotAfter.Sub(second.NotBefore) < trust.CertBefore {
		t.Error("it was not renewed in time")
	}
	// This clock went back by 12 hours: the node must not present a certificate of tomorrow.
	if third := at(0); third == second || third.NotBefore.After(now) {
		t.Error("it shows a certificate of tomorrow")
	}
}

// TestCertificateAfterAClockStep checks that a certificate is renewed by the wall clock, even if the wall clock was stepped
// while the monotonic clock went on or stood still.
func TestCertificateAfterAClockStep(t *testing.T) {
	tr, now := made(t, "n1", "weir", "a"), time.Now()
	for _, d := range []time.Duration{13 * time.Hour, 25 * time.Hour, 30 * 24 * time.Hour, -2 * time.Hour} {
		later := stepped(now.Add(time.Second), d)
		if later.Sub(now) != time.Second || later.Round(0).Sub(now.Round(0)) != d+time.Second {
			t.Fatal("the clock is not stepped as it should be:", later.Sub(now), later.Round(0).Sub(now.Round(0)))
		}
		c, err := tr.Certificate(later)
		if err != nil {
			t.Fatal(err)
		}
		if left := c.Leaf.NotAfter.Sub(later.Round(0)); left < trust.CertLife-trust.CertRenew || left > trust.CertLife {
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

// TestNames checks whose certificates a member accepts for which name.
func TestNames(t *testing.T) {
	n1 := made(t, "n1", "weir", "a")
	for _, c := range []struct {
		of     *trust.Trust
		member string
		want   string // in the error; "": none
		other  bool   // the error says that another member answers
	}{
		{made(t, "n2", "weir", "a"), "n2", "", false},
		{made(t, "n2", "weir", "a"), "n3", `for the member "n2", not "n3"`, true},
		{made(t, "n2", "other", "a"), "n2", `for the cluster "other", this is "weir"`, false},
	} {
		leaf, err := c.of.Certificate(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		err = n1.Names(leaf.Leaf, c.member)
		var other trust.OtherMemberError
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || errors.As(err, &other) != c.other {
			t.Errorf("%s: %v, want %q", c.member, err, c.want)
		}
	}
	if err := n1.Names(&x509.Certificate{DNSNames: []string{"n2"}}, "n2"); err == nil {
		t.Error("a certificate without a member is accepted")
	}
}
