package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/peer"
)

// secretVariable is the environment variable from which a node reads the cluster's secret.
const secretVariable = "CATALOGUE_SECRET"

// cluster is the three node processes as the driver sees them.
type cluster struct {
	dir         string
	http, peers []string
	secret      string // of the three nodes, in hexadecimal

	mu    sync.Mutex // guards procs
	procs [nodes]*process
}

// proc returns node i, or nil if it is not running.
func (c *cluster) proc(i int) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.procs[i]
}

func (c *cluster) setProc(i int, p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.procs[i] = p
}

// process is one running node.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser // the node ends when this is closed
	exited chan struct{}
	err    error // after exited
}

func (c *cluster) url(i int) string { return "http://" + c.http[i] }

// start runs node i and waits until it is ready.
func (c *cluster) start(ctx context.Context, i int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	others := make([]string, 0, nodes)
	for j, p := range c.peers {
		if j != i {
			others = append(others, p)
		}
	}
	cmd := exec.Command(self, "node", "-index", strconv.Itoa(i), "-http", c.http[i], "-peer", c.peers[i],
		"-join", strings.Join(others, ","), "-dir", c.dir)
	cmd.Env = append(os.Environ(), secretVariable+"="+c.secret) // not on the command line, which everyone can read
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting node %d: %w", i, err)
	}
	p := &process{cmd: cmd, stdin: stdin, exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	c.setProc(i, p)
	return c.wait(ctx, i, func() bool { return ok(c.url(i) + "/weir/healthz") })
}

// wait polls until done returns true, for at most 20 seconds.
func (c *cluster) wait(ctx context.Context, i int, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	p := c.proc(i)
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-p.exited:
			return fmt.Errorf("node %d ended: %w", i, p.err)
		case <-ctx.Done():
			return fmt.Errorf("node %d was not ready in time: %w", i, ctx.Err())
		}
	}
	return nil
}

func ok(url string) bool {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

// whole waits until every running node sees n members.
func (c *cluster) whole(ctx context.Context, n int) error {
	for i := range nodes {
		if c.proc(i) == nil {
			continue
		}
		err := c.wait(ctx, i, func() bool {
			s, err := c.stats(i)
			return err == nil && s.alive() == n
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// kill ends node i without warning.
func (c *cluster) kill(i int) error {
	p := c.proc(i)
	c.setProc(i, nil)
	err := p.cmd.Process.Kill()
	<-p.exited
	_ = p.stdin.Close()
	return err
}

// stop ends all nodes, gracefully first and then by force.
func (c *cluster) stop() error {
	var errs []error
	for _, p := range c.procs {
		if p != nil {
			_ = p.stdin.Close()
		}
	}
	late := time.NewTimer(5 * time.Second)
	defer late.Stop()
	for i, p := range c.procs {
		if p == nil {
			continue
		}
		select {
		case <-p.exited:
		case <-late.C:
			errs = append(errs, fmt.Errorf("node %d did not stop in time and was killed", i))
			late.Reset(0)
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// stats is the part of a node's stats document that the demonstration uses.
type stats struct {
	View struct {
		Members []struct {
			State string `json:"state"`
		} `json:"members"`
	} `json:"view"`
	Namespaces map[string]struct {
		LoadsBy map[string]int64 `json:"loads_by_cause"`
	} `json:"namespaces"`
}

func (s *stats) alive() (n int) {
	for _, m := range s.View.Members {
		if m.State == "alive" {
			n++
		}
	}
	return n
}

func (c *cluster) stats(i int) (s stats, err error) {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(c.url(i) + "/weir/stats")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// causes sums the loads by cause over the nodes that are up.
func (c *cluster) causes() map[string]int64 {
	sum := make(map[string]int64)
	for i := range nodes {
		if c.proc(i) == nil {
			continue
		}
		s, err := c.stats(i)
		if err != nil {
			continue // it may be starting or ending
		}
		for cause, n := range s.Namespaces["product"].LoadsBy {
			sum[cause] += n
		}
	}
	return sum
}

// newCluster creates the folder that the nodes share.
func newCluster(ports string) (*cluster, error) {
	http, peers, err := addresses(ports)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "weir-catalogue-")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "journal"), nil, 0o600); err != nil {
		return nil, err
	}
	secret := make([]byte, peer.SecretSize)
	_, _ = rand.Read(secret) // never fails
	return &cluster{dir: dir, http: http, peers: peers, secret: hex.EncodeToString(secret)}, nil
}
