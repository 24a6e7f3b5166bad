package counters

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/store"
)

// The sources of answers, as indexes.
const (
	Near = iota
	Owned
	Fill
	Sources
)

// agesSpan is half of the longest time that the quantiles look back, ns.
const agesSpan = int64(30 * time.Second)

// Ages records how old the answers to callers on this node were, and why they were stale. Near hits are counted by the
// same sample that demand takes, each with the weight of the hits that it stands for.
type Ages struct {
	By    [Sources]Histogram
	Stale [store.StaleReasons]atomic.Int64
	Near  atomic.Int64 // stale near hits

	mu   sync.Mutex // guards the rest
	past [2][Sources]Tally
	at   int64 // of past[1]
}

// Served counts an answer of the given source and age, in ns, with the given weight.
func (a *Ages) Served(from int, age, weight int64) { a.By[from].Add(age, weight) }

// Mark makes Stats forget what is older than two spans. It is called about once a second.
func (a *Ages) Mark(now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now-a.at < agesSpan {
		return
	}
	a.past[0], a.at = a.past[1], now
	for i := range a.By {
		a.past[1][i] = a.By[i].Snapshot()
	}
}

// AgeStats says how old the answers from one source were, in seconds.
type AgeStats struct {
	Answers int64
	P50     float64 // over the last 30 to 60 seconds
	P99     float64
	Max     float64 // over all counted answers
}

// Stats returns the ages by source.
func (a *Ages) Stats() (out [Sources]AgeStats) {
	a.mu.Lock()
	past := a.past[0]
	a.mu.Unlock()
	for i := range a.By {
		t := a.By[i].Snapshot()
		lately, most := t.minus(&past[i]), time.Duration(a.By[i].Max.Load()).Seconds()
		out[i] = AgeStats{Answers: t.Total(), P50: min(lately.Quantile(0.5), most), P99: min(lately.Quantile(0.99), most), Max: most}
	}
	return out
}
