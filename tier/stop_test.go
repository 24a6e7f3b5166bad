package tier

import (
	"sync/atomic"
	"time"
)

// stopper is a Config.Now that runs a function in the goroutine that reads the clock, between two lines of its code.
type stopper struct {
	left atomic.Int64 // readings before it runs
	run  func()
}

// at makes the nth reading of the clock from now on call run, once.
func (s *stopper) at(n int64, run func()) {
	s.run = run
	s.left.Store(n)
}

// ran reports whether run was called.
func (s *stopper) ran() bool { return s.left.Load() <= 0 }

func (s *stopper) now() time.Time {
	if s.left.Add(-1) == 0 {
		s.run()
	}
	return time.Now()
}
