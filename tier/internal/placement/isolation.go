package placement

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/ring"
)

// StableFor is how long a view must last to count as stable. Members notice a partition one by one, within some
// seconds.
const StableFor = int64(30 * time.Second)

// isolated reports whether a node that knew the members stable, and sees those for which sees is true, has lost
// contact with more than half of them. Members that left in order, for which left is true, do not count.
func isolated(stable []string, sees, left func(name string) bool) bool {
	lost, all := 0, 0
	for _, name := range stable {
		switch {
		case sees(name):
			all++
		case !left(name):
			all++
			lost++
		}
	}
	return 2*lost > all
}

// Isolation is what a cache knows about the isolation of its node.
type Isolation struct {
	// Cut: the node is isolated and the cache must not serve as usual. Set with mu held.
	Cut atomic.Bool
	// Lost: the node is isolated, whatever the cache does about it. Set with mu held.
	Lost atomic.Bool

	mu       sync.Mutex // guards the rest
	stable   []string   // names of the last stable view
	stableOf *ring.View // the last stable view
	view     *ring.View
	since    int64 // when view came, ns on the cache's clock
	off      bool  // the node is isolated
}

// Observe records a view, or the passing of time. It reports whether the node is isolated and whether that has
// changed.
func (s *Isolation) Observe(view *ring.View, now int64, silent, left func(name string) bool) (off, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != s.stableOf && !s.off && now-s.since >= StableFor {
		s.stable, s.stableOf = namesOf(s.view), s.view
	}
	if view != s.view {
		s.view, s.since = view, now
	}
	sees := func(name string) bool { return view.Index(name) >= 0 && !silent(name) }
	gone := func(name string) bool { return view.Index(name) < 0 && left(name) }
	was := s.off
	s.off = isolated(s.stable, sees, gone)
	s.Lost.Store(s.off)
	return s.off, s.off != was
}

// IsIsolated reports whether the node is isolated.
func (s *Isolation) IsIsolated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.off
}

func namesOf(view *ring.View) []string {
	names := make([]string, 0, view.Len())
	for _, m := range view.Members() {
		names = append(names, m.Name)
	}
	return names
}
