package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Aim is the target of a row's figure: none, a maximum or a minimum.
type Aim struct {
	limit float64
	kind  int // -1 a maximum, +1 a minimum, 0 none
}

// AtMost returns an aim that values up to limit meet.
func AtMost(limit float64) Aim { return Aim{limit, -1} }

// AtLeast returns an aim that values from limit on meet.
func AtLeast(limit float64) Aim { return Aim{limit, +1} }

// met reports whether x meets the aim. NaN never does. Without an aim every other value does.
func (a Aim) met(x float64) bool {
	switch a.kind {
	case -1:
		return x <= a.limit
	case +1:
		return x >= a.limit
	}
	return true
}

// String returns "<= 1.15", ">= 3", or nothing.
func (a Aim) String() string {
	number := strconv.FormatFloat(a.limit, 'f', -1, 64)
	switch a.kind {
	case -1:
		return "<= " + number
	case +1:
		return ">= " + number
	}
	return ""
}

// MarshalText returns String.
func (a Aim) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Aim) UnmarshalText(b []byte) error {
	*a = Aim{}
	if len(b) == 0 {
		return nil
	}
	sign, number, _ := strings.Cut(string(b), " ")
	limit, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil:
	case sign == "<=":
		*a = AtMost(limit)
		return nil
	case sign == ">=":
		*a = AtLeast(limit)
		return nil
	}
	return fmt.Errorf("bench: %q is no aim, such as <= 1.15", b)
}

// A Round is what one round measured: a result and, unless the row has no floor, that of the floor.
type Round struct {
	Result float64 `json:"result"`
	Floor  float64 `json:"floor,omitempty"`
}

// A Row is a line of the table.
type Row struct {
	What   string  `json:"what"`            // with the unit
	Floor  string  `json:"floor,omitempty"` // what it is compared with; empty: none
	Aim    Aim     `json:"aim"`             // of the ratio to the floor; without a floor, of the result
	Rounds []Round `json:"rounds"`
}

// of returns a value of each round.
func (r Row) of(value func(Round) float64) []float64 {
	xs := make([]float64, len(r.Rounds))
	for i, round := range r.Rounds {
		xs[i] = value(round)
	}
	return xs
}

func result(r Round) float64 { return r.Result }
func floor(r Round) float64  { return r.Floor }
func ratio(r Round) float64  { return r.Result / r.Floor }

// verdict returns "met" or "LOST" if every round is on that side of the aim, "open" if some are on each side, or nothing
// if the row does not have an aim.
func (r Row) verdict() string {
	judged := r.of(result)
	if r.Floor != "" {
		judged = r.of(ratio)
	}
	met := 0
	for _, x := range judged {
		if r.Aim.met(x) {
			met++
		}
	}
	switch {
	case r.Aim.kind == 0:
		return ""
	case met == len(judged):
		return "met"
	case met == 0:
		return "LOST"
	}
	return "open"
}

func (r Row) cells() []string {
	cells := []string{r.What, spread(r.of(result), ""), "", "", r.Aim.String(), r.verdict()}
	if r.Floor != "" {
		cells[2], cells[3] = spread(r.of(floor), " "+r.Floor), spread(r.of(ratio), " x")
		if cells[4] != "" {
			cells[4] += " x"
		}
	}
	return cells
}

// spread returns the median with what follows it, and in brackets the least and the most if they differ.
func spread(xs []float64, after string) string {
	text := Digits(Median(xs)) + after
	if least, most := Digits(slices.Min(xs)), Digits(slices.Max(xs)); least != most {
		text += " [" + least + " - " + most + "]"
	}
	return text
}

// Digits formats a number with three significant digits at least, and at most four after the point.
func Digits(x float64) string {
	if math.Abs(x) >= 1000 {
		return Count(x)
	}
	if x == 0 {
		return "0"
	}
	n := max(0, 2-int(math.Floor(math.Log10(math.Abs(x)))))
	return strconv.FormatFloat(x, 'f', min(n, 4), 64)
}

// Table is a list of rows. The zero Table is empty.
type Table struct {
	Machine  string   `json:"machine"`  // as Machine returns it
	Revision string   `json:"revision"` // as Revision returns it
	Heading  []string `json:"heading"`  // further lines above it
	Rows     []Row    `json:"rows"`
}

// WriteFile writes the table as JSON, which ReadTable reads.
func (t *Table) WriteFile(path string) error {
	b, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// ReadTable reads what WriteFile wrote.
func ReadTable(path string) (*Table, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	t := &Table{}
	if err = json.Unmarshal(b, t); err == nil && len(t.Rows) == 0 {
		err = errors.New("it has no rows")
	}
	for _, r := range t.Rows {
		if len(r.Rounds) == 0 {
			err = fmt.Errorf("the row %q has no rounds", r.What)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bench: %s is no table of the harness: %w", path, err)
	}
	return t, nil
}

// Add appends rows.
func (t *Table) Add(rows ...Row) { t.Rows = append(t.Rows, rows...) }

// WriteTo writes the table as Markdown that is also readable as plain text.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	rows := [][]string{{"what", "result", "floor", "ratio", "aim", ""}}
	for _, r := range t.Rows {
		rows = append(rows, r.cells())
	}
	text := Markdown(rows, len(rows[0]))
	heading := slices.Concat(t.Heading, []string{"A figure is the median of the rounds, in brackets the least and the most of a round. A ratio is taken within a round.",
		"A verdict, met or LOST, needs every round on that side of the aim; open: there are rounds on each side."})
	if t.Machine != "" {
		heading = append([]string{"Measured on: " + t.Machine + ". Revision: " + t.Revision + "."}, heading...)
	}
	n, err := io.WriteString(w, strings.Join(heading, "\n")+"\n\n"+text)
	return int64(n), err
}

// Count formats a whole number with commas: 1,234,567.
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
