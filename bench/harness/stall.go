package harness

import (
	"errors"
	"math"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench"
)

// Housed is a Cluster with processes of its own on this machine, such as a node in a process or a server. When the
// machine stalls, they stall with it.
type Housed interface {
	// Processes returns the IDs of the processes that run.
	Processes() []int
}

// stall stops this process and those of the cluster at once, and continues them after the given time.
func (d *driver) stall(long time.Duration) error {
	pids := []int{}
	if h, ok := d.cluster.(Housed); ok {
		pids = h.Processes()
	}
	d.rec.stalls.begin(d.clock.now())
	err := bench.Stall(long, append(pids, os.Getpid())...)
	d.rec.stalls.end(d.clock.now())
	if errors.Is(err, errors.ErrUnsupported) {
		return ErrCannot
	}
	return err
}

// stalls are the times at which the whole machine stood still. One goroutine adds them; has is safe for concurrent use.
type stalls struct{ spans atomic.Pointer[[]span] }

type span struct{ from, to time.Duration }

// begin records the start of a stall, before anything stops.
func (s *stalls) begin(at time.Duration) {
	var spans []span
	if p := s.spans.Load(); p != nil {
		spans = slices.Clone(*p)
	}
	spans = append(spans, span{at, math.MaxInt64})
	s.spans.Store(&spans)
}

// end records the end of the last stall.
func (s *stalls) end(at time.Duration) {
	spans := slices.Clone(*s.spans.Load())
	spans[len(spans)-1].to = at
	s.spans.Store(&spans)
}

// has reports whether a time is within a stall. The harness is late with requests that are due then, but is not the
// cause.
func (s *stalls) has(at time.Duration) bool {
	p := s.spans.Load()
	return p != nil && slices.ContainsFunc(*p, func(x span) bool { return at >= x.from && at <= x.to })
}
