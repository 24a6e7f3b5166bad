package report

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/weircache/weir/bench/harness"
)

// The figures that SVG draws besides those of a measure.
const (
	timelineFigure = "timeline" // the fraction of the gets that were answered, over time
	eventsFigure   = "events"   // origin calls that each fault caused
)

// figures returns what SVG can draw: each measure, by its name in the JSON, and the other figures.
func figures() []string {
	names := []string{timelineFigure, eventsFigure}
	for _, m := range measures() {
		names = append(names, m.name)
	}
	return names
}

// SVG draws a figure for a document: a measure, with a dot for the overall value of each system and a whisker from the
// least to the most of a round, or one of the other figures. Scales are linear. The figure is legible on light and dark
// backgrounds.
func SVG(w io.Writer, r *harness.Report, name string) error {
	var d drawing
	switch i := slices.IndexFunc(measures(), func(m measure) bool { return m.name == name }); {
	case i >= 0:
		m := measures()[i]
		d.dots(r.Scenario.Name+": "+m.what, []group{measureGroup(r, m)}, m.format)
	case name == eventsFigure:
		groups := eventGroups(r)
		if len(groups) == 0 {
			return fmt.Errorf("report: scenario %s has no faults by which its phases are counted: it lacks by_fault", r.Scenario.Name)
		}
		d.dots(r.Scenario.Name+": origin calls that each event causes", groups, whole)
	case name == timelineFigure:
		if !slices.ContainsFunc(r.Systems, func(s *harness.Result) bool { return len(answered(s)) > 0 }) {
			return fmt.Errorf("report: the result of scenario %s has no timeline: measure it with --svg timeline", r.Scenario.Name)
		}
		d.lines(r)
	default:
		return fmt.Errorf("report: there is no figure %q; there are %s", name, strings.Join(figures(), ", "))
	}
	return d.write(w, r)
}

// A group of a figure has a dot for each system.
type group struct {
	name string // empty: the figure has only one group
	dots []dot
}

// A dot is a system's value. least and most are those of a round.
type dot struct {
	name               string
	value, least, most float64
	missing            string // not empty: why there is no value
}

func measureGroup(r *harness.Report, m measure) group {
	var g group
	for _, s := range r.Systems {
		x := dot{name: called(s), value: m.of(&s.Overall), least: m.of(&s.Least), most: m.of(&s.Most)}
		switch {
		case len(s.Rounds) == 0:
			x.missing = "not measured"
		case m.isVoid(s):
			x.missing = void
		case math.IsInf(x.value, 0):
			x.missing = m.format(x.value)
		}
		if math.IsInf(x.most, 0) { // some rounds have a value
			x.most = x.value
		}
		g.dots = append(g.dots, x)
	}
	return g
}

// eventGroups returns a group for each fault of a report that counts by fault.
func eventGroups(r *harness.Report) []group {
	names := furthest(r)
	var groups []group
	for i := 1; i < len(names); i++ {
		g := group{name: names[i].What}
		for _, s := range r.Systems {
			xs := phaseValues(s, i, func(p harness.Phase) float64 { return max(0, p.Caused) })
			if len(xs) == 0 {
				g.dots = append(g.dots, dot{name: called(s), missing: "not measured"})
				continue
			}
			g.dots = append(g.dots, dot{name: called(s), value: xs[(len(xs)-1)/2], least: xs[0], most: xs[len(xs)-1]})
		}
		groups = append(groups, g)
	}
	return groups
}

// A drawing is an SVG under construction.
type drawing struct {
	title  string
	body   strings.Builder
	height int
}

// The geometry of a drawing, in pixels.
const (
	width     = 760
	labelEnd  = 200
	plotWidth = 430
	rowHeight = 22
	top       = 36
)

// hue returns the class of a system's colour: weir's, or one of the others'.
func hue(i int) string { return fmt.Sprintf("s%d", i%9) }

func (d *drawing) text(x float64, y int, class, anchor, text string) {
	fmt.Fprintf(&d.body, `<text x="%.1f" y="%d" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(text))
}

// dots draws groups of dots with whiskers on one scale from 0.
func (d *drawing) dots(title string, groups []group, format func(float64) string) {
	d.title = title
	most := 0.0
	for _, g := range groups {
		for _, x := range g.dots {
			if x.missing == "" {
				most = max(most, x.most)
			}
		}
	}
	at := func(v float64) float64 {
		if most == 0 {
			return labelEnd
		}
		return labelEnd + plotWidth*max(0, v)/most
	}
	y := top
	for _, g := range groups {
		if g.name != "" {
			y += rowHeight
			d.text(8, y-6, "b", "start", g.name)
		}
		for i, x := range g.dots {
			mid := y + rowHeight/2
			d.text(labelEnd-12, mid+4, "t", "end", x.name)
			fmt.Fprintf(&d.body, `<line x1="%d" y1="%d" x2="%d" y2="%d" class="g"/>`+"\n", labelEnd, mid, labelEnd+plotWidth, mid)
			y += rowHeight
			if x.missing != "" {
				d.text(labelEnd+6, mid+4, "t", "start", x.missing)
				continue
			}
			fmt.Fprintf(&d.body, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" class="w %s"/><circle cx="%.1f" cy="%d" r="5" class="f %s"/>`+"\n",
				at(x.least), mid, at(x.most), mid, hue(i), at(x.value), mid, hue(i))
			d.text(max(at(x.most), at(x.value))+9, mid+4, "t", "start", spread(x.value, x.least, x.most, format))
		}
	}
	d.height = y + 8
}

