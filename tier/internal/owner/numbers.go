package owner

import (
	"context"
	"errors"

	"github.com/weircache/weir/codec"
)

// numberedErrors gives each error that a fill can end with on another member a number. The number travels with the
// error's text, as the Incarnation of an answer with StatusFailed. The numbers are part of the wire format: a number
// is never reused for another error, and a member that does not know a number has the text alone.
var numberedErrors = [...]error{
	1: ErrNotFound, 2: ErrOverloaded, 3: ErrNotCached, 4: ErrIsolated, 5: ErrClosed, 6: ErrBadTag, 7: ErrEmptyKey, 8: ErrKeyTooLarge,
	9: ErrValueTooLarge, 10: ErrCycle, 11: ErrGoexit, 13: ErrTimeout, 14: ErrExpired, 15: ErrUnset, 16: ErrBadToken,
	17: ErrDrilling, 18: ErrFeedGap, 19: ErrNoVersion, 20: ErrNotWarmed, 21: context.DeadlineExceeded, 22: context.Canceled, 23: ErrTTLTooLong,
}

// numbersOf returns the numbers of the errors that err is, a byte each, up to eight.
func numbersOf(err error) (numbers uint64) {
	n := 0
	for i, e := range numberedErrors {
		if e != nil && errors.Is(err, e) && n < 8 {
			numbers |= uint64(i) << (8 * n)
			n++
		}
	}
	return numbers
}

// RemoteError carries the text of an error that happened on another member.
type RemoteError string

func (e RemoteError) Error() string { return string(e) }

// numberedError is a RemoteError that also matches errors of this package.
type numberedError struct {
	RemoteError
	numbers uint64
}

// Is reports whether the error matched target on the member where it happened.
func (e numberedError) Is(target error) bool {
	for n := e.numbers; n != 0; n >>= 8 {
		if i := n & 0xff; i < uint64(len(numberedErrors)) && numberedErrors[i] != nil && target == numberedErrors[i] {
			return true
		}
	}
	return false
}

// ErrorOf returns the error that an answer with StatusFailed describes.
func ErrorOf(r *codec.Response) error {
	if r.Incarnation == 0 {
		return RemoteError(r.Text)
	}
	return numberedError{RemoteError(r.Text), r.Incarnation}
}
