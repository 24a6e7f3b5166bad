//go:build !linux

package wire

import "time"

// LastAck implements acker. On this system the time is never known.
func (socketAcks) LastAck() (time.Duration, bool) { return 0, false }
