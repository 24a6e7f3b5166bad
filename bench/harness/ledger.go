package harness

import (
	"sync"
	"sync/atomic"
	"time"
)

// A ledger tracks, for each key, what the origin has and what an ideal cache would have had to load. The ideal
// cache has room for everything, is shared by all nodes, and loads a key when it is first requested, after each
// invalidation, and when its TTL has expired. Times count from the run's start. All methods are safe for concurrent
// use.
type ledger struct {
	ttl  time.Duration
	keys []keyState
	due  atomic.Int64

	mu     sync.Mutex // guards writes
	writes map[int][]writeTimes
}

type keyState struct {
	loaded  atomic.Int64  // when the ideal cache last loaded it, plus epoch; 0: it must load it
	version atomic.Uint64 // the origin's
}

// writeTimes are the times at which a version was written and its invalidation was confirmed, and the nodes for
// which it was confirmed.
type writeTimes struct {
	version            uint64
	committed, settled time.Duration // settled: 0 until then
	covered            nodeSet
}

// nodeSet is a set of nodes, a bit for each.
type nodeSet uint64

// allNodes contains every node.
const allNodes = ^nodeSet(0)

func (s nodeSet) has(node int) bool { return s>>node&1 == 1 }

// epoch makes all times of a run positive, including those of the warm-up.
const epoch = int64(4 * time.Hour)

// writesKept is how many writes of a key are remembered: an older answer counts as stale since the oldest of them.
const writesKept = 64

func newLedger(keys int, ttl time.Duration) *ledger {
	return &ledger{ttl: ttl, keys: make([]keyState, keys), writes: make(map[int][]writeTimes)}
}

// asked counts a load if the ideal cache needs one for a read of the key at now.
func (l *ledger) asked(key int, now time.Duration) {
	k := &l.keys[key]
	for {
		was := k.loaded.Load()
		if was != 0 && int64(now)+epoch-was < int64(l.ttl) {
			return
		}
		if k.loaded.CompareAndSwap(was, int64(now)+epoch) {
			if now >= 0 {
				l.due.Add(1)
			}
			return
		}
	}
}

// write creates a new version of the key at the origin. It reads the time after that, so that a call which begins later
// cannot get the old version from the origin.
func (l *ledger) write(key int, now func() time.Duration) (version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	version = l.keys[key].version.Load() + 1
	l.keys[key].version.Store(version)
	w := append(l.writes[key], writeTimes{version: version, committed: now()})
	if len(w) > writesKept {
		w = append([]writeTimes(nil), w[1:]...)
	}
	l.writes[key] = w
	l.forget(key)
	return version
}

// forget makes the ideal cache load the key again.
func (l *ledger) forget(key int) { l.keys[key].loaded.Store(0) }

// forgetAll does the same for all keys.
func (l *ledger) forgetAll() {
	for i := range l.keys {
		l.forget(i)
	}
}

// settle records that the invalidation after a write was confirmed for the covered nodes.
func (l *ledger) settle(key int, version uint64, now time.Duration, covered nodeSet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.writes[key] {
		if w := &l.writes[key][i]; w.version == version {
			w.settled, w.covered = now, covered
		}
	}
}

// staleness judges a node's answer with a version to a call that began at began. stale is how long the origin had
// had a newer version by then (0: it had none). broken is how long a newer version's invalidation had been
// confirmed for this node: such an answer breaks the promise of invalidation. missed is how long a newer version's
// invalidation had been confirmed, but not for this node, which was unreachable.
func (l *ledger) staleness(key int, version uint64, began time.Duration, node int) (stale, broken, missed time.Duration) {
	if l.keys[key].version.Load() == version {
		return 0, 0, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.writes[key] {
		if w.version <= version {
			continue
		}
		if stale == 0 && w.committed < began {
			stale = began - w.committed
		}
		if w.settled == 0 || w.settled >= began {
			continue
		}
		if w.covered.has(node) {
			broken = max(broken, began-w.settled)
		} else {
			missed = max(missed, began-w.settled)
		}
	}
	return stale, broken, missed
}

// known returns how many keys have been requested and not invalidated since.
func (l *ledger) known() (n int) {
	for i := range l.keys {
		if l.keys[i].loaded.Load() != 0 {
			n++
		}
	}
	return n
}
