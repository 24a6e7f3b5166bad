//go:build !linux

package peer

import "time"

// LastAck implements acker: this system is not asked.
func (socketAcks) LastAck() (time.Duration, bool) { return 0, false }
