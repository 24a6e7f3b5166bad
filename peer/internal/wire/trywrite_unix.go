//go:build unix

package wire

import "syscall"

// canTryWrite reports whether this system can write to a socket without blocking.
const canTryWrite = true

// tryWrite writes what a socket accepts at once. It is not safe for concurrent use.
type tryWrite struct {
	p   []byte
	n   int
	err error
	do  func(fd uintptr) bool
}

// init creates the function once, so that writes do not allocate it.
func (t *tryWrite) init() {
	t.do = func(fd uintptr) bool {
		for {
			t.n, t.err = syscall.Write(int(fd), t.p)
			if t.err != syscall.EINTR {
				return true // whatever the result: never wait for the socket
			}
		}
	}
}

func (t *tryWrite) write(raw syscall.RawConn, p []byte) (int, error) {
	t.p = p
	err := raw.Write(t.do)
	t.p = nil
	switch {
	case err != nil:
		return 0, err
	case t.err == syscall.EAGAIN:
		return 0, nil
	case t.err != nil:
		return 0, t.err
	}
	return t.n, nil
}
