package tier

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/governor"
)

// A SharedOrigin is an origin that several caches of a process read, with one governor for all of them. They share
// its Concurrency, Rate, queue, breaker and retry budget. Give the same one to each as Config.SharedOrigin. All
// members create it with the same settings. It does not need to be closed and is safe for concurrent use.
type SharedOrigin struct {
	name string
	o    Origin // with the defaults filled in
	gov  *governor.Governor

	mu      sync.Mutex // guards the rest
	cluster Cluster    // of the attached caches
	caches  int
}

// NewSharedOrigin makes an origin for several caches. Messages and statistics use the name. The error names every
// field that is wrong.
func NewSharedOrigin(name string, o Origin) (*SharedOrigin, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("weir: origin %q: %w", name, err)
	}
	return newSharedOrigin(name, o, nil), nil
}

func newSharedOrigin(name string, o Origin, now func() time.Time) *SharedOrigin {
	s := &SharedOrigin{name: name, o: o.withDefaults()}
	c := clock.New(now)
	s.gov = governor.New(s.o.limits(), c.Now, s.share)
	return s
}

// Name returns the name given to NewSharedOrigin.
func (s *SharedOrigin) Name() string { return s.name }

// Stats returns the state of the governor, which covers all caches together.
func (s *SharedOrigin) Stats() GovernorStats { return GovernorStats(s.gov.Snapshot()) }

var errTwoClusters = errors.New("SharedOrigin is in use by a cache with another Cluster: caches that share an origin share the Cluster that its limits are divided in")

// attach counts one more cache.
func (s *SharedOrigin) attach(c Cluster) error {
	s.mu.Lock()
	if s.caches > 0 && s.cluster != c {
		s.mu.Unlock()
		return errTwoClusters
	}
	s.cluster = c
	s.caches++
	s.mu.Unlock()
	s.gov.Open()
	return nil
}

// detach removes one cache from the count. The last one waits for the governor's timer.
func (s *SharedOrigin) detach() {
	s.mu.Lock()
	s.caches--
	s.mu.Unlock()
	s.gov.Close()
}

// share returns this node's part of the cluster-wide cap and the number of members.
func (s *SharedOrigin) share() (permits, members int) {
	s.mu.Lock()
	c := s.cluster
	s.mu.Unlock()
	if c == nil {
		return s.o.Concurrency, 1
	}
	members, rank := c.Divisor()
	return divide(s.o.Concurrency, members, rank), members
}
