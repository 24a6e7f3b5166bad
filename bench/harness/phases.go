package harness

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

// A Phase is the time from one fault of the scenario to the next, or to the end of the run. The first is the
// control: the time before any fault.
type Phase struct {
	What string            `json:"what"` // the fault; empty: the control
	From scenario.Duration `json:"from"`
	To   scenario.Duration `json:"to"`
	// Moves is how many keys change their owner if all nodes own equally many: one node's keys, or in a rolling
	// restart each node's keys twice. 0: a control, or a fault that does not move keys.
	Moves float64 `json:"moves,omitempty"`
	Gets  float64 `json:"gets"`
	// OriginCalls are the calls that began in the phase. Caused is how many of them exceed the control's rate.
	OriginCalls float64 `json:"origin_calls"`
	Caused      float64 `json:"origin_calls_caused"`
	Errors      float64 `json:"errors"` // of calls that were due in the phase, except those whose own node went
	Lost        float64 `json:"lost"`   // calls whose own node went
}

// phaseCount counts the calls of a phase. It is safe for concurrent use.
type phaseCount struct {
	what                      string
	from, to                  time.Duration
	nodes                     float64 // whose keys move
	calls, gets, errors, lost atomic.Int64
}

// newPhases returns a scenario's phases, or nil if the scenario does not request them.
func newPhases(s *scenario.Scenario) []phaseCount {
	if !s.ByFault || len(s.Faults) == 0 {
		return nil
	}
	faults := slices.Clone(s.Faults)
	slices.SortStableFunc(faults, func(a, b scenario.Fault) int { return cmp.Compare(a.At, b.At) })
	out := make([]phaseCount, len(faults)+1)
	for i, f := range faults {
		p := &out[i+1]
		p.from, p.to = f.At.D(), s.Duration.D()
		out[i].to = p.from
		switch p.what = f.Do; f.Do {
		case scenario.Kill, scenario.Leave, scenario.Join:
			p.what, p.nodes = fmt.Sprintf("%s node %d", f.Do, f.Node), 1
		case scenario.Rolling:
			p.what, p.nodes = "rolling restart", float64(2*s.Cluster.Nodes)
		}
	}
	return out
}

// phase returns the phase that contains a time, or nil outside of the run or without phases.
func (t *timeline) phase(now time.Duration) *phaseCount {
	for i := range t.phases {
		if p := &t.phases[i]; now >= p.from && now < p.to {
			return p
		}
	}
	return nil
}

// count records the outcome of a call.
func (p *phaseCount) count(o outcome) {
	if o.read {
		p.gets.Add(1)
	}
	switch {
	case o.lost:
		p.lost.Add(1)
	case o.err != nil:
		p.errors.Add(1)
	}
}

// sumPhases returns what was counted until the run ended, for the given number of keys and nodes.
func sumPhases(counts []phaseCount, keys, nodes int, elapsed time.Duration) []Phase {
	var out []Phase
	usual := 0.0 // origin calls per second in the control
	for i := range counts {
		c := &counts[i]
		to := min(c.to, elapsed)
		if to < c.from || to == c.from && i > 0 {
			break
		}
		p := Phase{What: c.what, From: scenario.Duration(c.from), To: scenario.Duration(to), Moves: c.nodes * ratio(float64(keys), float64(nodes)),
			Gets: float64(c.gets.Load()), OriginCalls: float64(c.calls.Load()), Errors: float64(c.errors.Load()), Lost: float64(c.lost.Load())}
		if secs := (to - c.from).Seconds(); i == 0 {
			usual = ratio(p.OriginCalls, secs)
		} else {
			p.Caused = p.OriginCalls - usual*secs
		}
		out = append(out, p)
	}
	return out
}
