package server

import (
	"crypto/x509"
	"errors"
	"testing"

	"github.com/redis/rueidis"
)

// TestRedisTLS checks that a server with TLS answers its clients, and nobody without TLS or with another's certificate.
func TestRedisTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs redis-server")
	}
	s, err := StartRedisTLS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if s.Option().TLSConfig == nil {
		t.Error("its clients do not use TLS")
	}
	if pong, err := s.Client.Do(t.Context(), s.Client.B().Ping().Build()).ToString(); err != nil || pong != "PONG" {
		t.Errorf("it answered %q, %v", pong, err)
	}
	if used, err := s.CPU(); err != nil || used <= 0 {
		t.Errorf("it has used %v, %v", used, err)
	}
	plain := s.Option()
	plain.TLSConfig = nil
	if c, err := rueidis.NewClient(plain); err == nil {
		c.Close()
		t.Error("it answers without TLS")
	}
	stranger := s.Option()
	stranger.TLSConfig = stranger.TLSConfig.Clone()
	stranger.TLSConfig.RootCAs = x509.NewCertPool()
	var unknown x509.UnknownAuthorityError
	if c, err := rueidis.NewClient(stranger); !errors.As(err, &unknown) {
		if err == nil {
			c.Close()
		}
		t.Errorf("a client that does not trust it: %v", err)
	}
}
