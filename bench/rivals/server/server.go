package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

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
	// tries is how often a server is started: another process may take the port after it was found.
	tries = 3
	poll  = 20 * time.Millisecond
)

// find returns the path of a program, or the error missing.
func find(program string, missing error) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", missing
	}
	return path, nil
}

// start starts a server, on another port if it ends at its start. args returns its arguments for a port; ready reports
// whether it answers at the address.
func start(ctx context.Context, path string, args func(port int) []string, ready func(addr string) error) (addr string, p *bench.Process, err error) {
	for try := 1; ; try++ {
		addr, p, err = startOnce(ctx, path, args, ready)
		if err == nil || try == tries || ctx.Err() != nil {
			return addr, p, err
		}
	}
}

func startOnce(ctx context.Context, path string, args func(port int) []string, ready func(addr string) error) (string, *bench.Process, error) {
	addr, port, err := FreePort()
	if err != nil {
		return "", nil, err
	}
	p, err := bench.Command(path, args(port)...)
	if err != nil {
		return "", nil, fmt.Errorf("%s cannot be run: %w", path, err)
	}
	for {
		err := ready(addr)
		if err == nil {
			return addr, p, nil
		}
		select {
		case <-time.After(poll):
		case <-p.Done():
			return "", nil, errors.Join(fmt.Errorf("%s ended at its start; to see why: %s %s", filepath.Base(path), path, strings.ReplaceAll(strings.Join(args(port), " "), "  ", ` "" `)), p.Stop())
		case <-ctx.Done():
			return "", nil, errors.Join(fmt.Errorf("%s at %s does not answer: %w", filepath.Base(path), addr, err), p.Stop())
		}
	}
}
