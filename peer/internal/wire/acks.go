package wire

import (
	"net"
	"syscall"
	"time"
)

// An overloaded or stopped peer is as silent as a dead one, but its machine still acknowledges what this node sends. A dead
// or disconnected machine does not, and the connection of a dead process is reset. So while acknowledgements arrive,
// silence does not count (silence.go).

// ackedWithin is how recent an acknowledgement must be. This node pings a silent peer every pingEvery ticks, so each ping
// can bring an acknowledgement. The rule delays giving up a peer that dies by no more than this.
const ackedWithin = 3 * pingEvery * linkTick

// An acker is a connection that knows how long ago the machine at its other end acknowledged something that was sent. The
// time is 0 if everything has been acknowledged; ok is false if it is not known. A connection of a custom Network may have
// this method.
type acker interface {
	LastAck() (ago time.Duration, ok bool)
}

// ackerOf returns the source of acknowledgement times for a connection, or nil if there is none.
func ackerOf(conn net.Conn) acker {
	for {
		switch c := conn.(type) {
		case acker:
			return c
		case interface{ NetConn() net.Conn }: // TLS
			conn = c.NetConn()
		case *net.TCPConn:
			raw, err := c.SyscallConn()
			if err != nil {
				return nil
			}
			return socketAcks{raw}
		default:
			return nil
		}
	}
}

// socketAcks asks the operating system about a socket.
type socketAcks struct{ raw syscall.RawConn }

// acknowledged reports whether the peer's machine has acknowledged something just now.
func (l *link) acknowledged() bool {
	if l.acks == nil {
		return false
	}
	ago, ok := l.acks.LastAck()
	return ok && ago <= ackedWithin
}
