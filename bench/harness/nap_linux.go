package harness

import (
	"syscall"
	"time"
)

// nap sleeps in the kernel, precise to about 60 microseconds. It holds a thread.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal ends it early, and the caller looks at the clock again
}
