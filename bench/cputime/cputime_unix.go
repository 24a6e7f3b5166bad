//go:build unix

package cputime

import (
	"syscall"
	"time"
)

// Used returns the CPU time that this process has used in user and kernel mode; 0 if the system does not report it.
func Used() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(syscall.TimevalToNsec(u.Utime) + syscall.TimevalToNsec(u.Stime))
}
