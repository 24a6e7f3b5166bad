package tier

import (
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/governor"
)

// CostBucket is one bucket of the histogram of load times.
type CostBucket struct {
	Seconds float64 `json:"seconds"` // the longest in it; 0 for the last one, which has no bound
	Loads   int64   `json:"loads"`   // in this bucket alone
}

// Ledger is what this node's misses have cost and what they cost now.
type Ledger struct {
	Costs          []CostBucket     `json:"costs"`            // loads that have returned, by the time they took
	OriginSeconds  float64          `json:"origin_seconds"`   // spent in loads, including those that run now
	OriginBusy     float64          `json:"origin_busy"`      // origin-seconds a second over the last 10 s: loads that ran at once
	LoadRate       float64          `json:"loads_a_second"`   // over the last 10 s
	ReadRate       float64          `json:"reads_a_second"`   // over the last 10 s
	CallersPerLoad float64          `json:"callers_per_load"` // callers that fills answered, on this node and on other members, divided by loads
	Doomed         int64            `json:"doomed"`           // fills that ended after all their callers had left
	ShedBy         map[string]int64 `json:"shed_by_reason"`   // fills that the governor rejected
	Retries        int64            `json:"retries"`          // loads that retried a failed one
	RetriesDenied  int64            `json:"retries_denied"`   // retries that the budget did not allow
	SoftTimeouts   int64            `json:"soft_timeouts"`    // reads that took a stale copy after SoftTimeout
}

// ledger returns the current ledger.
func (c *core) ledger() Ledger {
	s, loads := c.own.Stats, c.own.Stats.Loads()
	r := s.Ledger.Rates(c.own.Reads(), loads, c.own.Clock.Now())
	out := Ledger{
		OriginSeconds: r.Total, OriginBusy: r.Busy, LoadRate: r.Loads, ReadRate: r.Reads,
		Doomed: s.Doomed.Load(), ShedBy: make(map[string]int64), Retries: s.Retries.Load(), RetriesDenied: s.NoRetry.Load(),
		SoftTimeouts: s.Soft.Load(),
	}
	if loads > 0 {
		out.CallersPerLoad = float64(s.Served.Load()) / float64(loads)
	}
	for i := range s.Cost {
		b := CostBucket{Loads: s.Cost[i].Load()}
		if i < len(counters.CostBounds) {
			b.Seconds = counters.CostBounds[i]
		}
		out.Costs = append(out.Costs, b)
	}
	for i := range s.Shed {
		out.ShedBy[governor.Reason(i).Name()] = s.Shed[i].Load()
	}
	return out
}
