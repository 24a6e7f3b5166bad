package owner

import (
	"context"
	"errors"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/store"
)

type errorMark uint8

const (
	markRetry errorMark = iota
	markBlameless
)

// Retryable marks err as one that may be gone at the next attempt.
func Retryable(err error) error { return &marked{err, markRetry} }

// Blameless marks err as one that says nothing against the origin.
func Blameless(err error) error { return &marked{err, markBlameless} }

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
func (c *Owner) outcomeOf(err error) governor.Outcome {
	switch {
	case err == nil, errors.Is(err, ErrNotFound), hasMark(err, markBlameless), errors.Is(err, ErrNoPrevious):
		return governor.OK
	case errors.Is(err, ErrClosed), errors.Is(err, ErrCycle), errors.Is(err, ErrOverloaded):
		return governor.Void // another cache that the loader reads rejected the load
	}
	if _, _, nested := c.Config.Errors.AsFailed(err); nested {
		return governor.Void // another fill that the loader reads failed: it was counted where it ran
	}
	return governor.Failed
}

// backoff returns how long the nth retry (from 0) waits, with random in [0, 1): full jitter, as in "Exponential Backoff
// And Jitter" (AWS Architecture Blog, 2015).
func (r RetryRules) backoff(n int, random float64) time.Duration {
	return time.Duration(random * float64(min(r.Backoff<<min(n, 20), time.Hour)))
}

// Sleep waits for d or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// whyOf returns why a stale copy is served instead of err.
func whyOf(err error) store.StaleReason {
	if errors.Is(err, ErrOverloaded) {
		return store.StaleShed
	}
	return store.StaleError
}
