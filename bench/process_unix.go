//go:build unix

package bench

import (
	"os"
	"os/exec"
	"syscall"
)

// setApart keeps a Ctrl-C on the terminal from reaching a child, because the parent ends it.
func setApart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func pause(p *os.Process) error  { return p.Signal(syscall.SIGSTOP) }
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
