package follow

import (
	"sync/atomic"
	"time"
)

// Stats says what followers do. With more than one feed the counters are totals, and the other fields are those of
// the feed that moved last.
type Stats struct {
	Following   int64  // calls of Follow that run
	Position    uint64 // of the newest event that was applied here
	Acked       uint64 // up to which every member has applied everything
	Applied     int64  // events
	Repeated    int64  // events that had been applied before, and were skipped
	Refused     int64  // keys and tags that no value can have
	Flushes     int64  // of the namespace, because the feed could not tell everything
	Failures    int64  // calls of a feed that failed
	Unconfirmed int64  // times that an acknowledgement had to wait for a member
	// LagSeconds is the time from the newest event's write to its application here, if the feed gives times.
	LagSeconds float64
	// DownSeconds is how long the feed has been failing; 0: it works. While it fails, copies are as old as the
	// Freshness allows. When it works again, the missing events are applied or the namespace is flushed.
	DownSeconds float64
}

// Counts are what the followers of a cache count. The zero Counts are ready for use.
type Counts struct {
	Following, Applied, Repeated, Refused, Flushes, Failures, Unconfirmed atomic.Int64

	Position, Acked atomic.Uint64
	Lag             atomic.Int64 // ns
	Down            atomic.Int64 // since when the feed has been failing, ns on the cache's clock; 0: it works
}

// Snapshot returns the counts at a time, in ns on the clock of Config.
func (s *Counts) Snapshot(now int64) Stats {
	out := Stats{
		Following: s.Following.Load(), Position: s.Position.Load(), Acked: s.Acked.Load(), Applied: s.Applied.Load(),
		Repeated: s.Repeated.Load(), Refused: s.Refused.Load(), Flushes: s.Flushes.Load(), Failures: s.Failures.Load(),
		Unconfirmed: s.Unconfirmed.Load(), LagSeconds: time.Duration(s.Lag.Load()).Seconds(),
	}
	if down := s.Down.Load(); down != 0 {
		out.DownSeconds = time.Duration(now - down).Seconds()
	}
	return out
}
