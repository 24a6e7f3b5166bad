package tier

import (
	"syscall"
	"unsafe"
)

// Of the system's clocks, CLOCK_MONOTONIC stands still while the machine is suspended, and CLOCK_BOOTTIME does not.
const (
	clockMonotonic = 1
	clockBoottime  = 7
)

// suspended returns for how long the machine was suspended since it was started, in ns.
func suspended() (int64, bool) {
	before, ok := readSystemClock(clockMonotonic)
	if !ok {
		return 0, false
	}
	boot, ok := readSystemClock(clockBoottime)
	return boot - before, ok
}

func readSystemClock(id uintptr) (int64, bool) {
	var t syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0, false
	}
	return t.Nano(), true
}
