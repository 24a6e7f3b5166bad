package report

import (
	_ "embed"
	"html/template"
	"io"

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

// series is what the page's script plots of a system: of its last whole round.
type series struct {
	Name     string             `json:"name"`
	Timeline []harness.Point    `json:"timeline"`
	Latency  []harness.Quantile `json:"latency"`
	Marks    []harness.Mark     `json:"marks"`
	Bars     []float64          `json:"bars"` // by the page's bars
}

type bar struct {
	Title  string `json:"title"`
	Better string `json:"better"`
}

// HTML writes one file that holds all it needs: the table, the notes, the scenario, and plots
// of load, origin and latency over time with the faults marked, of latency by percentile, and bars.
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
	var bars []bar
	var picked []measure
	for _, m := range measures() {
		switch m.name {
		case "origin_calls", "amplification", "origin_peak", "p99_ms", "errors", "cpu_seconds_per_million_gets":
			picked = append(picked, m)
			bars = append(bars, bar{m.what, map[int]string{-1: "less is better", 1: "more is better"}[m.better]})
		}
	}
	for _, s := range r.Systems {
		one := series{Name: s.Name, Timeline: []harness.Point{}}
		for _, x := range s.Rounds {
			if len(one.Timeline) == 0 || x.Partial == "" {
				one.Timeline, one.Latency, one.Marks = x.Timeline, x.Latency, x.Marks
			}
		}
		for _, m := range picked {
			one.Bars = append(one.Bars, m.of(&s.Median))
		}
		all = append(all, one)
	}
	rows := cells(r)
	return page.Execute(w, map[string]any{
		"Title": "weir bench: " + r.Scenario.Name, "Header": header(r), "Head": rows[0], "Rows": rows[1:], "Notes": append(notes(r), claims(r)...),
		"Several": len(r.Systems) > 1, "Scenario": string(full), "Command": r.Command, "Began": r.Began.Format("2006-01-02 15:04 MST"),
		"CSS": template.CSS(uplotCSS), "UPlot": template.JS(uplotJS), "Licence": uplotLicence, "Script": template.JS(pageJS),
		"Data": map[string]any{"systems": all, "bars": bars},
	})
}
