package clock

import (
	"syscall"
	"unsafe"
)

// Of the system's clocks, CLOCK_MONOTONIC stands still while the machine is suspended, and CLOCK_BOOTTIME does not.
const (
	clockMonotonic = 1
	clockBoottime  = 7
)

// Suspended returns how long the machine was suspended since it was started, in ns, to a tenth of SleptLeast. Between
// two readings the thread may have to wait for a processor. Suspended then reads again, and returns false if that
// does not help.
func Suspended() (int64, bool) {
	for range 5 {
		before, ok1 := readSystemClock(clockMonotonic)
		boot, ok2 := readSystemClock(clockBoottime)
		after, ok3 := readSystemClock(clockMonotonic)
		if !ok1 || !ok2 || !ok3 {
			return 0, false
		}
		if after-before <= SleptLeast/10 {
			return boot - before, true
		}
	}
	return 0, false
}

func readSystemClock(id uintptr) (int64, bool) {
	var t syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0, false
	}
	return t.Nano(), true
}
