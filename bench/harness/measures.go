package harness

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Time is a measured time, in the unit that the name of its field gives.
type Time float64

// Never is the time of something that did not happen: the latency of a get that was not answered, or the end of what
// lasted longer than the run. It is greater than any other Time. JSON writes it as "never".
func Never() Time { return Time(math.Inf(1)) }

// MarshalJSON writes a number, or "never".
func (t Time) MarshalJSON() ([]byte, error) {
	if t == Never() {
		return []byte(`"never"`), nil
	}
	return json.Marshal(float64(t))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Time) UnmarshalJSON(b []byte) error {
	if string(b) == `"never"` {
		*t = Never()
		return nil
	}
	if err := json.Unmarshal(b, (*float64)(t)); err != nil {
		return fmt.Errorf("harness: %s is neither a time nor \"never\"", b)
	}
	return nil
}

// Measures are the numbers of a round. Times are in milliseconds where the name says so.
type Measures struct {
	Seconds  float64 `json:"seconds"`
	Gets     float64 `json:"gets"`     // reads, answered or not
	Answered float64 `json:"answered"` // fraction of the reads that were answered, of those whose own node stayed
	Writes   float64 `json:"writes"`   // and invalidations
	Rate     float64 `json:"gets_per_second"`

	OriginCalls   float64 `json:"origin_calls"`
	OriginFailed  float64 `json:"origin_failed"`
	Due           float64 `json:"due"`           // loads that an ideal cache would have made
	Amplification float64 `json:"amplification"` // ratio of origin calls to due loads
	OriginPeak    float64 `json:"origin_peak"`   // concurrent loads
	OriginMean    float64 `json:"origin_mean"`
	OriginSeconds float64 `json:"origin_seconds"`  // total time spent in loads
	PerFill       float64 `json:"served_per_fill"` // ratio of answered reads to origin calls
	// HitRatio is 1 minus the ratio of origin calls to answered reads. It is below 0 if there are more origin calls.
	HitRatio float64 `json:"hit_ratio"`

	// The latency of a read that was not answered is Never.
	P50  Time `json:"p50_ms"`
	P99  Time `json:"p99_ms"`
	P999 Time `json:"p999_ms"`
	Max  Time `json:"max_ms"`
	// Late is the part of the latency at the same quantile that comes from the harness: how late it sent requests in
	// an open loop, except those due in a stall, or the latency of a system that answers at once, whichever is longer.
	LateP50  Time `json:"harness_p50_ms"`
	LateP99  Time `json:"harness_p99_ms"`
	LateP999 Time `json:"harness_p999_ms"`
	LateMax  Time `json:"harness_max_ms"`

	Errors   float64 `json:"errors"`
	Lost     float64 `json:"lost"`  // calls whose own node went
	Wrong    float64 `json:"wrong"` // answers that are another key's
	Stale    float64 `json:"stale"` // answers that the origin had replaced before the call
	MaxStale float64 `json:"stale_max_ms"`
	// These are stale answers whose newer version's invalidation had been confirmed before the call: for the node
	// that answered (Broken); or only for other nodes that did not have this one in sight, either while that was
	// still so (CutOff) or once it saw all others again (Rejoined).
	Broken    float64 `json:"stale_after_invalidate"`
	MaxBroken float64 `json:"stale_after_invalidate_max_ms"`
	Rejoined  float64 `json:"stale_rejoined"`
	CutOff    float64 `json:"stale_cut_off"`
	MaxCutOff float64 `json:"stale_cut_off_max_ms"`
	AgeP99    float64 `json:"age_p99_ms"` // of answers, since their load began
	MaxAge    float64 `json:"age_max_ms"`
	Recover   Time    `json:"recover_seconds"` // the longest time that callers felt a fault; Never: to the end of the run

	// What this process used besides what the harness uses by itself, which the Harness fields say. They are 0 unless
	// all nodes are in this process.
	CPUPerMillion           float64 `json:"cpu_seconds_per_million_gets"`
	HarnessCPUPerMillion    float64 `json:"harness_cpu_seconds_per_million_gets"`
	AllocsPerMillion        float64 `json:"allocs_per_million_gets"`
	HarnessAllocsPerMillion float64 `json:"harness_allocs_per_million_gets"`
	// HeapPerKey is the growth of the heap per requested key, since the harness has allocated what it needs.
	HeapPerKey float64 `json:"heap_bytes_per_key"`
}

// An aggregate is how the figures of several rounds become one.
type aggregate int

const (
	middle   aggregate = iota // the median; of an even number the lower middle value
	total                     // the sum
	greatest                  // the maximum
)

// A field is a measure of a round.
type field struct {
	value *float64
	how   aggregate
}

// fields returns all measures, in no particular order.
func (m *Measures) fields() []field {
	var out []field
	add := func(how aggregate, values ...*float64) {
		for _, v := range values {
			out = append(out, field{v, how})
		}
	}
	times := func(how aggregate, values ...*Time) {
		for _, v := range values {
			out = append(out, field{(*float64)(v), how})
		}
	}
	add(middle, &m.Seconds, &m.Gets, &m.Answered, &m.Writes, &m.Rate, &m.OriginCalls, &m.OriginFailed, &m.Due, &m.Amplification,
		&m.OriginPeak, &m.OriginMean, &m.OriginSeconds, &m.PerFill, &m.HitRatio, &m.AgeP99,
		&m.CPUPerMillion, &m.HarnessCPUPerMillion, &m.AllocsPerMillion, &m.HarnessAllocsPerMillion, &m.HeapPerKey)
	times(middle, &m.P50, &m.P99, &m.P999, &m.LateP50, &m.LateP99, &m.LateP999, &m.Recover)
	add(total, &m.Errors, &m.Lost, &m.Wrong, &m.Stale, &m.Broken, &m.Rejoined, &m.CutOff)
	add(greatest, &m.MaxStale, &m.MaxBroken, &m.MaxCutOff, &m.MaxAge)
	times(greatest, &m.Max, &m.LateMax)
	return out
}

// summarize sets the figures of all rounds. It uses the complete rounds, or all of them if none is complete.
func (r *Result) summarize() {
	whole := slices.DeleteFunc(slices.Clone(r.Rounds), func(one Round) bool { return one.Partial != "" })
	if len(whole) == 0 {
		whole = r.Rounds
	}
	if len(whole) == 0 {
		return
	}
	overall, least, most := r.Overall.fields(), r.Least.fields(), r.Most.fields()
	for i, f := range overall {
		xs := make([]float64, len(whole))
		sum := 0.0
		for k := range whole {
			xs[k] = *whole[k].Measures.fields()[i].value
			sum += xs[k]
		}
		slices.Sort(xs)
		first, last := xs[0], xs[len(xs)-1]
		*least[i].value, *most[i].value = first, last
		switch f.how {
		case total:
			*f.value = sum
		case greatest:
			*f.value = last
		default:
			*f.value = xs[(len(xs)-1)/2]
		}
	}
}

// quantile returns the latency, in ms, that p percent of the reads did not exceed: those in h, and those that were not
// answered. h may be nil.
func quantile(h *hdrhistogram.Histogram, unanswered int64, p float64) Time {
	answered := int64(0)
	if h != nil {
		answered = h.TotalCount()
	}
	all := answered + unanswered
	rank := int64(math.Ceil(p / 100 * float64(all)))
	switch {
	case all == 0:
		return 0
	case rank > answered:
		return Never()
	}
	return Time(h.ValueAtQuantile(100*float64(rank)/float64(answered))) / 1e6
}