// lines draws, for each system, the fraction of the gets that were answered over time: the median over the rounds.
func (d *drawing) lines(r *harness.Report) {
	d.title = r.Scenario.Name + ": fraction of the gets that were answered"
	const plotTop, plotHeight, left, right = top + 6, 220, 52, width - 190
	long := r.Scenario.Duration.D().Seconds()
	x := func(t float64) float64 { return left + (right-left)*t/long }
	y := func(v float64) float64 { return plotTop + plotHeight*(1-v) }
	for _, v := range []float64{0, 0.25, 0.5, 0.75, 1} {
		fmt.Fprintf(&d.body, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" class="g"/>`+"\n", left, y(v), right, y(v))
		d.text(left-6, int(y(v))+4, "t", "end", fmt.Sprintf("%.0f %%", 100*v))
	}
	for _, o := range r.Scenario.Origin.Outages {
		from, to := x(o.From.D().Seconds()), x(o.To.D().Seconds())
		fmt.Fprintf(&d.body, `<rect x="%.1f" y="%d" width="%.1f" height="%d" class="o"/>`+"\n", from, plotTop, to-from, plotHeight)
	}
	for i := range r.Systems { // weir last, on top of the others
		i = len(r.Systems) - 1 - i
		s := r.Systems[i]
		var path strings.Builder
		for _, p := range answered(s) {
			fmt.Fprintf(&path, "%.1f,%.1f ", x(p[0]), y(p[1]))
		}
		fmt.Fprintf(&d.body, `<polyline points="%s" class="l %s"/>`+"\n", strings.TrimSpace(path.String()), hue(i))
		mid := plotTop + 10 + rowHeight*i
		fmt.Fprintf(&d.body, `<line x1="%d" y1="%d" x2="%d" y2="%d" class="l %s"/>`+"\n", right+14, mid, right+34, mid, hue(i))
		d.text(right+40, mid+4, "t", "start", called(s))
	}
	for t := 0.0; t <= long; t += max(1, math.Round(long/6)) {
		d.text(x(t), plotTop+plotHeight+16, "t", "middle", fmt.Sprintf("%.0f s", t))
	}
	d.height = max(plotTop+plotHeight+24, plotTop+rowHeight*len(r.Systems)+20)
}

// answered returns the points of a system's timeline: a time in s, and the median over the rounds of the fraction of
// gets due then that did not end in an error.
func answered(s *harness.Result) [][2]float64 {
	var out [][2]float64
	for i := 0; ; i++ {
		var at float64
		var xs []float64
		for _, one := range s.Rounds {
			if i < len(one.Timeline) && one.Timeline[i].Offered > 0 {
				p := one.Timeline[i]
				at = p.T
				xs = append(xs, 1-min(1, p.Errors/p.Offered))
			}
		}
		if len(xs) == 0 {
			if !slices.ContainsFunc(s.Rounds, func(one harness.Round) bool { return i < len(one.Timeline) }) {
				return out
			}
			continue
		}
		slices.Sort(xs)
		out = append(out, [2]float64{at, xs[(len(xs)-1)/2]})
	}
}

// write writes the drawing with its title, and with the revision and the machine below it.
func (d *drawing) write(w io.Writer, r *harness.Report) error {
	var b strings.Builder
	title := html.EscapeString(d.title)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="%s">`+"\n",
		width, d.height+22, title)
	b.WriteString(`<style>.t,.b{fill:#444}.b{font-weight:600}.c{fill:#777;font-size:11px}.g{stroke:#8884;stroke-width:1}.o{fill:#8883}.w{stroke-width:3;opacity:.5}.l{fill:none;stroke-width:2}`)
	for i, c := range []string{"#1668b8", "#b3541e", "#5f7d1b", "#7a4fa3", "#8a6d00", "#0f7f86", "#8c564b", "#b03a73", "#666666"} {
		fmt.Fprintf(&b, `.s%d{stroke:%s}.f.s%d{fill:%s}`, i, c, i, c)
	}
	b.WriteString(`@media(prefers-color-scheme:dark){.t,.b{fill:#ccc}.c{fill:#999}`)
	for i, c := range []string{"#6cb4ff", "#f0935a", "#a9cf5a", "#c49cf0", "#e0c050", "#5cd0d8", "#d6a090", "#f08cbc", "#aaaaaa"} {
		fmt.Fprintf(&b, `.s%d{stroke:%s}.f.s%d{fill:%s}`, i, c, i, c)
	}
	b.WriteString("}</style>\n")
	fmt.Fprintf(&b, `<text x="8" y="20" class="b">%s</text>`+"\n", title)
	b.WriteString(d.body.String())
	fmt.Fprintf(&b, `<text x="8" y="%d" class="c">%s</text>`+"\n</svg>\n", d.height+14,
		html.EscapeString(fmt.Sprintf("%d rounds, revision %s, %s", r.Rounds, r.Revision, r.Machine)))
	_, err := io.WriteString(w, b.String())
	return err
}
