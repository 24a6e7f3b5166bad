package bench

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Aim is what a row's figure is held against: nothing, a most or a least.
type Aim struct {
	limit float64
	kind  int // -1 a most, +1 a least, 0 none
}

// AtMost is an aim that is met by limit and below.
func AtMost(limit float64) Aim { return Aim{limit, -1} }

// AtLeast is an aim that is met by limit and above.
func AtLeast(limit float64) Aim { return Aim{limit, +1} }

// Met reports whether x meets the aim; NaN never does. Without an aim all do.
func (a Aim) Met(x float64) bool {
	switch a.kind {
	case -1:
		return x <= a.limit
	case +1:
		return x >= a.limit
	}
	return true
}

// A Row is a line of the table. A row without a ratio holds Value against its aim, if any.
type Row struct {
	What   string
	Value  float64 // what Result says, for the aim of a row without a ratio
	Result string
	Floor  string  // what it is compared with; empty: nothing
	Ratio  float64 // of the result to the floor; 0: none
	Aim    Aim
	Note   string // in place of the verdict: why there is none
}

// Verdict is "met", "LOST", or the note, or nothing where nothing is aimed at.
func (r Row) Verdict() string {
	x := r.Value
	if r.Ratio != 0 {
		x = r.Ratio
	}
	switch {
	case r.Note != "":
		return r.Note
	case r.Aim.kind == 0:
		return ""
	case r.Aim.Met(x):
		return "met"
	}
	return "LOST"
}

func (r Row) cells() []string {
	ratio, aim := "", ""
	suffix := ""
	if r.Ratio != 0 {
		ratio, suffix = fmt.Sprintf("%.2f x", r.Ratio), " x"
	}
	number := strconv.FormatFloat(r.Aim.limit, 'f', -1, 64)
	switch r.Aim.kind {
	case -1:
		aim = "<= " + number + suffix
	case +1:
		aim = ">= " + number + suffix
	}
	return []string{r.What, r.Result, r.Floor, ratio, aim, r.Verdict()}
}

// Table is the rows in order. The zero Table is empty.
type Table struct {
	Heading []string // lines above it
	Rows    []Row
}

// Add appends rows.
func (t *Table) Add(rows ...Row) { t.Rows = append(t.Rows, rows...) }

// Lost is how many rows miss their aim.
func (t *Table) Lost() int {
	n := 0
	for _, r := range t.Rows {
		if r.Verdict() == "LOST" {
			n++
		}
	}
	return n
}

// WriteTo writes the table as Markdown that also reads well as it is.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	lines := [][]string{{"what", "result", "floor", "ratio", "aim", ""}, nil}
	for _, r := range t.Rows {
		lines = append(lines, r.cells())
	}
	widths := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, c := range l {
			widths[i] = max(widths[i], utf8.RuneCountInString(c), 3)
		}
	}
	var b strings.Builder
	for _, h := range t.Heading {
		b.WriteString(h + "\n")
	}
	if len(t.Heading) > 0 {
		b.WriteByte('\n')
	}
	for _, l := range lines {
		for i, width := range widths {
			c := strings.Repeat("-", width)
			if l != nil {
				c = l[i] + strings.Repeat(" ", width-utf8.RuneCountInString(l[i]))
			}
			b.WriteString("| " + c + " ")
		}
		b.WriteString("|\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// Count writes a whole number with commas: 1,234,567.
func Count(x float64) string {
	s := strconv.FormatFloat(math.Round(x), 'f', 0, 64)
	first := 0
	if strings.HasPrefix(s, "-") {
		first = 1
	}
	for i := len(s) - 3; i > first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
