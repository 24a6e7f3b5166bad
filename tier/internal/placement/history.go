package placement

import (
	"sync"
	"time"

	"github.com/weircache/weir/ring"
)

// movedFor is how long, in ns, after a change of view a first fill counts as caused by the change.
const movedFor = int64(time.Minute)

// History remembers the view before the present one, and which member each partition came from.
type History struct {
	Self    string     // this node's name; set before use
	mu      sync.Mutex // guards the rest
	now     *ring.View
	before  *ring.View
	changed int64 // when, ns on the cache's clock
	// Where partitions came from: with a change of view, or with the first view.
	moves   []move
	first   *ring.View
	firstAt int64
	settled *ring.View                // see settledView
	formers map[string]*previousOwner // by name
}

// Observe records a view.
func (h *History) Observe(v *ring.View, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == v {
		return
	}
	if h.now == nil || h.now.Fingerprint() != v.Fingerprint() {
		h.movedTo(v, now)
		h.before, h.changed = h.now, now
	}
	h.now = v
}

// Why returns how a change of view explains a miss of this node.
func (h *History) Why(hash uint64, now int64) Cause {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.before == nil || now-h.changed > movedFor {
		return Cold
	}
	owner := h.before.OwnerOf(h.before.PartitionOf(hash))
	if owner.Name == h.Self {
		return Cold
	}
	if h.now.Index(owner.Name) >= 0 {
		return Moved
	}
	return OwnerLost
}
