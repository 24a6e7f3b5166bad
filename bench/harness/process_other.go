//go:build !unix

package harness

import (
	"os"
	"os/exec"
)

// apart does nothing here: a Ctrl-C reaches the nodes as well.
func apart(*exec.Cmd) {}

// stand is not supported on this system.
func stand(*os.Process, bool) error { return ErrCannot }
