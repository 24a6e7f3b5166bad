package peer

import (
	"net"
	"syscall"
	"time"
)

// A peer that is overloaded, or stopped, is silent as a dead one is. But its machine still acknowledges what this node sends:
// a dead machine and one that is cut off do not, and the connection of a dead process is reset. So while there are
// acknowledgements, silence does not count (hearing.go).

// ackedWithin is how recent an acknowledgement must be. A silent peer is sent a ping every pingEvery ticks, so there is one for each
// of them; a peer that dies is given up later by no more than this.
const ackedWithin = 3 * pingEvery * linkTick

// An acker is a connection that tells how long ago the machine at its other end acknowledged something that was sent, 0 if it has
// acknowledged everything; false: it is not known. A connection of a Network of one's own may have this method.
type acker interface {
	LastAck() (ago time.Duration, ok bool)
}

// ackerOf returns what tells of acknowledgements on a connection. nil: nothing does.
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

// socketAcks asks the system about a socket.
type socketAcks struct{ raw syscall.RawConn }

// acknowledged reports whether the peer's machine has acknowledged something just now.
func (l *link) acknowledged() bool {
	if l.acks == nil {
		return false
	}
	ago, ok := l.acks.LastAck()
	return ok && ago <= ackedWithin
}
