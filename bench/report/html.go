package report

import (
	_ "embed"
	"html/template"
	"io"
	"strings"

	"github.com/weircache/weir/bench/harness"
)

//go:embed assets/uPlot.iife.min.js
var uplotJS string

//go:embed assets/uPlot.min.css
var uplotCSS string

//go:embed assets/uPlot.LICENSE
var uplotLicence string

//go:embed assets/page.js
var pageJS string

//go:embed assets/page.html
var pageHTML string

// series is the data of a system for the page's plots: its last complete round.
type series struct {
	Name     string             `json:"name"`
	Timeline []harness.Point    `json:"timeline"`
	Latency  []harness.Quantile `json:"latency"`
	Marks    []harness.Mark     `json:"marks"`
	Colour   string             `json:"colour"`
}

// bars compare the systems in one measure.
type bars struct {
	Title string
	Bars  []bar
}

type bar struct {
	Name, Text, Colour string
	Percent            float64 // of the longest; -1: not measured
}

// colour returns the colour of a system, in bars and plots alike. Grey is reserved for the offered load.
func colour(i int) string {
	return []string{"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2"}[i%8]
}

// called returns a system's name, with a remark if it was only partly measured.
func called(s *harness.Result) string {
	if s.Partial != "" {
		return s.Name + " (partial)"
	}
	return s.Name
}

// barsOf returns the bars of a measure.
func barsOf(r *harness.Report, m measure) bars {
	out := bars{Title: m.what + map[int]string{-1: ", less is better", 1: ", more is better"}[m.better]}
	most := 0.0
	for _, s := range r.Systems {
		most = max(most, m.of(&s.Median))
	}
	for i, s := range r.Systems {
		b := bar{Name: s.Name, Text: "not measured", Colour: colour(i), Percent: -1}
		if len(s.Rounds) > 0 {
			v := m.of(&s.Median)
			b.Text, b.Percent = m.format(v), 0
			if v > 0 {
				b.Percent = 100 * v / most
			}
			if s.Partial != "" {
				b.Text += " (partial)"
			}
		}
		out.Bars = append(out.Bars, b)
	}
	return out
}

// HTML writes one self-contained file: the table, the notes, the scenario, plots of load, origin and latency over
// time with the faults marked, a plot of latency by percentile, and bars.
func HTML(w io.Writer, r *harness.Report) error {
	page, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return err
	}
	full, err := r.Scenario.YAML()
	if err != nil {
		return err
	}
	var all []series
	var side []bars
	for _, m := range measures() {
		switch m.name {
		case "origin_calls", "origin_peak", "hit_ratio", "p99_ms", "errors", "cpu_seconds_per_million_gets":
			side = append(side, barsOf(r, m))
		}
	}
	for i, s := range r.Systems {
		one := series{Name: called(s), Timeline: []harness.Point{}, Colour: colour(i)}
		for _, x := range s.Rounds {
			if len(one.Timeline) == 0 || x.Partial == "" {
				one.Timeline, one.Latency, one.Marks = x.Timeline, x.Latency, x.Marks
			}
		}
		all = append(all, one)
	}
	rows := cells(r)
	return page.Execute(w, map[string]any{
		"Title": "weir bench: " + r.Scenario.Name, "Header": header(r), "Head": rows[0], "Rows": rows[1:], "Notes": append(notes(r), claims(r)...),
		"Phases": phases(r), "PhasesHead": strings.ReplaceAll(phasesHead, "*", ""), "Partial": r.Partial != "",
		"Several": len(r.Systems) > 1, "Side": side, "Scenario": string(full), "Command": r.Command, "Began": r.Began.Format("2006-01-02 15:04 MST"),
		"CSS": template.CSS(uplotCSS), "UPlot": template.JS(uplotJS), "Licence": uplotLicence, "Script": template.JS(pageJS),
		"Data": map[string]any{"systems": all},
	})
}
