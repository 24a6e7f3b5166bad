//go:build !unix

package bench

import (
	"errors"
	"os"
	"os/exec"
)

// setApart does nothing here: a Ctrl-C reaches the children as well.
func setApart(*exec.Cmd) {}

func pause(*os.Process) error  { return errors.ErrUnsupported }
func resume(*os.Process) error { return errors.ErrUnsupported }
