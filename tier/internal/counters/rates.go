package counters

import (
	"sync"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
)

// ledgerWindow is how many seconds the ledger's rates look back.
const ledgerWindow = 10

// Ledger measures the load on the origin now, from counters that only rise.
type Ledger struct {
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

// Running counts a load that begins (by is +1) or has returned (by is -1).
func (l *Ledger) Running(by int, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = l.busy.Change(by, now)
}

// Mark notes where the counters stand. It is called about once a second.
func (l *Ledger) Mark(reads, loads, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.past[l.n%len(l.past)] = ledgerMark{now, reads, loads, l.busy.Total(now)}
	l.n++
}

// Rates returns how much the counters rise in a second, measured from the oldest mark kept, and the origin-seconds so
// far.
func (l *Ledger) Rates(reads, loads, now int64) (r LedgerRates) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Total = l.busy.Total(now)
	var old ledgerMark // the cache's start
	if l.n >= len(l.past) {
		old = l.past[l.n%len(l.past)]
	}
	if span := time.Duration(now - old.at).Seconds(); span > 0 {
		r.Reads = float64(reads-old.reads) / span
		r.Loads = float64(loads-old.loads) / span
		r.Busy = (r.Total - old.busy) / span
	}
	return r
}

// LedgerRates are rates measured by a Ledger.
type LedgerRates struct {
	Reads, Loads float64 // a second
	Busy         float64 // origin-seconds a second
	Total        float64 // origin-seconds
}
