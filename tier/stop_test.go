package tier

import (
	"sync/atomic"
	"time"
)

// stopper is a Config.Now that runs a function in the goroutine that looks at the clock: between two lines of it.
type stopper struct {
	left atomic.Int64 // looks before it runs
	run  func()
}

// at lets run run at the nth look at the clock from now on, once.
func (s *stopper) at(n int64, run func()) {
	s.run = run
	s.left.Store(n)
}

// ran reports whether it has run.
func (s *stopper) ran() bool { return s.left.Load() <= 0 }

func (s *stopper) now() time.Time {
	if s.left.Add(-1) == 0 {
		s.run()
	}
	return time.Now()
}
