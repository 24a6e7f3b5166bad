package wire

import (
	"time"

	"golang.org/x/sys/unix"
)

// LastAck implements acker. If everything sent is acknowledged, the time is 0.
func (s socketAcks) LastAck() (ago time.Duration, ok bool) {
	err := s.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if ok = err == nil; ok {
			if info.Unacked > 0 {
				ago = time.Duration(info.Last_ack_recv) * time.Millisecond
			}
		}
	})
	return ago, ok && err == nil
}
