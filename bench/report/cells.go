package report

import (
	"math"
	"slices"

	"github.com/weircache/weir/bench/harness"
)

// void is the cell of a value of which the harness's own part is too large.
const void = "void"

// lateMost is the largest part of a value that may come from the harness.
const lateMost = 0.1

// answeredLeast is the least fraction of its gets that a system answers to rank in the rows that do not count failures.
const answeredLeast = 0.999

// legend returns the lines that explain stars and void cells, as far as the table has any.
func legend(r *harness.Report) []string {
	if len(r.Systems) < 2 {
		return nil
	}
	return []string{
		"A star marks the best of a row whose rounds do not overlap with those of the others. A system that left more than one get in a",
		"thousand unanswered, or gave a wrong answer, or a stale one after it had confirmed the invalidation, has stars only in the rows that",
		"count these. A void cell is one of which the harness's own part is more than a tenth.",
	}
}

// cells returns the table: one row per measure, one column per system.
func cells(r *harness.Report) [][]string {
	head := []string{""}
	for _, s := range r.Systems {
		head = append(head, called(s))
	}
	rows := [][]string{head}
	for _, m := range shown(r) {
		best := m.best(r)
		row := []string{m.what}
		for i, s := range r.Systems {
			text := m.cell(s)
			if best[i] {
				text += " *"
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	return rows
}

// called returns a system's name, with a remark if it was only partly measured.
func called(s *harness.Result) string {
	if s.Partial != "" {
		return s.Name + " (partial)"
	}
	return s.Name
}

// cell returns a system's value, with the least and the most of a round if they differ.
func (m measure) cell(s *harness.Result) string {
	switch {
	case len(s.Rounds) == 0:
		return "-"
	case m.isVoid(s):
		return void
	}
	return spread(m.of(&s.Overall), m.of(&s.Least), m.of(&s.Most), m.format)
}

// isVoid reports whether the harness's part of a system's value is too large.
func (m measure) isVoid(s *harness.Result) bool {
	return m.late != nil && m.late(&s.Overall) > lateMost*m.of(&s.Overall)
}

// best reports for each system whether it is the best of the row: it ranks, its value is as good as any, and its worst
// round is better than the best round of each system that ranks and whose value is worse. If all are equal, none is best.
func (m measure) best(r *harness.Report) []bool {
	out := make([]bool, len(r.Systems))
	if m.better == 0 {
		return out
	}
	worse := func(s *harness.Result) float64 { // the greater, the worse
		return -float64(m.better) * m.of(&s.Overall)
	}
	least := math.Inf(1)
	for _, s := range r.Systems {
		if m.ranks(s) {
			least = min(least, worse(s))
		}
	}
	level := func(s *harness.Result) bool {
		return m.format(m.of(&s.Overall)) == m.format(-float64(m.better)*least)
	}
	others := false
	for i, s := range r.Systems {
		if !m.ranks(s) {
			continue
		}
		out[i] = level(s)
		others = others || !out[i]
	}
	if !others {
		return make([]bool, len(r.Systems))
	}
	for i, s := range r.Systems {
		for _, other := range r.Systems {
			if out[i] && m.ranks(other) && !level(other) && m.overlap(s, other) {
				return make([]bool, len(r.Systems))
			}
		}
	}
	return out
}

// overlap reports whether the worst round of a is no better than the best round of b.
func (m measure) overlap(a, b *harness.Result) bool {
	if m.better < 0 {
		return m.of(&a.Most) >= m.of(&b.Least)
	}
	return m.of(&a.Least) <= m.of(&b.Most)
}

// ranks reports whether a system can have the star of the row: it has complete rounds, since in a partial run all
// counts are low, it is fit for comparison unless the row counts what it lacks for that, and the value is neither void
// nor the amplification of a system that omitted loads which were due.
func (m measure) ranks(s *harness.Result) bool {
	complete := slices.ContainsFunc(s.Rounds, func(one harness.Round) bool { return one.Partial == "" })
	fit := s.Least.Answered >= answeredLeast && s.Overall.Wrong == 0 && s.Overall.Broken == 0
	value := m.of(&s.Overall)
	return complete && (fit || m.every) && !m.isVoid(s) && !math.IsInf(value, 0) && !(m.name == "amplification" && value < 1)
}
