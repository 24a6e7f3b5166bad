//go:build unix

package harness

import (
	"os"
	"os/exec"
	"syscall"
)

// apart keeps a Ctrl-C on the terminal from reaching the nodes, because the parent ends them.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// stand stops a process or continues it.
func stand(p *os.Process, still bool) error {
	if still {
		return p.Signal(syscall.SIGSTOP)
	}
	return p.Signal(syscall.SIGCONT)
}
