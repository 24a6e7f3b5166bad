package tier

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// ageBuckets are the upper bounds of the histogram of ages for scrapers that do not read native histograms: powers of
// two, so that each is the end of one of a histogram's own buckets.
var ageBuckets = [...]float64{1. / 64, 1. / 32, 1. / 16, 1. / 8, 1. / 4, 1. / 2, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512,
	1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072}

// under returns how many of the counted times do not exceed each bound. Each bound is the end of a bucket.
func (t *tally) under(bounds []float64) map[float64]uint64 {
	out, sum, i := make(map[float64]uint64, len(bounds)), uint64(0), 0
	for _, b := range bounds {
		for ; i < len(t)-1 && bucketEnd(i) <= b*1.0001; i++ {
			sum += uint64(t[i])
		}
		out[b] = sum
	}
	return out
}

// newHistograms makes one histogram in two forms: native, for scrapers that ask for it, and classic. t has the counts
// in native buckets, sum is the sum of the times, and classic has the cumulative classic buckets.
func newHistograms(desc *prometheus.Desc, t *tally, sum float64, classic map[float64]uint64, since time.Time, labels ...string) prometheus.Metric {
	positive, total := make(map[int]int64), uint64(t.total())
	for i, n := range t {
		if n != 0 {
			positive[i+histogramFirst] = n
		}
	}
	native, err := prometheus.NewConstNativeHistogram(desc, total, sum, positive, nil, 0, histogramSchema, prometheus.DefNativeHistogramZeroThreshold, since, labels...)
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
