//go:build !unix

package wire

import "syscall"

// canTryWrite reports whether this system can write to a socket without blocking.
const canTryWrite = false

type tryWrite struct{}

func (*tryWrite) init() {}

func (*tryWrite) write(syscall.RawConn, []byte) (int, error) { return 0, nil }
