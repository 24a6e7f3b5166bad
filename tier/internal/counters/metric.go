package counters

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Metric makes one histogram in two forms: native, for scrapers that ask for it, and classic. The counts are in
// native buckets, sum is the sum of the times, and classic has the cumulative classic buckets.
func (t *Tally) Metric(desc *prometheus.Desc, sum float64, classic map[float64]uint64, since time.Time, labels ...string) prometheus.Metric {
	positive, total := make(map[int]int64), uint64(t.Total())
	for i, n := range t {
		if n != 0 {
			positive[i+First] = n
		}
	}
	native, err := prometheus.NewConstNativeHistogram(desc, total, sum, positive, nil, 0, Schema, prometheus.DefNativeHistogramZeroThreshold, since, labels...)
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
