package peer

import (
	"errors"
	"syscall"
)

// otherMemberError says that another member answers at a member's address.
type otherMemberError struct{ error }

func (e otherMemberError) Unwrap() error { return e.error }

// provesEnd reports whether the error of a connection attempt proves that the process of the dialled incarnation has ended.
func provesEnd(err error) bool {
	var other otherMemberError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &other)
}
