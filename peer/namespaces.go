package peer

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
)

// namespaces are the namespaces that are registered on a node. They are safe for concurrent use.
type namespaces struct {
	mu       sync.Mutex               // guards the rest
	handlers map[string]codec.Handler // by name
	dropped  map[string]bool          // formerly registered ones that had something to hand off
}

func newNamespaces() *namespaces {
	return &namespaces{handlers: make(map[string]codec.Handler), dropped: make(map[string]bool)}
}

// add adds a namespace, and returns a function that removes it.
func (s *namespaces) add(name string, h codec.Handler) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[name] = h
	delete(s.dropped, name)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.handlers, name)
		if _, ok := h.(codec.Drainer); ok {
			s.dropped[name] = true
		}
	}
}

// all returns a copy of the registered handlers.
func (s *namespaces) all() map[string]codec.Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.handlers)
}

// drain lets the namespaces hand off their entries, once the others know that this node leaves. It returns when they are
// done, after timeout, or when ctx ends.
func (s *namespaces) drain(ctx context.Context, timeout time.Duration, logger *slog.Logger) {
	if timeout < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var wg sync.WaitGroup
	s.mu.Lock()
	for _, h := range s.handlers {
		if d, ok := h.(codec.Drainer); ok {
			wg.Go(func() { d.Drain(ctx) })
		}
	}
	dropped := slices.Sorted(maps.Keys(s.dropped))
	s.mu.Unlock()
	if len(dropped) > 0 {
		logger.Warn("caches were closed before the node leaves: they hand nothing over", "namespaces", dropped)
	}
	wg.Wait()
}

// loadsTick is how often a leaving node checks whether its loads have ended.
const loadsTick = 20 * time.Millisecond

// awaitLoads waits until no load is running, as long as loads may take, or until ctx ends.
func (s *namespaces) awaitLoads(ctx context.Context, logger *slog.Logger) {
	tick := time.NewTicker(loadsTick)
	defer tick.Stop()
	for began := time.Now(); ; {
		running, longest := s.loads()
		switch {
		case running == 0:
			return
		case time.Since(began) > longest:
			logger.Warn("the node leaves with loads that have overrun their timeout: until this process ends the origin may have more than its cap", "loads", running)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// loads returns how many loads the namespaces are running, and how long the longest of them may take.
func (s *namespaces) loads() (running int, longest time.Duration) {
	for _, h := range s.all() {
		if c, ok := h.(codec.LoadCounter); ok {
			more, most := c.Loads()
			running += more
			longest = max(longest, most)
		}
	}
	return running, longest
}

// positioner is a Handler that compares with other members which invalidations each has applied.
type positioner interface {
	// PositionsDue names the members with which the handler must still compare before it is ready.
	PositionsDue() []string
}

// warmer is a Handler that may warm itself after its start. Warming does not delay readiness.
type warmer interface {
	// Warming returns how many of the keys to warm are done, how many there are, and whether warming has finished.
	Warming() (done, total int, finished bool)
}

// warming returns a line for each namespace that is warming itself.
func (s *namespaces) warming() (lines []string) {
	for namespace, h := range s.all() {
		if w, ok := h.(warmer); ok {
			if done, total, finished := w.Warming(); !finished && total > 0 {
				lines = append(lines, fmt.Sprintf("warming: %s, %d of %d keys", namespace, done, total))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// waiting returns what the namespaces wait for before they are ready, or "" if they wait for nothing.
func (s *namespaces) waiting() string {
	var names []string
	for _, h := range s.all() {
		if p, ok := h.(positioner); ok {
			names = append(names, p.PositionsDue()...)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "waiting for: positions with " + fewNames(slices.Compact(names))
}
