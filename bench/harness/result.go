package harness

import (
	"math"
	"slices"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

// Schema is the version of a Report. It rises when a field changes its meaning or is removed.
const Schema = 2

// A Report is the complete result of one run of the harness. It is written as JSON.
type Report struct {
	Schema   int                `json:"schema"`
	Began    time.Time          `json:"began"`
	Machine  string             `json:"machine"`
	Revision string             `json:"revision"`          // of the source, as bench.Revision returns it
	Command  string             `json:"command,omitempty"` // the command that made it
	Scenario *scenario.Scenario `json:"scenario"`
	Rounds   int                `json:"rounds"`            // planned number of rounds
	Partial  string             `json:"partial,omitempty"` // why not everything was measured
	Systems  []*Result          `json:"systems"`
	// Harness is the harness by itself: a system that answers every get at once, without a cache or an origin. It ran
	// in each round, for at most five seconds. nil: it could not run.
	Harness *Result `json:"harness,omitempty"`
}

// A Result is the result of one system.
type Result struct {
	Name    string   `json:"name"`
	Setup   string   `json:"setup"`
	Limits  []string `json:"limits,omitempty"`  // what it lacks
	Cannot  []string `json:"cannot,omitempty"`  // the scenario's steps that it could not do
	Partial string   `json:"partial,omitempty"` // why not everything was measured
	Rounds  []Round  `json:"rounds"`
	// Overall has one figure for each measure, from the complete rounds: the sum for counts of errors and of stale or
	// wrong answers, the greatest for the oldest and the slowest answer, and the median for the others. Least and Most
	// are the extremes of single rounds.
	Overall Measures `json:"overall"`
	Least   Measures `json:"least"`
	Most    Measures `json:"most"`
}

// A Round is one run of one system.
type Round struct {
	Partial  string             `json:"partial,omitempty"`
	Measures Measures           `json:"measures"`
	Errors   map[string]int64   `json:"errors_by_kind,omitempty"`
	Counters map[string]float64 `json:"counters,omitempty"` // the system's own counters
	Width    scenario.Duration  `json:"width"`              // of a point of the timeline
	Timeline []Point            `json:"timeline,omitempty"`
	Marks    []Mark             `json:"marks,omitempty"`
	Phases   []Phase            `json:"phases,omitempty"` // if the scenario sets by_fault
}

// Abridge removes the timelines, which are most of a report's bytes.
func (r *Report) Abridge() {
	for _, s := range append(slices.Clone(r.Systems), r.Harness) {
		if s == nil {
			continue
		}
		for i := range s.Rounds {
			s.Rounds[i].Timeline = nil
		}
	}
}

// A Point is a moment of a round. Rates are per second.
type Point struct {
	T       float64 `json:"t"` // seconds since the start
	Offered float64 `json:"offered"`
	Errors  float64 `json:"errors"`
	P99     Time    `json:"p99_ms"`
}

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
	if x == 0 || math.IsInf(x, 0) {
		return x
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
		q := Point{T: float64(i) * w, Offered: float64(p.offered.Load()) / w, Errors: float64(p.errors.Load()) / w}
		q.P99 = quantile(t.points[i], t.unanswered[i], 99)
		for _, f := range []*float64{&q.T, &q.Offered, &q.Errors, (*float64)(&q.P99)} {
			*f = short(*f)
		}
		out = append(out, q)
	}
	return out
}

// recovery returns the longest time for which callers felt a fault: until the last point before the next fault that
// has errors (more than 1 in 100) or a p99 far above the usual one before the first fault (three times, and 5 ms). It
// returns Never if they felt it to the end of the run.
func recovery(points []Point, faults []time.Duration, width time.Duration) Time {
	if len(faults) == 0 || len(points) == 0 {
		return 0
	}
	var usual []float64
	for _, p := range points {
		if p.T < faults[0].Seconds() && p.Offered > 0 {
			usual = append(usual, float64(p.P99))
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
			felt := p.Offered > 0 && (p.Errors > p.Offered/100 || float64(p.P99) > limit)
			if end := p.T + width.Seconds(); felt && end > at.Seconds() && p.T < next {
				if k == len(points)-1 && len(points) > 1 {
					return Never()
				}
				longest = max(longest, end-at.Seconds())
			}
		}
	}
	return Time(longest)
}
