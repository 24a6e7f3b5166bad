package report

import (
	"fmt"
	"slices"

	"github.com/weircache/weir/bench/harness"
)

const phasesHead = "Fault by fault, each until the next one. *Caused* are the origin calls that the rate before the first fault does not account for; " +
	"*keys that move* are those of a node that owns as many as the others, in a rolling restart of each node twice."

// phases returns the table of what each fault cost: three rows per fault, one column per system, with medians over
// the rounds that have the phase. For an even number of rounds it is the lower middle value. nil: the scenario did
// not request the table.
func phases(r *harness.Report) [][]string {
	names := furthest(r)
	if names == nil {
		return nil
	}
	head := []string{""}
	for _, s := range r.Systems {
		head = append(head, s.Name)
	}
	rows := [][]string{head}
	row := func(i int, what string, of func(p harness.Phase) float64, format func(float64) string) {
		line := []string{what}
		for _, s := range r.Systems {
			line = append(line, middle(s, i, of, format))
		}
		rows = append(rows, line)
	}
	for i, p := range names {
		what, calls := p.What, func(p harness.Phase) float64 { return p.Caused }
		label := what + ": origin calls caused"
		if i == 0 {
			what = fmt.Sprintf("no change, %v", p.To.D()-p.From.D())
			label, calls = what+": origin calls", func(p harness.Phase) float64 { return p.OriginCalls }
		}
		row(i, label, calls, whole)
		if p.Moves > 0 {
			row(i, fmt.Sprintf("%s: for each of %s keys that move", what, whole(p.Moves)), func(p harness.Phase) float64 { return ratioOf(p.Caused, p.Moves) }, digits)
		}
		row(i, what+": errors of callers", func(p harness.Phase) float64 { return p.Errors + p.Lost }, whole)
	}
	return rows
}

// furthest returns the phases of the round that got furthest, of any system.
func furthest(r *harness.Report) (phases []harness.Phase) {
	for _, s := range r.Systems {
		for _, one := range s.Rounds {
			if len(one.Phases) > len(phases) {
				phases = one.Phases
			}
		}
	}
	return phases
}

func ratioOf(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// phaseValues returns a number of the phase of each round that has it, in ascending order.
func phaseValues(s *harness.Result, i int, of func(harness.Phase) float64) []float64 {
	var xs []float64
	for _, one := range s.Rounds {
		if i < len(one.Phases) {
			xs = append(xs, of(one.Phases[i]))
		}
	}
	slices.Sort(xs)
	return xs
}

// middle returns the median of a number of the phase, with its least and its most, or "-" if no round has it.
func middle(s *harness.Result, i int, of func(harness.Phase) float64, format func(float64) string) string {
	xs := phaseValues(s, i, of)
	if len(xs) == 0 {
		return "-"
	}
	return spread(xs[(len(xs)-1)/2], xs[0], xs[len(xs)-1], format)
}
