//go:build unix

package bench

import (
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// stallScript stops the processes $2, $3 and so on, and continues them after $1 seconds. A process that is gone does not
// keep the others from being stopped and continued.
const stallScript = `t=$1; shift
for p; do kill -STOP "$p"; done 2>/dev/null
sleep "$t"
for p; do kill -CONT "$p"; done 2>/dev/null
:`

// Stall stops the processes for a time, as the pause of a virtual machine stops all that runs on it. Processes that have
// ended are ignored. This process can be among them: another process continues it. Stall returns when they run again.
// The error is errors.ErrUnsupported where the system cannot do it.
//
// A shell with job control reports a program that stalls itself as stopped, and continues it in the background.
func Stall(d time.Duration, pids ...int) error {
	args := []string{"-c", stallScript, "sh", strconv.FormatFloat(d.Seconds(), 'f', 3, 64)}
	for _, p := range pids {
		args = append(args, strconv.Itoa(p))
	}
	cmd := exec.Command("sh", args...)
	setApart(cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("bench: the processes cannot be stalled: %w", err)
	}
	return nil
}
