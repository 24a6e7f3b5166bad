package report

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/weircache/weir/bench/harness"
)

// JSON writes the complete report without white space, because timelines are long.
func JSON(w io.Writer, r *harness.Report) error { return json.NewEncoder(w).Encode(r) }

// maxFile is larger than the report of any run, in bytes.
const maxFile = 256 << 20

// ReadJSON reads what JSON wrote.
func ReadJSON(path string) (*harness.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := &harness.Report{}
	if err := json.NewDecoder(io.LimitReader(f, maxFile)).Decode(r); err != nil {
		return nil, fmt.Errorf("report: %s is no result of the harness: %w", path, err)
	}
	if r.Schema != harness.Schema || r.Scenario == nil {
		return nil, fmt.Errorf("report: %s has schema %d; this is for %d", path, r.Schema, harness.Schema)
	}
	for _, s := range r.Systems {
		if s == nil {
			return nil, fmt.Errorf("report: %s has a system that is null", path)
		}
	}
	return r, nil
}

// CSV writes a line for each measure of each round of each system: scenario, system, round (from 1, or "overall",
// "least" and "most"), partial, measure, value. The value of what never happened is +Inf.
func CSV(w io.Writer, r *harness.Report) error {
	c := csv.NewWriter(w)
	errs := []error{c.Write([]string{"scenario", "system", "round", "partial", "measure", "value"})}
	line := func(s *harness.Result, round, partial string, m *harness.Measures) {
		for _, x := range measures() {
			v := x.of(m)
			switch x.name {
			case "allocs_per_million_gets":
				v = m.AllocsPerMillion
			case "harness_allocs_per_million_gets":
				v = m.HarnessAllocsPerMillion
			}
			errs = append(errs, c.Write([]string{r.Scenario.Name, s.Name, round, first(partial), x.name, strconv.FormatFloat(v, 'g', -1, 64)}))
		}
	}
	for _, s := range r.Systems {
		for i := range s.Rounds {
			line(s, strconv.Itoa(i+1), s.Rounds[i].Partial, &s.Rounds[i].Measures)
		}
		if len(s.Rounds) > 0 {
			line(s, "overall", s.Partial, &s.Overall)
			line(s, "least", s.Partial, &s.Least)
			line(s, "most", s.Partial, &s.Most)
		}
	}
	c.Flush()
	return errors.Join(append(errs, c.Error())...)
}
