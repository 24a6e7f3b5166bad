//go:build !linux

package harness

import "time"

// nap sleeps, as precisely as Go's timers do.
func nap(d time.Duration) { time.Sleep(d) }
