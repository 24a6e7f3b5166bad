package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/weircache/weir/bench"
)

// ErrNoRedis says how to get a redis-server.
var ErrNoRedis = errors.New("redis-server is not installed: apt-get install redis-server")

// FindRedis returns the path of redis-server, or ErrNoRedis.
func FindRedis() (path string, err error) { return find("redis-server", ErrNoRedis) }

// Redis is a running redis-server.
type Redis struct {
	Addr   string
	Client rueidis.Client // caches nothing

	process *bench.Process
	tls     *tls.Config // of its clients; nil: without TLS
}

// StartRedis starts a redis-server that does not write to disk, with further arguments, and waits until it answers.
func StartRedis(ctx context.Context, args ...string) (*Redis, error) {
	return (&Redis{}).start(ctx, "--port", args)
}

// StartRedisTLS is StartRedis with TLS alone: the server answers nothing without it. Its certificate is made for this
// server; the clients check it, and the server does not require one of them.
func StartRedisTLS(ctx context.Context, args ...string) (_ *Redis, err error) {
	dir, err := os.MkdirTemp("", "weir-redis-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }() // the server has read it when it answers
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	config, err := certify(cert, key)
	if err != nil {
		return nil, err
	}
	return (&Redis{tls: config}).start(ctx, "--tls-port", append(args,
		"--port", "0", "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no"))
}

// start starts the server; port is the name of the argument that has its port.
func (s *Redis) start(ctx context.Context, port string, args []string) (*Redis, error) {
	path, err := FindRedis()
	if err != nil {
		return nil, err
	}
	s.Addr, s.process, err = start(ctx, path, func(n int) []string {
		return append([]string{"--bind", "127.0.0.1", port, strconv.Itoa(n), "--save", "", "--appendonly", "no"}, args...)
	}, func(addr string) (err error) {
		s.Addr = addr
		s.Client, err = s.Dial(0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// certify writes a certificate for the loopback and its key to files, and returns the configuration of a client that
// trusts this certificate alone.
func certify(cert, key string) (*tls.Config, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 1),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	public, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public})
	trusted.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS13}, errors.Join(
		os.WriteFile(cert, text, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// Option returns what a client needs to reach the server: its address, and how it uses TLS if it does.
func (s *Redis) Option() rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{s.Addr}, TLSConfig: s.tls}
}

// Dial connects a client that caches nothing. It waits up to delay for commands that it can send together.
func (s *Redis) Dial(delay time.Duration) (rueidis.Client, error) {
	o := s.Option()
	o.DisableCache, o.MaxFlushDelay = true, delay
	return rueidis.NewClient(o)
}

// CPU returns the CPU time that the server has used.
func (s *Redis) CPU() (time.Duration, error) {
	info, err := s.Client.Do(context.Background(), s.Client.B().Info().Section("cpu").Build()).ToString()
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, 0
	for line := range strings.Lines(info) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ":")
		if seconds, err := strconv.ParseFloat(text, 64); err == nil && (name == "used_cpu_sys" || name == "used_cpu_user") {
			sum, found = sum+seconds, found+1
		}
	}
	if found != 2 {
		return 0, errors.New("redis-server: INFO does not say used_cpu_sys and used_cpu_user")
	}
	return time.Duration(sum * float64(time.Second)), nil
}

// Pid returns the ID of the server's process.
func (s *Redis) Pid() int { return s.process.ID() }

// Kill ends the server, but not Client.
func (s *Redis) Kill() { s.process.Kill() }

// Stop closes Client and ends the server.
func (s *Redis) Stop() {
	s.Client.Close()
	s.process.Kill()
}
