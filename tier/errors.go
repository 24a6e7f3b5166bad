package tier

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
)

var (
	// ErrNotFound says that the origin has no value for the key. A loader returns it; it is a fact,
	// cached for Freshness.NegativeTTL.
	ErrNotFound = owner.ErrNotFound
	// ErrOverloaded says that the governor gave no permit to read the origin and that no copy could
	// be served. errors.As with *OverloadedError tells when to retry.
	ErrOverloaded = owner.ErrOverloaded
	// ErrNotCached says that a read with NoFill found no copy that it may use.
	ErrNotCached = owner.ErrNotCached
	// ErrIsolated says that this node has lost contact with most members and that, by Config.WhenIsolated, the
	// namespace does not answer then.
	ErrIsolated = owner.ErrIsolated
	// ErrClosed says that the cache is closed.
	ErrClosed = owner.ErrClosed
	// ErrBadTag says that a tag is empty or too long, or that a value has too many.
	ErrBadTag = owner.ErrBadTag
	// ErrEmptyKey says that a key has no bytes.
	ErrEmptyKey = owner.ErrEmptyKey
	// ErrKeyTooLarge says that a key is longer than codec.MaxKey bytes.
	ErrKeyTooLarge = owner.ErrKeyTooLarge
	// ErrValueTooLarge says that an encoded value is longer than Config.ValueLimit.
	ErrValueTooLarge = owner.ErrValueTooLarge
	// ErrCycle says that a loader asked, directly or through other fills, for the key that it is
	// loading: waiting would never end.
	ErrCycle = owner.ErrCycle
	// ErrGoexit says that a loader ended its goroutine with runtime.Goexit.
	ErrGoexit = owner.ErrGoexit
	// ErrTTLTooLong says that a loader, or a Put, gave a value a longer TTL than Freshness.MaxTTL.
	ErrTTLTooLong = owner.ErrTTLTooLong
	// ErrTimeout says that a load took longer than Origin.Timeout. errors.Is(err, context.DeadlineExceeded) also holds
	// for it.
	ErrTimeout = owner.ErrTimeout
)

// FillError says that a fill failed, where, and why. Unwrap returns the reason: the loader's error, a *PanicError,
// ErrGoexit, ErrTimeout, ErrValueTooLarge or the codec's error. If the fill failed on another member, the reason has
// the text of the error there, and errors.Is recognizes only this package's errors, context.DeadlineExceeded and
// context.Canceled in it.
type FillError struct {
	Namespace string
	Key       string
	Owner     string // the member that ran the fill; empty without a cluster
	Err       error
}

func (e *FillError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("weir: fill of %s %q: %v", e.Namespace, e.Key, e.Err)
	}
	return fmt.Sprintf("weir: fill of %s %q at %s: %v", e.Namespace, e.Key, e.Owner, e.Err)
}

// Unwrap returns Err.
func (e *FillError) Unwrap() error { return e.Err }

// PanicError is a loader's panic, as every waiting caller gets it.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // where the loader panicked
}

func (e *PanicError) Error() string { return fmt.Sprintf("the loader panicked: %v", e.Value) }

// Unwrap returns Value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// OverloadedError is the ErrOverloaded that a Get returns.
type OverloadedError struct {
	Reason     string        // for people: what was short, and on which member unless it is this one
	RetryAfter time.Duration // an estimate of when a permit is likely

	why governor.Reason
}

func (e *OverloadedError) Error() string {
	return fmt.Sprintf("%v: %s; retry after %v", ErrOverloaded, e.Reason, e.RetryAfter)
}

// Is reports whether target is ErrOverloaded.
func (e *OverloadedError) Is(target error) bool { return target == ErrOverloaded }

// InvalidateError says which members did not confirm an invalidation.
type InvalidateError struct {
	Namespace string
	Unreached []string // the members' names, sorted
	// CleanBy is when the last copy that they may still hold passes its hard expiry. It assumes the longest life of a
	// copy that the contract allows or that any member has reported. It is exact with Freshness.MaxTTL, or if no value
	// is given a TTL of its own. Otherwise a member that was cut off before it could report may hold a value for
	// longer.
	CleanBy time.Time
	Err     error // why, joined
}

func (e *InvalidateError) Error() string {
	return fmt.Sprintf("weir: invalidation in %s did not reach %s (their copies are gone by %s): %v",
		e.Namespace, strings.Join(e.Unreached, ", "), e.CleanBy.Format(time.RFC3339Nano), e.Err)
}

// Unwrap returns Err.
func (e *InvalidateError) Unwrap() error { return e.Err }

// typed makes and recognizes the errors that have fields, for the owner of a key.
type typed struct{ namespace string }

func (t typed) Failed(key, owner string, err error) error {
	return &FillError{Namespace: t.namespace, Key: key, Owner: owner, Err: err}
}

func (typed) AsFailed(err error) (owner string, reason error, ok bool) {
	if e, ok := errors.AsType[*FillError](err); ok {
		return e.Owner, e.Err, true
	}
	return "", nil, false
}

func (typed) Panicked(value any, stack []byte) error { return &PanicError{Value: value, Stack: stack} }

func (typed) Refused(r *governor.Refusal) error {
	return &OverloadedError{Reason: r.Why.Text(), RetryAfter: r.After, why: r.Why}
}

func (typed) AsRefused(err error) (r owner.Refusal, ok bool) {
	if e, ok := errors.AsType[*OverloadedError](err); ok {
		return owner.Refusal{Why: e.why, Text: e.Reason, RetryAfter: e.RetryAfter, Bare: err == error(e)}, true
	}
	return owner.Refusal{}, false
}

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
