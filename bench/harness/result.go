package harness

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

// Schema is the version of a Report. It rises when a field changes its meaning or is removed.
const Schema = 1

// A Report is the complete result of one run of the harness. It is written as JSON.
type Report struct {
	Schema   int                `json:"schema"`
	Began    time.Time          `json:"began"`
	Machine  string             `json:"machine"`
	Command  string             `json:"command,omitempty"` // the command that made it
	Scenario *scenario.Scenario `json:"scenario"`
	Rounds   int                `json:"rounds"`            // planned number of rounds
	Partial  string             `json:"partial,omitempty"` // why not everything was measured
	Systems  []*Result          `json:"systems"`
}

// A Result is the result of one system.
type Result struct {
	Name    string   `json:"name"`
	Setup   string   `json:"setup"`
	Limits  []string `json:"limits,omitempty"`  // what it lacks
	Cannot  []string `json:"cannot,omitempty"`  // the scenario's steps that it could not do
	Partial string   `json:"partial,omitempty"` // why not everything was measured
	Rounds  []Round  `json:"rounds"`
	// Median has the middle value of each measure over the rounds.
	Median Measures `json:"median"`
}

// A Round is one run of one system.
type Round struct {
	Partial  string             `json:"partial,omitempty"`
	Measures Measures           `json:"measures"`
	Errors   map[string]int64   `json:"errors_by_kind,omitempty"`
	Counters map[string]float64 `json:"counters,omitempty"` // the system's own counters
	Width    scenario.Duration  `json:"width"`              // of a point of the timeline
	Timeline []Point            `json:"timeline"`
	Latency  []Quantile         `json:"latency"`
	Marks    []Mark             `json:"marks,omitempty"`
	Phases   []Phase            `json:"phases,omitempty"` // if the scenario sets by_fault
}

// Measures are the numbers of a round. Times are in milliseconds where the name says so.
type Measures struct {
	Seconds float64 `json:"seconds"`
	Gets    float64 `json:"gets"`   // reads, answered or not
	Writes  float64 `json:"writes"` // and invalidations
	Rate    float64 `json:"gets_per_second"`

	OriginCalls   float64 `json:"origin_calls"`
	OriginFailed  float64 `json:"origin_failed"`
	Due           float64 `json:"due"`           // loads that an ideal cache would have made
	Amplification float64 `json:"amplification"` // ratio of origin calls to due loads
	OriginPeak    float64 `json:"origin_peak"`   // concurrent loads
	OriginMean    float64 `json:"origin_mean"`
	OriginSeconds float64 `json:"origin_seconds"` // total time spent in loads
	PerFill       float64 `json:"served_per_fill"`
	HitRatio      float64 `json:"hit_ratio"` // 1 minus the ratio of origin calls to gets; below 0 if there are more origin calls than gets

	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
	Late float64 `json:"harness_p99_ms"` // how late the harness itself began requests, except those due in a stall

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
	Recover   float64 `json:"recover_seconds"` // the longest time that callers felt a fault; -1: to the end of the run

	CPUPerMillion    float64 `json:"cpu_seconds_per_million_gets"` // of this process, including the harness's own
	AllocsPerMillion float64 `json:"allocs_per_million_gets"`      // of this process, including the harness's own
	HeapPerKey       float64 `json:"heap_bytes_per_key"`           // growth of the heap per requested key, all nodes in this process
}

// A Point is a moment of a round. Rates are per second.
type Point struct {
	T          float64 `json:"t"` // seconds since the start
	Offered    float64 `json:"offered"`
	Answered   float64 `json:"answered"`
	Errors     float64 `json:"errors"`
	Stale      float64 `json:"stale"`
	Origin     float64 `json:"origin"`      // calls
	OriginPeak float64 `json:"origin_peak"` // concurrent
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
}

// A Quantile is a latency that the given fraction of the reads did not exceed.
type Quantile struct {
	Q  float64 `json:"q"`
	MS float64 `json:"ms"`
}

