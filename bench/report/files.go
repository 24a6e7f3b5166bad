package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

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
