package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// build compiles the demonstration, which starts its nodes from its own executable.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "catalogue")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// TestDemo runs the whole demonstration in a shortened form. It exits with 0 only if every claim held.
func TestDemo(t *testing.T) {
	out, err := exec.Command(build(t), "-quick", "-products", "5000", "-rate", "300").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "  ok  "); n != 7 {
		t.Errorf("%d claims held, want 7:\n%s", n, out)
	}
	for _, want := range []string{"600 callers, 1 origin call,", "0 old answers", "6. Summary"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, _, err = addresses(port + ",1,1,1,1,1")
	if err == nil || !strings.Contains(err.Error(), port) || !strings.Contains(err.Error(), "-ports") {
		t.Errorf("error %v names neither the port nor the way out", err)
	}
}

// TestInterrupt stops the demonstration midway. It must end soon and leave nothing behind.
func TestInterrupt(t *testing.T) {
	tmp := t.TempDir()
	cmd := exec.Command(build(t), "-quick", "-products", "2000")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf, seen := make([]byte, 4096), ""
	for !strings.Contains(seen, "1. Cold start") {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, seen)
		}
		seen += string(buf[:n])
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := out.Read(buf); err != nil {
				done <- cmd.Wait()
				return
			}
		}
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("exit code 0 after an interrupt")
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatal("still running 30 s after an interrupt")
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
