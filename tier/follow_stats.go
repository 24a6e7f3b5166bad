package tier

import (
	"sync/atomic"
	"time"
)

// FollowStats says what Follow does. With more than one feed the counters are totals, and the other fields are those of
// the feed that moved last.
type FollowStats struct {
	Following   int64  `json:"following"`    // calls of Follow that run
	Position    uint64 `json:"position_max"` // of the newest event that was applied here
	Acked       uint64 `json:"acked_max"`    // up to which every member has applied everything
	Applied     int64  `json:"applied"`      // events
	Repeated    int64  `json:"repeated"`     // events that had been applied before, and were skipped
	Refused     int64  `json:"refused"`      // keys and tags that no value can have
	Flushes     int64  `json:"flushes"`      // of the namespace, because the feed could not tell everything
	Failures    int64  `json:"failures"`     // calls of a feed that failed
	Unconfirmed int64  `json:"unconfirmed"`  // times that an acknowledgement had to wait for a member
	// LagSeconds is the time from the newest event's write to its application here, if the feed gives times.
	LagSeconds float64 `json:"lag_seconds_max"`
	// DownSeconds is how long the feed has been failing; 0: it works. While it fails, copies are as old as the
	// Freshness allows. When it works again, the missing events are applied or the namespace is flushed.
	DownSeconds float64 `json:"down_seconds_max"`
}

// followStats are the counters behind FollowStats.
type followStats struct {
	following, applied, repeated, refused, flushes, failures, unconfirmed atomic.Int64

	position, acked atomic.Uint64
	lag             atomic.Int64 // ns
	down            atomic.Int64 // since when the feed has been failing, ns on the cache's clock; 0: it works
}

func (s *followStats) snapshot(now int64) FollowStats {
	out := FollowStats{
		Following: s.following.Load(), Position: s.position.Load(), Acked: s.acked.Load(), Applied: s.applied.Load(),
		Repeated: s.repeated.Load(), Refused: s.refused.Load(), Flushes: s.flushes.Load(), Failures: s.failures.Load(),
		Unconfirmed: s.unconfirmed.Load(), LagSeconds: time.Duration(s.lag.Load()).Seconds(),
	}
	if down := s.down.Load(); down != 0 {
		out.DownSeconds = time.Duration(now - down).Seconds()
	}
	return out
}
