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
	// late is the part of the value that comes from the harness, nil: none. Where it is more than a tenth, the value is void.
	late func(m *harness.Measures) float64
	// every: also a system that is not fit for comparison ranks in this row.
	every bool
}

func whole(x float64) string { return bench.Count(x) }

// digits formats a number with three significant digits.
func digits(x float64) string {
	if math.IsInf(x, 0) {
		return "never"
	}
	return bench.Digits(x)
}

func percent(x float64) string { return strconv.FormatFloat(100*x, 'f', 2, 64) + " %" }

func recovered(x float64) string {
	if math.IsInf(x, 0) {
		return "not within the run"
	}
	return digits(x)
}

// latency formats a latency. That of a get that was not answered is infinite.
func latency(x float64) string {
	if math.IsInf(x, 0) {
		return "failed"
	}
	return digits(x)
}

// spread formats a value, with the least and the most of a round if they differ.
func spread(value, least, most float64, format func(float64) string) string {
	text := format(value)
	if least, most := format(least), format(most); least != most {
		text += " (" + least + " to " + most + ")"
	}
	return text
}

type ms = harness.Measures

// measures returns all rows, in order.
func measures() []measure {
	return []measure{
		{name: "gets_per_second", what: "gets a second", of: func(m *ms) float64 { return m.Rate }, format: whole, always: true},
		{name: "answered", what: "gets answered", of: func(m *ms) float64 { return m.Answered }, format: percent, better: +1, always: true, every: true},
		{name: "errors", what: "errors, all rounds", of: func(m *ms) float64 { return m.Errors }, format: whole, better: -1, always: true, every: true},
		{name: "lost", what: "lost with their node, all rounds", of: func(m *ms) float64 { return m.Lost }, format: whole},
		{name: "p50_ms", what: "p50, ms", of: func(m *ms) float64 { return float64(m.P50) }, format: latency, better: -1, always: true,
			late: func(m *ms) float64 { return float64(m.LateP50) }},
		{name: "p99_ms", what: "p99, ms", of: func(m *ms) float64 { return float64(m.P99) }, format: latency, better: -1, always: true,
			late: func(m *ms) float64 { return float64(m.LateP99) }},
		{name: "p999_ms", what: "p99.9, ms", of: func(m *ms) float64 { return float64(m.P999) }, format: latency, better: -1, always: true,
			late: func(m *ms) float64 { return float64(m.LateP999) }},
		{name: "max_ms", what: "slowest, ms", of: func(m *ms) float64 { return float64(m.Max) }, format: latency, better: -1, always: true,
			late: func(m *ms) float64 { return float64(m.LateMax) }},
		{name: "harness_p99_ms", what: "of p99 the harness's own, ms", of: func(m *ms) float64 { return float64(m.LateP99) }, format: digits, always: true},
		{name: "wrong", what: "wrong answers, all rounds", of: func(m *ms) float64 { return m.Wrong }, format: whole, better: -1, every: true},
		{name: "stale", what: "stale answers, all rounds", of: func(m *ms) float64 { return m.Stale }, format: whole, better: -1, every: true},
		{name: "stale_max_ms", what: "stale answers, oldest, ms", of: func(m *ms) float64 { return m.MaxStale }, format: whole, better: -1, every: true},
		{name: "stale_after_invalidate", what: "stale after a confirmed invalidation, all rounds", of: func(m *ms) float64 { return m.Broken }, format: whole, better: -1, every: true},
		{name: "stale_rejoined", what: "stale on a member back in sight, of what it missed, all rounds", of: func(m *ms) float64 { return m.Rejoined }, format: whole, better: -1, every: true},
		{name: "stale_cut_off", what: "stale on a member while it was cut off, all rounds", of: func(m *ms) float64 { return m.CutOff }, format: whole, better: -1, every: true},
		{name: "stale_cut_off_max_ms", what: "stale while cut off, oldest, ms", of: func(m *ms) float64 { return m.MaxCutOff }, format: whole, better: -1, every: true},
		{name: "origin_calls", what: "origin calls", of: func(m *ms) float64 { return m.OriginCalls }, format: whole, better: -1, always: true},
		{name: "due", what: "loads due (ideal cache)", of: func(m *ms) float64 { return m.Due }, format: whole, always: true},
		{name: "amplification", what: "amplification", of: func(m *ms) float64 { return m.Amplification }, format: digits, better: -1, always: true},
		{name: "origin_peak", what: "origin: loads at once, peak", of: func(m *ms) float64 { return m.OriginPeak }, format: whole, better: -1, always: true},
		{name: "origin_mean", what: "origin: loads at once, mean", of: func(m *ms) float64 { return m.OriginMean }, format: digits, better: -1, always: true},
		{name: "origin_seconds", what: "origin: seconds spent", of: func(m *ms) float64 { return m.OriginSeconds }, format: digits, better: -1, always: true},
		{name: "origin_failed", what: "origin: failed loads", of: func(m *ms) float64 { return m.OriginFailed }, format: whole},
		{name: "served_per_fill", what: "gets served for each load", of: func(m *ms) float64 { return m.PerFill }, format: digits, better: +1, always: true},
		{name: "hit_ratio", what: "hit ratio of answered gets", of: func(m *ms) float64 { return m.HitRatio }, format: percent, better: +1, always: true},
		{name: "age_max_ms", what: "oldest answer, ms", of: func(m *ms) float64 { return m.MaxAge }, format: whole, always: true},
		{name: "recover_seconds", what: "callers felt a fault for, s", of: func(m *ms) float64 { return float64(m.Recover) }, format: recovered, better: -1},
		{name: "cpu_seconds_per_million_gets", what: "CPU seconds for a million gets", of: func(m *ms) float64 { return m.CPUPerMillion }, format: digits, better: -1},
		{name: "harness_cpu_seconds_per_million_gets", what: "and the harness's own, subtracted", of: func(m *ms) float64 { return m.HarnessCPUPerMillion }, format: digits},
		{name: "allocs_per_million_gets", what: "allocations for a get", of: func(m *ms) float64 { return m.AllocsPerMillion / 1e6 }, format: digits, better: -1},
		{name: "harness_allocs_per_million_gets", what: "and the harness's own, subtracted", of: func(m *ms) float64 { return m.HarnessAllocsPerMillion / 1e6 }, format: digits},
		{name: "heap_bytes_per_key", what: "heap bytes for each key", of: func(m *ms) float64 { return m.HeapPerKey }, format: whole, better: -1},
	}
}

// shown returns the measures that are informative for a report.
func shown(r *harness.Report) []measure {
	var out []measure
	for _, m := range measures() {
		show := m.always
		for _, s := range r.Systems {
			show = show || m.of(&s.Overall) != 0
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
		fmt.Sprintf("%s (%s), %v, rounds: %d. Medians, and the least and the most of a round; counts over all rounds where the row says so.",
			nodes(s.Cluster.Nodes), s.Cluster.Kind, s.Duration, r.Rounds),
		"Measured on: " + r.Machine + ". Revision: " + r.Revision + ".",
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
	for _, l := range legend(r) {
		b.WriteString(l + "\n")
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
