package counters_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/weircache/weir/tier/internal/counters"
)

// A histogram puts times into the buckets that Prometheus uses, and its quantiles are accurate to about a tenth.
func TestHistogram(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, seed))
	bounds := prometheus.ExponentialBuckets(1./64, 2, 24)
	var h counters.Histogram
	theirs := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x", NativeHistogramBucketFactor: 1.2, Buckets: bounds})
	var all []float64
	for i := range 20000 {
		s := math.Exp2(rnd.Float64()*36 - 13)
		if i < 40 {
			s = math.Exp2(float64(i - 10)) // bucket ends
		}
		s = time.Duration(s * float64(time.Second)).Seconds()
		if s > math.Exp2(24) {
			continue
		}
		h.Add(int64(math.Round(s*1e9)), 1)
		theirs.Observe(s)
		all = append(all, s)
	}
	counts := h.Snapshot()
	d := prometheus.NewDesc("x", "x", nil, nil)
	var ours, want dto.Metric
	if err := counts.Metric(d, counts.Sum(), counts.Under(bounds), time.Now()).Write(&ours); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Write(&want); err != nil {
		t.Fatal(err)
	}
	a, b := ours.Histogram, want.Histogram
	if fmt.Sprint(a.PositiveSpan, a.PositiveDelta, a.GetSchema(), a.GetSampleCount()) != fmt.Sprint(b.PositiveSpan, b.PositiveDelta, b.GetSchema(), b.GetSampleCount()) {
		t.Errorf("native buckets:\n%v\nwant\n%v", a, b)
	}
	if fmt.Sprint(a.Bucket) != fmt.Sprint(b.Bucket) {
		t.Errorf("classic buckets:\n%v\nwant\n%v", a.Bucket, b.Bucket)
	}
	if r := a.GetSampleSum() / b.GetSampleSum(); math.Abs(r-1) > 0.05 {
		t.Errorf("the sum is %v of what it should be", r)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		exact := all[min(int(q*float64(len(all))), len(all)-1)]
		if got := counts.Quantile(q); math.Abs(got/exact-1) > 0.1 {
			t.Errorf("quantile %v: %v, want %v", q, got, exact)
		}
	}
	var empty counters.Histogram
	empty.Add(-1, 1)
	empty.Add(0, 1)
	empty.Add(math.MaxInt64, 1)
	if counts = empty.Snapshot(); counts[0] != 2 || counts[counters.Buckets-1] != 1 {
		t.Errorf("%v", counts)
	}
	last := counters.End(counters.Buckets - 1)
	if n := counts.Under([]float64{last})[last]; n != 2 {
		t.Errorf("%d times are less than a year, want 2: the last bucket has no end", n)
	}
	if c := new(counters.Tally); c.Quantile(0.5) != 0 || c.Sum() != 0 {
		t.Error("an empty histogram has a quantile")
	}
}
