//go:build unix

package bench

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestStall stalls a process, one that is gone and this one.
func TestStall(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	const long = 300 * time.Millisecond
	began := time.Now()
	if err := Stall(long, gone.Process.Pid, cmd.Process.Pid, os.Getpid()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < long {
		t.Errorf("it took %v, less than %v", took, long)
	}
	// The system reports only a process that was stopped as continued.
	var s syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &s, syscall.WCONTINUED|syscall.WNOHANG, nil); err != nil || !s.Continued() {
		t.Errorf("the process was not stopped and continued: %x, %v", s, err)
	}
}
