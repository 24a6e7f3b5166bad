package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/harness"
)

// measure is a row of the table.
type measure struct {
	name   string // its name for programs
	what   string
	of     func(m *harness.Measures) float64
	format func(x float64) string
	better int  // -1: lower is better, +1: higher, 0: neither
	always bool // shown even if it is 0 for all systems
}

func whole(x float64) string { return bench.Count(x) }

// digits formats a number with three significant digits.
func digits(x float64) string {
	if math.Abs(x) >= 1000 {
		return bench.Count(x)
	}
	if x == 0 {
		return "0"
	}
	n := max(0, 2-int(math.Floor(math.Log10(math.Abs(x)))))
	return strconv.FormatFloat(x, 'f', min(n, 4), 64)
}

func percent(x float64) string { return strconv.FormatFloat(100*x, 'f', 2, 64) + " %" }

func recovered(x float64) string {
	if x < 0 {
		return "not within the run"
	}
	return digits(x)
}

type ms = harness.Measures

// measures returns all rows, in order.
func measures() []measure {
	return []measure{
		{"gets_per_second", "gets a second", func(m *ms) float64 { return m.Rate }, whole, 0, true},
		{"origin_calls", "origin calls", func(m *ms) float64 { return m.OriginCalls }, whole, -1, true},
		{"due", "loads due (ideal cache)", func(m *ms) float64 { return m.Due }, whole, 0, true},
		{"amplification", "amplification", func(m *ms) float64 { return m.Amplification }, digits, -1, true},
		{"origin_peak", "origin: loads at once, peak", func(m *ms) float64 { return m.OriginPeak }, whole, -1, true},
		{"origin_mean", "origin: loads at once, mean", func(m *ms) float64 { return m.OriginMean }, digits, -1, true},
		{"origin_seconds", "origin: seconds spent", func(m *ms) float64 { return m.OriginSeconds }, digits, -1, true},
		{"origin_failed", "origin: failed loads", func(m *ms) float64 { return m.OriginFailed }, whole, 0, false},
		{"served_per_fill", "gets served for each load", func(m *ms) float64 { return m.PerFill }, digits, +1, true},
		{"hit_ratio", "hit ratio", func(m *ms) float64 { return m.HitRatio }, percent, +1, true},
		{"p50_ms", "p50, ms", func(m *ms) float64 { return m.P50 }, digits, -1, true},
		{"p99_ms", "p99, ms", func(m *ms) float64 { return m.P99 }, digits, -1, true},
		{"p999_ms", "p99.9, ms", func(m *ms) float64 { return m.P999 }, digits, -1, true},
		{"max_ms", "slowest, ms", func(m *ms) float64 { return m.Max }, digits, -1, true},
		{"errors", "errors", func(m *ms) float64 { return m.Errors }, whole, -1, true},
		{"lost", "lost with their node", func(m *ms) float64 { return m.Lost }, whole, -1, false},
		{"wrong", "wrong answers", func(m *ms) float64 { return m.Wrong }, whole, -1, false},
		{"stale", "stale answers", func(m *ms) float64 { return m.Stale }, whole, -1, false},
		{"stale_max_ms", "stale answers, oldest, ms", func(m *ms) float64 { return m.MaxStale }, whole, -1, false},
		{"stale_after_invalidate", "stale after a confirmed invalidation", func(m *ms) float64 { return m.Broken }, whole, -1, false},
		{"stale_rejoined", "stale on a member back in sight, of what it missed", func(m *ms) float64 { return m.Rejoined }, whole, -1, false},
		{"stale_cut_off", "stale on a member while it was cut off", func(m *ms) float64 { return m.CutOff }, whole, -1, false},
		{"stale_cut_off_max_ms", "stale while cut off, oldest, ms", func(m *ms) float64 { return m.MaxCutOff }, whole, -1, false},
		{"age_max_ms", "oldest answer, ms", func(m *ms) float64 { return m.MaxAge }, whole, 0, true},
		{"recover_seconds", "callers felt a fault for, s", func(m *ms) float64 { return m.Recover }, recovered, -1, false},
		{"cpu_seconds_per_million_gets", "CPU seconds for a million gets", func(m *ms) float64 { return m.CPUPerMillion }, digits, -1, true},
		{"allocs_per_million_gets", "allocations for a get", func(m *ms) float64 { return m.AllocsPerMillion / 1e6 }, digits, -1, true},
		{"heap_bytes_per_key", "heap bytes for each key", func(m *ms) float64 { return m.HeapPerKey }, whole, -1, true},
		{"harness_p99_ms", "harness late by, p99, ms", func(m *ms) float64 { return m.Late }, digits, 0, true},
	}
}

// shown returns the measures that are informative for a report.
func shown(r *harness.Report) []measure {
	var out []measure
	for _, m := range measures() {
		show := m.always
		for _, s := range r.Systems {
			show = show || m.of(&s.Median) != 0
		}
		if show {
			out = append(out, m)
		}
	}
	return out
}

