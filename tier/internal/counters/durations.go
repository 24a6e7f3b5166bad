package counters

import (
	"math"
	"sync/atomic"
	"time"
)

// A histogram counts times in buckets of equal width on a logarithmic scale: bucket i ends, inclusively, at 2^(i/4)
// seconds, as in Prometheus's native histograms of schema 2. Counting is an atomic add; quantiles are accurate to about
// a tenth. The zero value is empty.
type Histogram struct {
	counts [Buckets]atomic.Int64
	Max    atomic.Int64 // ns
}

const (
	Schema        = 2             // of a native histogram of Prometheus: four buckets in an octave
	First         = -14 << Schema // the bucket of 61 us and less
	histogramLast = 25 << Schema  // the bucket of about a year and more
	// Buckets is how many there are.
	Buckets = histogramLast - First + 1
)

// quarters are the points that split an octave into four.
var quarters = [1 << Schema]float64{0.5, 0.5946035575013605, 0.7071067811865475, 0.8408964152537144}

// bucketOf returns the index of a time's bucket in a histogram's counts.
func bucketOf(ns int64) int {
	if ns <= 0 {
		return 0
	}
	frac, exp := math.Frexp(float64(ns) / float64(time.Second))
	i := (exp - 1) << Schema
	for _, q := range quarters {
		if frac > q {
			i++
		}
	}
	return min(max(i, First), histogramLast) - First
}

// End returns the upper bound, in seconds, of bucket i of a histogram's counts.
func End(i int) float64 {
	return math.Exp2(float64(i+First) / (1 << Schema))
}

// Add counts a time with the given weight.
func (h *Histogram) Add(ns, weight int64) {
	h.counts[bucketOf(ns)].Add(weight)
	for {
		was := h.Max.Load()
		if ns <= was || h.Max.CompareAndSwap(was, ns) {
			return
		}
	}
}

// Batch gathers times for a histogram, so that consecutive times in one bucket cost a single update of it. The zero
// value is empty.
type Batch struct {
	bucket int
	n, max int64
}

// Add has the effect of h.add(ns, 1), but perhaps not before flush.
func (g *Batch) Add(h *Histogram, ns int64) {
	if b := bucketOf(ns); b != g.bucket {
		g.Flush(h)
		g.bucket = b
	}
	g.n++
	g.max = max(g.max, ns)
}

// Flush counts what Add has gathered.
func (g *Batch) Flush(h *Histogram) {
	if g.n > 0 {
		h.Add(g.max, 0)
		h.counts[g.bucket].Add(g.n)
		g.n = 0
	}
}

// Tally is a snapshot of a histogram's counts.
type Tally [Buckets]int64

// Snapshot returns the counts. They are read one after the other.
func (h *Histogram) Snapshot() (t Tally) {
	for i := range h.counts {
		t[i] = h.counts[i].Load()
	}
	return t
}

// Total returns how many times are counted.
func (t *Tally) Total() (n int64) {
	for _, c := range t {
		n += c
	}
	return n
}

// Sum returns an estimate of the sum of the times, in seconds: each time counts as the middle of its bucket.
func (t *Tally) Sum() (s float64) {
	for i, c := range t {
		if c != 0 {
			s += float64(c) * End(i) * 0.917 // the bucket's geometric middle
		}
	}
	return s
}

// minus returns what has been counted since the tally before.
func (t *Tally) minus(before *Tally) (d Tally) {
	for i := range t {
		d[i] = t[i] - before[i]
	}
	return d
}

// Quantile returns the time, in seconds, that a fraction q of the counted times does not exceed, or 0 if none is
// counted.
func (t *Tally) Quantile(q float64) float64 {
	n := t.Total()
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
			return End(i) * math.Exp2((part-1)/(1<<Schema))
		}
		below += float64(c)
	}
	return End(len(t) - 1)
}

// Under returns how many of the counted times do not exceed each bound. Each bound is the end of a bucket.
func (t *Tally) Under(bounds []float64) map[float64]uint64 {
	out, sum, i := make(map[float64]uint64, len(bounds)), uint64(0), 0
	for _, b := range bounds {
		for ; i < len(t)-1 && End(i) <= b*1.0001; i++ {
			sum += uint64(t[i])
		}
		out[b] = sum
	}
	return out
}
