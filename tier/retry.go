package tier

import (
	"context"
	"errors"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
)

// Retryable marks a loader's error as one that may be gone at the next attempt. The fill is tried again within the
// limits of Origin.Retry. It returns nil for nil. The mark does not change the text, and errors.Is and errors.As see
// through it.
func Retryable(err error) error {
	if err == nil {
		return nil
	}
	return &marked{err, markRetry}
}

// Blameless marks a loader's error as the key's own fault, such as a malformed key. It says nothing against the
// origin, so the breaker does not count it as a failure. Otherwise a caller that asks for bad keys could have the
// origin shut off for everybody. It returns nil for nil. The mark does not change the text, and errors.Is and
// errors.As see through it.
func Blameless(err error) error {
	if err == nil {
		return nil
	}
	return &marked{err, markBlameless}
}

type errorMark uint8

const (
	markRetry errorMark = iota
	markBlameless
)

type marked struct {
	err  error
	mark errorMark
}

func (e *marked) Error() string { return e.err.Error() }
func (e *marked) Unwrap() error { return e.err }

// hasMark reports whether a mark is anywhere in err.
func hasMark(err error, m errorMark) bool {
	for {
		var e *marked
		if !errors.As(err, &e) {
			return false
		}
		if e.mark == m {
			return true
		}
		err = e.err
	}
}

// outcomeOf returns what a load that ended with err says about the origin.
func outcomeOf(err error) governor.Outcome {
	switch {
	case err == nil, errors.Is(err, ErrNotFound), hasMark(err, markBlameless), errors.Is(err, errNoPrevious):
		return governor.OK
	case errors.Is(err, ErrClosed), errors.Is(err, ErrCycle), errors.Is(err, ErrOverloaded):
		return governor.Void // another cache that the loader reads rejected the load
	}
	var nested *FillError
	if errors.As(err, &nested) {
		return governor.Void // another fill that the loader reads failed: it was counted where it ran
	}
	return governor.Failed
}

// backoff returns how long the nth retry (from 0) waits, with random in [0, 1): full jitter, as in "Exponential Backoff
// And Jitter" (AWS Architecture Blog, 2015).
func (r Retry) backoff(n int, random float64) time.Duration {
	return time.Duration(random * float64(min(r.Backoff<<min(n, 20), time.Hour)))
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
