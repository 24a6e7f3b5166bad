//go:build linux

package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/weircache/weir/tier"
)

// identities returns the errors that a node reports by name.
func identities() map[string]error {
	return map[string]error{
		"not found": tier.ErrNotFound, "overloaded": tier.ErrOverloaded, "isolated": tier.ErrIsolated, "closed": tier.ErrClosed,
		"cycle": tier.ErrCycle, "not cached": tier.ErrNotCached, "timeout": tier.ErrTimeout, "canceled": context.Canceled,
		"deadline": context.DeadlineExceeded,
	}
}

// Failure is an error in transit between processes. The zero value means no error.
type Failure struct {
	Text  string
	Kinds []string // the identities that it has
	Fill  bool     // a *tier.FillError
	// Invalidate says that it is a *tier.InvalidateError with the following contents.
	Invalidate bool
	Unreached  []string
	CleanBy    time.Time
}

func failureOf(err error) (f Failure) {
	if err == nil {
		return f
	}
	all := identities()
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		if errors.Is(err, all[kind]) {
			f.Kinds = append(f.Kinds, kind)
		}
	}
	var fill *tier.FillError
	var invalidate *tier.InvalidateError
	f.Text, f.Fill = err.Error(), errors.As(err, &fill)
	if f.Invalidate = errors.As(err, &invalidate); f.Invalidate {
		f.Unreached, f.CleanBy = invalidate.Unreached, invalidate.CleanBy
	}
	return f
}

// err returns the original error with its identities.
func (f Failure) err() error {
	switch {
	case f.Text == "":
		return nil
	case f.Invalidate:
		return &tier.InvalidateError{Unreached: f.Unreached, CleanBy: f.CleanBy}
	case f.Fill:
		return &tier.FillError{Namespace: namespace, Err: remoteError{f}}
	}
	return remoteError{f}
}

// remoteError is a Failure of another process.
type remoteError struct{ f Failure }

// Error implements error.
func (e remoteError) Error() string { return e.f.Text }

// Is reports whether the error had that identity.
func (e remoteError) Is(target error) bool {
	all := identities()
	return slices.ContainsFunc(e.f.Kinds, func(kind string) bool { return all[kind] == target })
}
