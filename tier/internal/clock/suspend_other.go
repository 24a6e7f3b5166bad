//go:build !linux

package clock

// Suspended returns for how long the machine was suspended since it was started: not known here.
func Suspended() (int64, bool) { return 0, false }
