//go:build !unix

package harness

import (
	"os"
	"os/exec"
)

// apart does nothing here: a Ctrl-C reaches the nodes too.
func apart(*exec.Cmd) {}

// stand cannot be done on this system.
func stand(*os.Process, bool) error { return ErrCannot }
