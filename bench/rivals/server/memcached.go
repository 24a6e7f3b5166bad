package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/weircache/weir/bench"
)

// ErrNoMemcached says how to get a memcached.
var ErrNoMemcached = errors.New("memcached is not installed: apt-get install memcached")

// FindMemcached returns the path of memcached, or ErrNoMemcached.
func FindMemcached() (path string, err error) { return find("memcached", ErrNoMemcached) }

// Memcached is a running memcached. It is safe for concurrent use.
type Memcached struct {
	Addr string

	process *bench.Process
}

// StartMemcached starts a memcached that holds items of at most most bytes, rounded up to whole MiB and at
// least two, which it needs for the largest item. It gets further arguments. StartMemcached waits until it answers.
func StartMemcached(ctx context.Context, most int64, args ...string) (*Memcached, error) {
	path, err := FindMemcached()
	if err != nil {
		return nil, err
	}
	mib := strconv.FormatInt(max(2, (most+1<<20-1)>>20), 10)
	s := &Memcached{}
	s.Addr, s.process, err = start(ctx, path, func(port int) []string {
		// As root it wants to be told as whom to run.
		return append([]string{"-l", "127.0.0.1", "-p", strconv.Itoa(port), "-m", mib, "-u", "nobody"}, args...)
	}, func(addr string) error {
		_, err := (&Memcached{Addr: addr}).Stat(ctx, "pid")
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// answers is how long the server may take for its statistics.
const answers = 2 * time.Second

// Stat returns one of the server's statistics, a number.
func (s *Memcached) Stat(ctx context.Context, name string) (int64, error) {
	c, err := (&net.Dialer{Timeout: answers}).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(answers)); err != nil {
		return 0, err
	}
	if _, err := c.Write([]byte("stats\r\n")); err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != "END"; {
		if value, ok := strings.CutPrefix(lines.Text(), "STAT "+name+" "); ok {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("memcached at %s does not say %s", s.Addr, name)
}

// Pid returns the ID of the server's process.
func (s *Memcached) Pid() int { return s.process.ID() }

// Kill ends the server.
func (s *Memcached) Kill() { s.process.Kill() }
