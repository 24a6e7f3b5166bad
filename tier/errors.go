package tier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/governor"
)

var (
	// ErrNotFound says that the origin has no value for the key. A loader returns it; it is a fact,
	// cached for Freshness.NegativeTTL.
	ErrNotFound = errors.New("weir: not found")
	// ErrOverloaded says that the governor gave no permit to read the origin and that no copy could
	// be served. errors.As with *OverloadedError tells when to retry.
	ErrOverloaded = errors.New("weir: overloaded")
	// ErrNotCached says that a read with NoFill found no copy that it may use.
	ErrNotCached = errors.New("weir: not cached")
	// ErrIsolated says that this node has lost contact with most members and that, by Config.WhenIsolated, the
	// namespace does not answer then.
	ErrIsolated = errors.New("weir: isolated")
	// ErrClosed says that the cache is closed.
	ErrClosed = errors.New("weir: cache is closed")
	// ErrBadTag says that a tag is empty or too long, or that a value has too many.
	ErrBadTag = errors.New("weir: bad tag")
	// ErrEmptyKey says that a key has no bytes.
	ErrEmptyKey = errors.New("weir: the key is empty")
	// ErrKeyTooLarge says that a key is longer than codec.MaxKey bytes.
	ErrKeyTooLarge = errors.New("weir: the key is too large")
	// ErrValueTooLarge says that an encoded value is longer than Config.ValueLimit.
	ErrValueTooLarge = errors.New("weir: the value is too large")
	// ErrCycle says that a loader asked, directly or through other fills, for the key that it is
	// loading: waiting would never end.
	ErrCycle = errors.New("weir: the fill waits for itself")
	// ErrGoexit says that a loader ended its goroutine with runtime.Goexit.
	ErrGoexit = errors.New("weir: the loader called runtime.Goexit")
	// ErrTTLTooLong says that a loader, or a Put, gave a value a longer TTL than Freshness.MaxTTL.
	ErrTTLTooLong = errors.New("weir: the TTL is beyond the contract")
	// ErrTimeout says that a load took longer than Origin.Timeout. errors.Is(err, context.DeadlineExceeded) also holds
	// for it.
	ErrTimeout = fmt.Errorf("weir: the load timed out: %w", context.DeadlineExceeded)
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

// overloaded makes an *OverloadedError from the governor's refusal.
func overloaded(r *governor.Refusal) *OverloadedError {
	return &OverloadedError{Reason: r.Why.Text(), RetryAfter: r.After, why: r.Why}
}

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

func checkKey(key string) error {
	switch {
	case key == "":
		return ErrEmptyKey
	case len(key) > codec.MaxKey:
		return fmt.Errorf("%w: %d bytes, the limit is %d: hash longer keys first", ErrKeyTooLarge, len(key), codec.MaxKey)
	}
	return nil
}
