package report

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"

	"github.com/weircache/weir/bench/harness"
)

// barNames returns the measures that SVG can draw, by their names in the CSV.
func barNames() []string {
	var names []string
	for _, m := range measures() {
		names = append(names, m.name)
	}
	return names
}

// SVG draws one measure for a document, with one bar per system. It is legible on light and dark backgrounds.
// Values that are far apart are drawn on a logarithmic scale, which the title says.
func SVG(w io.Writer, r *harness.Report, name string) error {
	var m *measure
	for _, x := range measures() {
		if x.name == name {
			m = &x
			break
		}
	}
	if m == nil {
		return fmt.Errorf("report: there is no measure %q; there are %s", name, strings.Join(barNames(), ", "))
	}
	least, most := math.Inf(1), 0.0
	for _, s := range r.Systems {
		if v := m.of(&s.Median); v > 0 {
			least, most = min(least, v), max(most, v)
		}
	}
	title := fmt.Sprintf("%s: %s", r.Scenario.Name, m.what)
	logarithmic := most > 50*least
	if logarithmic {
		title += " (logarithmic)"
	}
	const label, full, row = 230, 400, 26
	var b strings.Builder
	height := 40 + row*len(r.Systems)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 %d" font-family="system-ui, sans-serif" font-size="13" fill="#777" role="img" aria-label="%s">`+"\n",
		height, html.EscapeString(title))
	fmt.Fprintf(&b, `<text x="8" y="20" font-weight="bold">%s</text>`+"\n", html.EscapeString(title))
	for i, s := range r.Systems {
		v := m.of(&s.Median)
		long := 0.0
		switch {
		case v <= 0:
		case logarithmic: // the smallest bar is a twentieth of the full length, so that it is visible
			long = full * (0.05 + 0.95*math.Log(v/least)/math.Log(most/least))
		default:
			long = full * v / most
		}
		text, fill := m.format(v), "#8a8a8a"
		if len(s.Rounds) == 0 {
			text = "not measured"
		} else if s.Partial != "" {
			text += " (partial)"
		}
		if i == 0 {
			fill = "#1f77b4"
		}
		y := 34 + row*i
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, label-8, y+14, html.EscapeString(s.Name))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="18" rx="2" fill="%s"/>`, label, y, max(long, 1), fill)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", label+max(long, 1)+6, y+14, html.EscapeString(text))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}
