package harness

import (
	"syscall"
	"time"
)

// nap sleeps in the kernel, with a precision of about 60 microseconds. It occupies a thread.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal ends it early, and the caller checks the clock again
}
