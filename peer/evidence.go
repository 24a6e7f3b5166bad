package peer

import (
	"errors"
	"syscall"

	"github.com/weircache/weir/peer/internal/trust"
)

// provesEnd reports whether the error of a connection attempt proves that the process of the dialled incarnation has ended.
func provesEnd(err error) bool {
	var other trust.OtherMemberError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &other)
}
