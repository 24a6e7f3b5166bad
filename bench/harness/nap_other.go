//go:build !linux

package harness

import "time"

// nap sleeps with the precision of Go's timers.
func nap(d time.Duration) { time.Sleep(d) }
