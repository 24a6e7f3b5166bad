package bench

import (
	"bufio"
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

// readyWithin is how long a process may take to become ready.
const readyWithin = 20 * time.Second

// A Role is the behaviour of this binary as the other process. It starts, and returns a line of words for the
// parent (usually addresses) and a stop function to call at the end.
type Role func() (line string, stop func(), err error)

// Play makes this process a child if it was started as one. It plays the role until standard input ends, which
// happens when the parent stops it or dies, and returns true. Call it first in main, and return from main after it;
// err is the child's error.
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
	if _, err := fmt.Println(line); err != nil {
		return true, err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return true, err
}

// A Process is a process that this one started. Stop ends it. Not safe for concurrent use.
type Process struct {
	// Words are what a Child printed when it was ready.
	Words []string

	cmd  *exec.Cmd
	in   io.Closer
	done chan struct{} // closed once err is set
	err  error
}

// Done returns a channel that is closed when the process has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// Child starts this binary again in the role, and waits until it is ready.
func Child(role string) (*Process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
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
	if err := r.SetReadDeadline(time.Now().Add(readyWithin)); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bench: the process for %q was not ready: %w", role, err), p.Stop())
	}
	p.Words = strings.Fields(line)
	return p, nil
}

// Command starts another program. Stop kills it, because it does not follow the protocol of a Child.
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

// Stop ends the process and waits until it is gone. A Child gets five seconds to end by itself, and Stop returns
// its error. A second Stop does nothing.
func (p *Process) Stop() error {
	if p.cmd == nil {
		return nil
	}
	defer func() { p.cmd = nil }()
	if p.in == nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		return nil
	}
	_ = p.in.Close()
	late := time.NewTimer(5 * time.Second)
	defer late.Stop()
	select {
	case <-p.done:
		return p.err
	case <-late.C:
		_ = p.cmd.Process.Kill()
		<-p.done
		return errors.Join(errors.New("bench: the other process did not end when told, and was killed"), p.err)
	}
}
