package journal

import (
	"sync/atomic"
	"time"
)

// lives are the longest lives of copies, from the start of a load to hard expiry, in ns. What a member lacks matters as
// long as its own copies live. How long other members remember a position, and when an unreached member's copies are
// gone, depends on the longest life in the cluster. Loaders may give a value a longer life than the contract
// (Fill.SetTTL), so members tell one another theirs with each exchange, and have an exchange when their own grows.
type lives struct {
	own     atomic.Int64 // of anything that was stored here
	cluster atomic.Int64 // of anything that any member has told of, own included
	sent    int64        // what own was when it was last sent to the members; the journal's lock guards it
}

// raise makes v at least life.
func raise(v *atomic.Int64, life int64) {
	for {
		if old := v.Load(); life <= old || v.CompareAndSwap(old, life) {
			return
		}
	}
}

// stored notes that a copy with this life was stored here.
func (l *lives) stored(life int64) {
	raise(&l.own, life)
	raise(&l.cluster, life)
}

// heard notes how long another member's copies live, as that member has told.
func (l *lives) heard(life time.Duration) { raise(&l.cluster, int64(life)) }

// remember returns for how long, in ns, a position matters: until no member has a copy from before it was reached.
func (l *log) remember() int64 { return l.lives.cluster.Load() + l.slack }

// matters reports whether an incarnation's position is still sent and compared. One that is not is as good as forgotten,
// also before the next sweep.
func (l *log) matters(incarnation uint64, t *track, now int64) bool {
	return incarnation == l.self || now-t.last <= l.remember()
}
