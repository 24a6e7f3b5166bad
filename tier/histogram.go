package tier

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/weircache/weir/tier/internal/counters"
)

// ageBuckets are the upper bounds of the histogram of ages for scrapers that do not read native histograms: powers of
// two, so that each is the end of one of a histogram's own buckets.
var ageBuckets = [...]float64{1. / 64, 1. / 32, 1. / 16, 1. / 8, 1. / 4, 1. / 2, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512,
	1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072}

// newHistograms makes one histogram in two forms: native, for scrapers that ask for it, and classic. t has the counts
// in native buckets, sum is the sum of the times, and classic has the cumulative classic buckets.
func newHistograms(desc *prometheus.Desc, t *counters.Tally, sum float64, classic map[float64]uint64, since time.Time, labels ...string) prometheus.Metric {
	positive, total := make(map[int]int64), uint64(t.Total())
	for i, n := range t {
		if n != 0 {
			positive[i+counters.First] = n
		}
	}
	native, err := prometheus.NewConstNativeHistogram(desc, total, sum, positive, nil, 0, counters.Schema, prometheus.DefNativeHistogramZeroThreshold, since, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	plain, err := prometheus.NewConstHistogram(desc, total, sum, classic, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return bothForms{native, plain}
}

// bothForms is a native histogram with the buckets of a classic one.
type bothForms struct {
	prometheus.Metric
	classic prometheus.Metric
}

// Write implements prometheus.Metric.
func (m bothForms) Write(out *dto.Metric) error {
	var plain dto.Metric
	if err := m.classic.Write(&plain); err != nil {
		return err
	}
	if err := m.Metric.Write(out); err != nil {
		return err
	}
	out.Histogram.Bucket = plain.GetHistogram().GetBucket()
	return nil
}
