package tier

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/store"
)

// whyOf returns why a stale copy is served instead of err.
func whyOf(err error) store.StaleReason {
	if errors.Is(err, ErrOverloaded) {
		return store.StaleShed
	}
	return store.StaleError
}

// A histogram counts times in buckets of equal width on a logarithmic scale: bucket i ends, inclusively, at 2^(i/4)
// seconds, as in Prometheus's native histograms of schema 2. Counting is an atomic add; quantiles are accurate to about
// a tenth. The zero value is empty.
type histogram struct {
	counts [histogramBuckets]atomic.Int64
	max    atomic.Int64 // ns
}

const (
	histogramSchema  = 2
	histogramFirst   = -14 << histogramSchema // the bucket of 61 us and less
	histogramLast    = 25 << histogramSchema  // the bucket of about a year and more
	histogramBuckets = histogramLast - histogramFirst + 1
)

// quarters are the points that split an octave into four.
var quarters = [1 << histogramSchema]float64{0.5, 0.5946035575013605, 0.7071067811865475, 0.8408964152537144}

// bucketOf returns the index of a time's bucket in a histogram's counts.
func bucketOf(ns int64) int {
	if ns <= 0 {
		return 0
	}
	frac, exp := math.Frexp(float64(ns) / float64(time.Second))
	i := (exp - 1) << histogramSchema
	for _, q := range quarters {
		if frac > q {
			i++
		}
	}
	return min(max(i, histogramFirst), histogramLast) - histogramFirst
}

// bucketEnd returns the upper bound, in seconds, of bucket i of a histogram's counts.
func bucketEnd(i int) float64 {
	return math.Exp2(float64(i+histogramFirst) / (1 << histogramSchema))
}

// add counts a time with the given weight.
func (h *histogram) add(ns, weight int64) {
	h.counts[bucketOf(ns)].Add(weight)
	for {
		was := h.max.Load()
		if ns <= was || h.max.CompareAndSwap(was, ns) {
			return
		}
	}
}

// someAges gathers times for a histogram, so that consecutive times in one bucket cost a single update of it. The zero
// value is empty.
type someAges struct {
	bucket int
	n, max int64
}

// add has the effect of h.add(ns, 1), but perhaps not before flush.
func (g *someAges) add(h *histogram, ns int64) {
	if b := bucketOf(ns); b != g.bucket {
		g.flush(h)
		g.bucket = b
	}
	g.n++
	g.max = max(g.max, ns)
}

func (g *someAges) flush(h *histogram) {
	if g.n > 0 {
		h.add(g.max, 0)
		h.counts[g.bucket].Add(g.n)
		g.n = 0
	}
}

// tally is a snapshot of a histogram's counts.
type tally [histogramBuckets]int64

func (h *histogram) tally() (t tally) {
	for i := range h.counts {
		t[i] = h.counts[i].Load()
	}
	return t
}

func (t *tally) total() (n int64) {
	for _, c := range t {
		n += c
	}
	return n
}

// sum returns an estimate of the sum of the times, in seconds: each time counts as the middle of its bucket.
func (t *tally) sum() (s float64) {
	for i, c := range t {
		if c != 0 {
			s += float64(c) * bucketEnd(i) * 0.917 // the bucket's geometric middle
		}
	}
	return s
}

// minus returns what has been counted since the tally before.
func (t *tally) minus(before *tally) (d tally) {
	for i := range t {
		d[i] = t[i] - before[i]
	}
	return d
}

// quantile returns the time, in seconds, that a fraction q of the counted times does not exceed, or 0 if none is
// counted.
func (t *tally) quantile(q float64) float64 {
	n := t.total()
	if n == 0 {
		return 0
	}
	rank, below := q*float64(n), 0.0
	for i, c := range t {
		if c == 0 {
			continue
		}
		if below+float64(c) >= rank {
			part := (rank - below) / float64(c)
			return bucketEnd(i) * math.Exp2((part-1)/(1<<histogramSchema))
		}
		below += float64(c)
	}
	return bucketEnd(len(t) - 1)
}

const (
	agedSources = int(SourceFill)
	agesSpan    = int64(30 * time.Second)
)

// ages records how old the answers to callers on this node were, and why they were stale. Near hits are counted by the
// same sample that demand takes, each with the weight of the hits that it stands for.
type ages struct {
	by    [agedSources]histogram // by source - 1
	stale [store.StaleReasons]atomic.Int64
	near  atomic.Int64 // stale near hits

	mu   sync.Mutex // guards the rest
	past [2][agedSources]tally
	at   int64 // of past[1]
}

// served counts an answer with the given weight.
func (a *ages) served(from Source, age, weight int64) { a.by[from-1].add(age, weight) }

// mark makes stats forget what is older than two spans. It is called about once a second.
func (a *ages) mark(now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now-a.at < agesSpan {
		return
	}
	a.past[0], a.at = a.past[1], now
	for i := range a.by {
		a.past[1][i] = a.by[i].tally()
	}
}

// Ages says how old the answers from one source were, counted from the start of their loads.
type Ages struct {
	// Answers is the number of answers since the cache was made. Near hits are counted by a sample of one in 100.
	Answers int64   `json:"answers"`
	P50     float64 `json:"p50_seconds"` // over the last 30 to 60 seconds, accurate to about a tenth
	P99     float64 `json:"p99_seconds"`
	Max     float64 `json:"max_seconds"` // over all counted answers
}

// stats returns the ages by source.
func (a *ages) stats() map[string]Ages {
	a.mu.Lock()
	past := a.past[0]
	a.mu.Unlock()
	out := make(map[string]Ages, agedSources)
	for i := range a.by {
		t := a.by[i].tally()
		lately, most := t.minus(&past[i]), time.Duration(a.by[i].max.Load()).Seconds()
		out[Source(i+1).String()] = Ages{
			Answers: t.total(), P50: min(lately.quantile(0.5), most), P99: min(lately.quantile(0.99), most), Max: most,
		}
	}
	return out
}

// countNearHit counts a near hit with the given weight.
func (c *Cache[V]) countNearHit(b *nearEntry[V], now, weight int64, why store.StaleReason) {
	a := &c.stats.ages
	a.served(SourceNear, max(now-b.loaded, 0), weight)
	if now >= b.soft {
		a.near.Add(weight)
		c.staleServed(why, weight)
	}
}

// countAnswer counts a read that a tier below the near tier has answered.
func (c *Cache[V]) countAnswer(a *answer[V]) {
	s := c.stats
	switch a.source {
	case SourceOwned:
		s.owned.Add(1)
	case SourceFill:
		s.filled.Add(1)
	}
	s.ages.served(a.source, a.age, 1)
	if a.stale {
		s.stale.Add(1)
		c.staleServed(a.why, 1)
	}
}

func (c *core) staleServed(why store.StaleReason, weight int64) {
	if c.isolation.Lost.Load() {
		why = store.StaleIsolated
	}
	c.stats.ages.stale[why].Add(weight)
}
