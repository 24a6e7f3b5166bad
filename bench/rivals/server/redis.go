package server

import (
	"context"
	"errors"
	"strconv"
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
}

// StartRedis starts a redis-server that does not write to disk, with further arguments, and waits until it answers.
func StartRedis(ctx context.Context, args ...string) (*Redis, error) {
	path, err := FindRedis()
	if err != nil {
		return nil, err
	}
	s := &Redis{}
	s.Addr, s.process, err = start(ctx, path, func(port int) []string {
		return append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--appendonly", "no"}, args...)
	}, func(addr string) (err error) {
		s.Client, err = DialRedis(addr, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
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
