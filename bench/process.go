package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// roleVariable is the environment variable that names the role of a Child.
const roleVariable = "WEIR_BENCH_ROLE"

const (
	readyWithin = 20 * time.Second // for a Child to become ready
	stopWithin  = 5 * time.Second  // for a child to end after Stop
)

// A Role is the behaviour of this binary as the other process. It starts, and returns a line of words for the
// parent (usually addresses) and a stop function to call at the end.
type Role func() (line string, stop func(), err error)

// Play makes this process a child if it was started as one. It plays the role until the parent stops it or dies, and
// returns true. Call it first in main, and return from main after it; err is the child's error.
func Play(roles map[string]Role) (played bool, err error) {
	name, ok := os.LookupEnv(roleVariable)
	if !ok {
		return false, nil
	}
	role := roles[name]
	if role == nil {
		return true, fmt.Errorf("bench: no role %q", name)
	}
	line, stop, err := role()
	if err != nil {
		return true, err
	}
	if stop != nil {
		defer stop()
	}
	return true, Obey(os.Stdin, os.Stdout, line)
}

// Obey is a child's side of StartChild: it tells the parent that the child is ready, with a line of words, and
// returns when in ends, which happens when the parent stops the child or dies.
func Obey(in io.Reader, out io.Writer, line string) error {
	if _, err := fmt.Fprintln(out, strings.TrimSpace(line)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// A Process is a process that this one started. Stop, End or Kill releases it. Safe for concurrent use.
type Process struct {
	// Words are what a child printed when it was ready.
	Words []string

	cmd  *exec.Cmd
	in   io.Closer     // of a child; nil: of another program
	done chan struct{} // closed once err is set
	err  error
}

// Child starts this binary again in the role, and waits until it is ready.
func Child(role string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	p, err := StartChild(ctx, cmd, nil)
	if err != nil {
		return nil, fmt.Errorf("bench: the process for %q: %w", role, err)
	}
	return p, nil
}

// StartChild starts a program that obeys (see Obey), writes input to it, and waits until it is ready. ctx bounds
// only this.
func StartChild(ctx context.Context, cmd *exec.Cmd, input []byte) (*Process, error) {
	cmd.Stderr = os.Stderr
	setApart(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Not StdoutPipe: its reader must finish before Wait.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	defer func() { _ = r.Close() }()
	cmd.Stdout = w
	p, err := start(cmd, in)
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	inTime := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // ends the write and the read
	if _, err = in.Write(input); err == nil {
		var line string
		line, err = bufio.NewReader(r).ReadString('\n')
		p.Words = strings.Fields(line)
	}
	if !inTime() {
		err = ctx.Err()
	}
	if err != nil {
		p.Kill()
		return nil, errors.Join(fmt.Errorf("it was not ready: %w", err), p.err)
	}
	return p, nil
}

// Command starts another program. Stop kills it, because it does not obey.
func Command(name string, args ...string) (*Process, error) {
	return start(exec.Command(name, args...), nil)
}

func start(cmd *exec.Cmd, in io.Closer) (*Process, error) {
	if err := cmd.Start(); err != nil {
		if in != nil {
			_ = in.Close()
		}
		return nil, err
	}
	p := &Process{cmd: cmd, in: in, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// ID returns the process's number on this machine.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// State describes how the process has ended, such as "exit status 1". Call it once Done is closed.
func (p *Process) State() string { return p.cmd.ProcessState.String() }

// Pause makes the process stand still until Resume. The error is errors.ErrUnsupported where the system cannot do it.
func (p *Process) Pause() error { return pause(p.cmd.Process) }

// Resume makes the process run again.
func (p *Process) Resume() error { return resume(p.cmd.Process) }

// Kill ends the process at once and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // an error says that it has ended
	<-p.done
	if p.in != nil {
		_ = p.in.Close()
	}
}

// End tells a child to end and waits until it is gone, with whatever exit code. A child that takes longer than ctx is
// killed, which is the error. Another program is killed.
func (p *Process) End(ctx context.Context) error {
	if p.in == nil {
		p.Kill()
		return nil
	}
	_ = p.in.Close()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return errors.New("bench: the process did not end when told to, and was killed")
	}
}

// Stop ends the process and waits until it is gone. A child gets five seconds, and Stop returns its error. A second
// Stop returns the same error.
func (p *Process) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	err := p.End(ctx)
	if p.in != nil {
		err = errors.Join(err, p.err)
	}
	return err
}
