package peertest

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/simtime"
)

// Bubble runs f with virtual time. Bubbles of one process cannot run in parallel. After f, Bubble lets some virtual time
// pass, because memberlist's last probes end only after its Shutdown. It fails the test if goroutines are left: G11.
func Bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	simtime.Test(t, func(t *testing.T) {
		defer func() {
			sleep(context.Background(), 2*time.Minute)
			if left := Leaked(); len(left) > 0 {
				t.Errorf("G11 is broken: %d goroutines are left, the first is\n%s", len(left), left[0])
			}
		}()
		f(t)
	})
}

// Leaked returns the stacks of the goroutines of the caller's bubble other than the caller's own. It counts goroutines that
// wait for a timer as well, so call it some time after the last node has gone.
func Leaked() (left []string) {
	own, _, _ := strings.Cut(stacks(false), "\n")
	_, bubble, ok := strings.Cut(own, "synctest bubble ")
	if !ok {
		return nil
	}
	bubble = "synctest bubble " + strings.TrimRight(bubble, "]:")
	synctest.Wait() // lets goroutines that are about to end do so
	for _, stack := range strings.Split(stacks(true), "\n\n")[1:] {
		head, body, _ := strings.Cut(stack, "\n")
		mine := strings.Contains(head, bubble+"]") || strings.Contains(head, bubble+",")
		if mine && !strings.Contains(body, "internal/synctest.Run(") && !strings.Contains(body, "testingSynctestTest(") {
			left = append(left, stack)
		}
	}
	return left
}

// stacks returns the stack of the caller's goroutine, or with all the stacks of all goroutines, the caller's first.
func stacks(all bool) string {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, all); n < size {
			return string(buf[:n])
		}
	}
}
