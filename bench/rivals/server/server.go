package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/weircache/weir/bench"
)

// FreePort finds a currently free address of the loopback, and its port.
func FreePort() (addr string, port int, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", 0, err
	}
	return l.Addr().String(), l.Addr().(*net.TCPAddr).Port, l.Close()
}

const (
	// tries is how often a Redis is started: another process may take the port after it was found.
	tries = 3
	poll  = 20 * time.Millisecond
)

// ErrNoRedis says how to get a redis-server.
var ErrNoRedis = errors.New("redis-server is not installed: apt-get install redis-server")

// FindRedis returns the path of redis-server, or ErrNoRedis.
func FindRedis() (path string, err error) {
	if path, err = exec.LookPath("redis-server"); err != nil {
		return "", ErrNoRedis
	}
	return path, nil
}

// Redis is a running redis-server.
type Redis struct {
	Addr   string
	Client rueidis.Client // caches nothing

	process *bench.Process
}

// StartRedis starts a redis-server that does not write to disk, with further arguments, and waits until it answers.
func StartRedis(ctx context.Context, args ...string) (*Redis, error) {
	path, err := FindRedis()
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		s, err := startRedis(ctx, path, args)
		if err == nil || try == tries || ctx.Err() != nil {
			return s, err
		}
	}
}

func startRedis(ctx context.Context, path string, args []string) (*Redis, error) {
	addr, port, err := FreePort()
	if err != nil {
		return nil, err
	}
	p, err := bench.Command(path, append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--appendonly", "no"}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be run: %w", path, err)
	}
	for {
		client, err := DialRedis(addr, 0)
		if err == nil {
			return &Redis{Addr: addr, Client: client, process: p}, nil
		}
		select {
		case <-time.After(poll):
		case <-p.Done():
			return nil, errors.Join(fmt.Errorf("redis-server ended at its start; to see why: %s --bind 127.0.0.1 --port %d", path, port), p.Stop())
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("redis-server at %s does not answer: %w", addr, err), p.Stop())
		}
	}
}

// DialRedis connects a client that caches nothing. It waits up to delay for commands that it can send together.
func DialRedis(addr string, delay time.Duration) (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, MaxFlushDelay: delay})
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