var quantiles = []float64{10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 99.95, 99.99, 100}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// ratio returns a divided by b, or 0 if b is 0.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// short rounds to four significant digits, because more would only enlarge the files.
func short(x float64) float64 {
	if x == 0 {
		return 0
	}
	p := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*p) / p
}

// points converts what was counted into a timeline.
func (r *recorder) points(t tally, elapsed time.Duration) []Point {
	w := r.line.width.Seconds()
	out := make([]Point, 0, len(r.line.points))
	for i := range r.line.points {
		if time.Duration(i)*r.line.width >= elapsed {
			break
		}
		p := &r.line.points[i]
		q := Point{
			T: float64(i) * w, Offered: float64(p.offered.Load()) / w, Answered: float64(p.answered.Load()) / w,
			Errors: float64(p.errors.Load()) / w, Stale: float64(p.stale.Load()) / w,
			Origin: float64(p.originCalls.Load()) / w, OriginPeak: float64(p.originPeak.Load()),
		}
		if h := t.points[i]; h != nil {
			q.P50, q.P99 = float64(h.ValueAtQuantile(50))/1e6, float64(h.ValueAtQuantile(99))/1e6
		}
		for _, f := range []*float64{&q.T, &q.Offered, &q.Answered, &q.Errors, &q.Stale, &q.Origin, &q.P50, &q.P99} {
			*f = short(*f)
		}
		out = append(out, q)
	}
	return out
}

// recovery returns the longest time for which callers felt a fault: until the last point before the next fault that
// has errors (more than 1 in 100) or a p99 far above the usual one before the first fault (three times, and 5 ms).
func recovery(points []Point, faults []time.Duration, width time.Duration) float64 {
	if len(faults) == 0 || len(points) == 0 {
		return 0
	}
	var usual []float64
	for _, p := range points {
		if p.T < faults[0].Seconds() && p.Offered > 0 {
			usual = append(usual, p.P99)
		}
	}
	slices.Sort(usual)
	limit := 5.0
	if len(usual) > 0 {
		limit += 3 * usual[len(usual)/2]
	}
	longest := 0.0
	for i, at := range faults {
		next := points[len(points)-1].T + 1
		if i+1 < len(faults) {
			next = faults[i+1].Seconds()
		}
		for k, p := range points {
			felt := p.Offered > 0 && (p.Errors > p.Offered/100 || p.P99 > limit)
			if end := p.T + width.Seconds(); felt && end > at.Seconds() && p.T < next {
				if k == len(points)-1 && len(points) > 1 {
					return -1
				}
				longest = max(longest, end-at.Seconds())
			}
		}
	}
	return longest
}

// fields returns the fields that have a median, in no particular order.
func fields(m *Measures) []*float64 {
	return []*float64{&m.Seconds, &m.Gets, &m.Writes, &m.Rate, &m.OriginCalls, &m.OriginFailed, &m.Due, &m.Amplification,
		&m.OriginPeak, &m.OriginMean, &m.OriginSeconds, &m.PerFill, &m.HitRatio, &m.P50, &m.P99, &m.P999, &m.Max, &m.Late,
		&m.Errors, &m.Lost, &m.Wrong, &m.Stale, &m.MaxStale, &m.Broken, &m.MaxBroken, &m.Rejoined, &m.CutOff, &m.MaxCutOff, &m.AgeP99, &m.MaxAge, &m.Recover,
		&m.CPUPerMillion, &m.AllocsPerMillion, &m.HeapPerKey}
}

// median computes the median of each measure over the complete rounds, or over all rounds if none is complete. For
// an even number of rounds it takes the lower middle value.
func median(rounds []Round) Measures {
	whole := slices.DeleteFunc(slices.Clone(rounds), func(r Round) bool { return r.Partial != "" })
	if len(whole) == 0 {
		whole = rounds
	}
	var out Measures
	if len(whole) == 0 {
		return out
	}
	for i, f := range fields(&out) {
		xs := make([]float64, len(whole))
		for k := range whole {
			xs[k] = *fields(&whole[k].Measures)[i]
		}
		slices.SortFunc(xs, cmp.Compare[float64])
		*f = xs[(len(xs)-1)/2]
	}
	return out
}
