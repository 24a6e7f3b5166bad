//go:build !unix

package bench

import (
	"errors"
	"time"
)

// Stall is not available here.
func Stall(time.Duration, ...int) error { return errors.ErrUnsupported }
