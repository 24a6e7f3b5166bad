package tier

import (
	"github.com/weircache/weir/tier/internal/owner"
)

// Retryable marks a loader's error as one that may be gone at the next attempt. The fill is tried again within the
// limits of Origin.Retry. It returns nil for nil. The mark does not change the text, and errors.Is and errors.As see
// through it.
func Retryable(err error) error {
	if err == nil {
		return nil
	}
	return owner.Retryable(err)
}

// Blameless marks a loader's error as the key's own fault, such as a malformed key. It says nothing against the
// origin, so the breaker does not count it as a failure. Otherwise a caller that asks for bad keys could have the
// origin shut off for everybody. It returns nil for nil. The mark does not change the text, and errors.Is and
// errors.As see through it.
func Blameless(err error) error {
	if err == nil {
		return nil
	}
	return owner.Blameless(err)
}
