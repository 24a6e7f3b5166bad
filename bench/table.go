package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
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

// A Row is a line of the table. A row without a ratio compares Value with its aim, if any.
type Row struct {
	What   string  `json:"what"`
	Value  float64 `json:"value,omitempty"` // the number in Result, for the aim of a row without a ratio
	Result string  `json:"result"`
	Floor  string  `json:"floor,omitempty"` // what it is compared with; empty: none
	Ratio  float64 `json:"ratio,omitempty"` // of the result to the floor; 0: none
	Aim    Aim     `json:"aim"`
	Note   string  `json:"note,omitempty"` // replaces the verdict: why there is none
}

// verdict returns "met", "LOST", the note, or nothing if the row does not have an aim.
func (r Row) verdict() string {
	x := r.Value
	if r.Ratio != 0 {
		x = r.Ratio
	}
	switch {
	case r.Note != "":
		return r.Note
	case r.Aim.kind == 0:
		return ""
	case r.Aim.met(x):
		return "met"
	}
	return "LOST"
}

func (r Row) cells() []string {
	ratio, aim := "", r.Aim.String()
	if r.Ratio != 0 {
		ratio = fmt.Sprintf("%.2f x", r.Ratio)
		if aim != "" {
			aim += " x"
		}
	}
	return []string{r.What, r.Result, r.Floor, ratio, aim, r.verdict()}
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
	if err != nil {
		return nil, fmt.Errorf("bench: %s is no table of the harness: %w", path, err)
	}
	return t, nil
}

// Add appends rows.
func (t *Table) Add(rows ...Row) { t.Rows = append(t.Rows, rows...) }

// Lost returns how many rows miss their aim.
func (t *Table) Lost() int {
	n := 0
	for _, r := range t.Rows {
		if r.verdict() == "LOST" {
			n++
		}
	}
	return n
}

// WriteTo writes the table as Markdown that is also readable as plain text.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	rows := [][]string{{"what", "result", "floor", "ratio", "aim", ""}}
	for _, r := range t.Rows {
		rows = append(rows, r.cells())
	}
	text := Markdown(rows, len(rows[0]))
	heading := t.Heading
	if t.Machine != "" {
		heading = append([]string{"Measured on: " + t.Machine + ". Revision: " + t.Revision + "."}, heading...)
	}
	if len(heading) > 0 {
		text = strings.Join(heading, "\n") + "\n\n" + text
	}
	n, err := io.WriteString(w, text)
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