// header returns the lines above a table.
func header(r *harness.Report) []string {
	s := r.Scenario
	lines := []string{
		strings.TrimSuffix(fmt.Sprintf("Scenario %s: %s", s.Name, strings.TrimSuffix(s.About, ".")), ": ") + ".",
		fmt.Sprintf("%s (%s), %v, rounds: %d. Medians.", nodes(s.Cluster.Nodes), s.Cluster.Kind, s.Duration, r.Rounds),
		"Measured on: " + r.Machine + ".",
	}
	if r.Partial != "" {
		lines = append(lines, "PARTIAL, not all was measured: "+first(r.Partial))
	}
	return lines
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// first returns a text's first line.
func first(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// notes returns the lines below a table: how each system was set up, and what it lacks.
func notes(r *harness.Report) []string {
	var lines []string
	for _, s := range r.Systems {
		line := fmt.Sprintf("%s: %s.", s.Name, strings.TrimSuffix(s.Setup, "."))
		if len(s.Limits) > 0 {
			line += " It has no " + strings.Join(s.Limits, ", no ") + "."
		}
		if len(s.Cannot) > 0 {
			line += " In this scenario it did not do: " + strings.Join(s.Cannot, "; ") + "."
		}
		line += held(s)
		if s.Partial != "" {
			line += " PARTIAL: " + first(s.Partial) + "."
		}
		if kinds := errorKinds(s); kinds != "" {
			line += " Errors: " + kinds + "."
		}
		lines = append(lines, line)
	}
	return lines
}

// held describes what a system held, by its own count, at the end of its last round that reports it.
func held(s *harness.Result) string {
	for _, one := range slices.Backward(s.Rounds) {
		bytes, ok := one.Counters[harness.HeldBytes]
		if !ok {
			continue
		}
		text := " At the end it held " + mebibytes(bytes)
		if n := one.Counters[harness.AllocatedBytes]; n > 0 {
			text += ", and had allocated " + mebibytes(n) + " for that"
		}
		return text + "."
	}
	return ""
}

func mebibytes(n float64) string { return digits(n/(1<<20)) + " MiB" }

// claims returns a line for each claim: its text, and which systems satisfied or violated it.
func claims(r *harness.Report) []string {
	var lines []string
	for i, c := range r.Scenario.Claims {
		var held, not []string
		for _, s := range r.Systems {
			if v := harness.Judge(r.Scenario.Claims, s); v != nil {
				text := fmt.Sprintf("%s (%s)", s.Name, digits(v[i].Value))
				if v[i].Held {
					held = append(held, text)
				} else {
					not = append(not, text)
				}
			}
		}
		line := c.String()
		if len(held) > 0 {
			line += "; held by " + strings.Join(held, ", ")
		}
		if len(not) > 0 {
			line += "; NOT HELD by " + strings.Join(not, ", ")
		}
		lines = append(lines, line+".")
	}
	return lines
}

// errorKinds returns a summary such as "3 timed out, 1 overloaded", over all rounds.
func errorKinds(s *harness.Result) string {
	sum := make(map[string]int64)
	for _, r := range s.Rounds {
		for k, n := range r.Errors {
			sum[k] += n
		}
	}
	var kinds []string
	for k := range sum {
		kinds = append(kinds, k)
	}
	sort.Slice(kinds, func(i, j int) bool {
		if sum[kinds[i]] != sum[kinds[j]] {
			return sum[kinds[i]] > sum[kinds[j]]
		}
		return kinds[i] < kinds[j]
	})
	for i, k := range kinds {
		kinds[i] = fmt.Sprintf("%d %s", sum[k], k)
	}
	return strings.Join(kinds, ", ")
}

// cells returns the table: one row per measure, one column per system. A star marks the best value of a row if
// there are several systems and they differ. A system that was only partly measured gets none.
func cells(r *harness.Report) [][]string {
	head := []string{""}
	for _, s := range r.Systems {
		head = append(head, called(s))
	}
	rows := [][]string{head}
	for _, m := range shown(r) {
		row, texts := []string{m.what}, []string{}
		best, differ := math.Inf(1), false
		for _, s := range r.Systems {
			text := "-"
			if len(s.Rounds) > 0 {
				x := m.of(&s.Median)
				text = m.format(x)
				if v := -float64(m.better) * x; ranks(s) && v < best && !(m.name == "recover_seconds" && x < 0) {
					best = v
				}
			}
			texts = append(texts, text)
		}
		for _, t := range texts {
			differ = differ || t != texts[0] && t != "-"
		}
		for i, s := range r.Systems {
			t := texts[i]
			if differ && m.better != 0 && ranks(s) && m.format(m.of(&s.Median)) == m.format(-float64(m.better)*best) {
				t += " *"
			}
			row = append(row, t)
		}
		rows = append(rows, row)
	}
	return rows
}

// ranks reports whether a system's medians come from complete rounds: in a partial run all counts are low.
func ranks(s *harness.Result) bool {
	return slices.ContainsFunc(s.Rounds, func(one harness.Round) bool { return one.Partial == "" })
}

// Text writes the report as a table that is readable on a terminal and is valid Markdown.
func Text(w io.Writer, r *harness.Report) error {
	var b strings.Builder
	for _, l := range header(r) {
		b.WriteString(l + "\n")
	}
	b.WriteByte('\n')
	b.WriteString(bench.Markdown(cells(r), 1))
	b.WriteByte('\n')
	if rows := phases(r); rows != nil {
		b.WriteString(phasesHead + "\n\n")
		b.WriteString(bench.Markdown(rows, 1))
		b.WriteByte('\n')
	}
	if len(r.Systems) > 1 {
		b.WriteString("The best of a row has a star.\n")
	}
	for _, l := range notes(r) {
		b.WriteString("- " + l + "\n")
	}
	if lines := claims(r); len(lines) > 0 {
		b.WriteString("\nWhat the scenario claims:\n\n")
		for _, l := range lines {
			b.WriteString("- " + l + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
