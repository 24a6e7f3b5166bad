//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/weircache/weir/peer/peertest"
	"github.com/weircache/weir/tier"
)

// process is one node's process. It may be stopped, killed and started again, under another name as well.
type process struct {
	host      int
	ip, space string

	mu          sync.Mutex // guards the rest
	name        string
	taken       bool // reserved by a fault that stops or ends it
	incarnation int
	up          bool // from before its start until after its death
	stopped     bool // so it is not called
	cmd         *exec.Cmd
	client      *rpc.Client // nil: must not be called
	cancel      context.CancelFunc
	pauses      [][2]time.Time // when it was stopped and continued; the latter is zero while it is stopped
}

// called returns the process's name.
func (p *process) called() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.name
}

// take reserves the process for a fault that stops or ends it.
func (p *process) take() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken {
		return false
	}
	p.taken = true
	return true
}

func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = false
}

// originCalls are the RPC methods that the origin offers to one process.
type originCalls struct {
	load    tier.Loader[peertest.Value]
	started func()

	mu    sync.Mutex // guards loads
	loads map[uint64]load
}

// load is a running load, or one whose Cancel has arrived before it.
type load struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// at returns the load with the id, and creates it if necessary.
func (o *originCalls) at(id uint64, until int64) load {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, ok := o.loads[id]
	if !ok {
		if until != 0 {
			l.ctx, l.cancel = context.WithDeadline(context.Background(), time.Unix(0, until))
		} else {
			l.ctx, l.cancel = context.WithCancel(context.Background())
		}
		o.loads[id] = l
	}
	return l
}

// LoadCall is a load for the origin to make.
type LoadCall struct {
	ID    uint64
	Key   string
	Until int64 // the deadline of its context, in unix nanoseconds; 0: none
}

// LoadReply is the result of a load. Failed is the error's text, if any.
type LoadReply struct {
	Value            peertest.Value
	Missing, Crashed bool
	Failed           string
}

// Load answers once the load has ended, even if its context ended before: loads count here until they end.
func (o *originCalls) Load(c LoadCall, r *LoadReply) (_ error) {
	l := o.at(c.ID, c.Until)
	defer func() {
		r.Crashed = recover() != nil
		l.cancel()
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.loads, c.ID)
	}()
	v, err := o.load(l.ctx, &tier.Fill[peertest.Value]{Key: c.Key})
	r.Value, r.Missing, r.Failed = v, errors.Is(err, tier.ErrNotFound), text(err)
	return nil
}

// Cancel ends the context of a load.
func (o *originCalls) Cancel(id uint64, _ *struct{}) error { o.at(id, 0).cancel(); return nil }

// Started tells the origin that the node is about to create its cache.
func (o *originCalls) Started(struct{}, *struct{}) error { o.started(); return nil }

// start starts a process that is down, under its own name or another.
func (l *lab) start(p *process, name string) (err error) {
	p.mu.Lock()
	p.up, p.name = true, name
	p.incarnation++
	incarnation := p.incarnation
	p.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s did not start: %w", name, err)
		}
	}()
	socket := filepath.Join(l.dir, fmt.Sprintf("%d.%d", p.host, incarnation))
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	life, cancel := context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			cancel()
			err = errors.Join(err, listener.Close())
		}
	}()
	s := rpc.NewServer()
	if err := s.RegisterName("Origin", &originCalls{
		load: l.origin.Loader(life, name, incarnation), started: func() { l.history.Started(name, incarnation) }, loads: make(map[uint64]load),
	}); err != nil {
		return err
	}
	go func() { // ends with the process or with end
		if c, err := listener.Accept(); err == nil {
			s.ServeConn(c)
		}
		cancel() // a database drops the queries of a dead client
	}()
	log, err := os.OpenFile(l.logPath(p), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	common, err := json.Marshal(l.world)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("ip", "netns", "exec", p.space, self)
	cmd.Env = append(os.Environ(), nodeName+"="+name, nodeIP+"="+p.ip, nodeSecret+"="+l.secret, nodeOrigin+"="+socket, nodeWorld+"="+string(common))
	cmd.Stderr = log
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	client := rpc.NewClient(standard{out, in})
	p.mu.Lock()
	p.cmd, p.cancel = cmd, func() { cancel(); _ = listener.Close() }
	p.client = client
	p.mu.Unlock()
	if err := client.Call("Node.Status", StatusCall{}, &StatusReply{}); err != nil {
		l.tellLog(p)
		return err
	}
	return nil
}

// kill ends the process abruptly.
func (p *process) kill(cmd *exec.Cmd, _ *rpc.Client) error {
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // reports that it was killed
	return nil
}

// shut makes the process close its node, and returns the error with which it exits.
func (p *process) shut(cmd *exec.Cmd, client *rpc.Client) error {
	_ = client.Close()
	defer time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }).Stop()
	return cmd.Wait()
}

// leave makes the node leave and then close. It may be unable to tell the others.
func (p *process) leave(cmd *exec.Cmd, client *rpc.Client) error {
	if err := client.Call("Node.Leave", 5*time.Second, &struct{}{}); err != nil {
		return err
	}
	return p.shut(cmd, client)
}

// end ends a process if it is up.
func (l *lab) end(p *process, how func(*process, *exec.Cmd, *rpc.Client) error) {
	p.mu.Lock()
	name, cmd, client, cancel := p.name, p.cmd, p.client, p.cancel
	p.cmd, p.client = nil, nil
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := how(p, cmd, client); err != nil {
		l.problem(fmt.Errorf("%s exits with %w", name, err))
	}
	cancel()
	l.history.Gone(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = false
}

// halt stops a process, as a debugger or a frozen machine does. With open, its clients keep calling it.
func (p *process) halt(open bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = !open
	p.pauses = append(p.pauses, [2]time.Time{time.Now()})
	return p.cmd.Process.Signal(syscall.SIGSTOP)
}

func (p *process) resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.cmd.Process.Signal(syscall.SIGCONT)
	p.stopped = false
	p.pauses[len(p.pauses)-1][1] = time.Now()
	return err
}

// callable returns the client of a process that can answer, or nil.
func (p *process) callable() *rpc.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil
	}
	return p.client
}

// stoppedSince returns how long the process has been stopped since the given time.
func (p *process) stoppedSince(from time.Time) (d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range slices.Backward(p.pauses) {
		if s[1].IsZero() {
			s[1] = time.Now()
		}
		if !s[1].After(from) {
			break
		}
		d += s[1].Sub(slices.MaxFunc([]time.Time{s[0], from}, time.Time.Compare))
	}
	return d
}

// call reports whether the process has answered. A process may die only from being killed.
func (l *lab) call(p *process, client *rpc.Client, method string, args, reply any) bool {
	err := client.Call(method, args, reply)
	if err != nil && p.callable() == client {
		l.problem(fmt.Errorf("%s: %s: %w", p.called(), method, err))
	}
	return err == nil
}
