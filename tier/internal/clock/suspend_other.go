//go:build !linux

package clock

// Suspended returns how long the machine was suspended since it was started, which is unknown here.
func Suspended() (int64, bool) { return 0, false }
