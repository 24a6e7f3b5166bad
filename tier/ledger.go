package tier

import (
	"sync"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
)

// ledgerWindow is how many seconds the ledger's rates look back.
const ledgerWindow = 10

// ledger measures the load on the origin now, from counters that only rise.
type ledger struct {
	mu   sync.Mutex         // guards the rest
	busy governor.Occupancy // loads that run
	past [ledgerWindow + 1]ledgerMark
	n    int // marks made
}

// ledgerMark is where the counters stood at a time.
type ledgerMark struct {
	at    int64
	reads int64
	loads int64
	busy  float64 // origin-seconds
}

// load counts a load that begins (by is +1) or has returned (by is -1).
func (l *ledger) load(by int, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = l.busy.Change(by, now)
}

// mark notes where the counters stand. It is called about once a second.
func (l *ledger) mark(reads, loads, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.past[l.n%len(l.past)] = ledgerMark{now, reads, loads, l.busy.Total(now)}
	l.n++
}

// rates returns how much the counters rise in a second, measured from the oldest mark kept, and the origin-seconds so
// far.
func (l *ledger) rates(reads, loads, now int64) (r ledgerRates) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.total = l.busy.Total(now)
	var old ledgerMark // the cache's start
	if l.n >= len(l.past) {
		old = l.past[l.n%len(l.past)]
	}
	if span := time.Duration(now - old.at).Seconds(); span > 0 {
		r.reads = float64(reads-old.reads) / span
		r.loads = float64(loads-old.loads) / span
		r.busy = (r.total - old.busy) / span
	}
	return r
}

type ledgerRates struct {
	reads, loads float64 // a second
	busy         float64 // origin-seconds a second
	total        float64 // origin-seconds
}

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

// reads returns how many reads of callers on this node have been answered.
func (c *core) reads() int64 {
	s := c.stats
	return max(c.nearTier.Hits()-s.nearUnused.Load(), 0) + s.owned.Load() + s.filled.Load() + s.errors.Load()
}

func (s *stats) loads() (n int64) {
	for i := range s.fills {
		n += s.fills[i].Load()
	}
	return n
}

// ledger returns the current ledger.
func (c *core) ledger() Ledger {
	s, loads := c.stats, c.stats.loads()
	r := s.ledger.rates(c.reads(), loads, c.clock.Now())
	out := Ledger{
		OriginSeconds: r.total, OriginBusy: r.busy, LoadRate: r.loads, ReadRate: r.reads,
		Doomed: s.doomed.Load(), ShedBy: make(map[string]int64), Retries: s.retries.Load(), RetriesDenied: s.noRetry.Load(),
		SoftTimeouts: s.soft.Load(),
	}
	if loads > 0 {
		out.CallersPerLoad = float64(s.served.Load()) / float64(loads)
	}
	for i := range s.cost {
		b := CostBucket{Loads: s.cost[i].Load()}
		if i < len(fillBuckets) {
			b.Seconds = fillBuckets[i]
		}
		out.Costs = append(out.Costs, b)
	}
	for i := range s.shed {
		out.ShedBy[governor.Reason(i).Name()] = s.shed[i].Load()
	}
	return out
}
