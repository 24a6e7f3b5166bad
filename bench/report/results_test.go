package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// roundsLeast is how often each system runs for a result that is published.
const roundsLeast = 5

// TestResultsAreOfOneRun checks that all published results of scenarios are of one machine and of one revision without
// changes, that they are complete and have enough rounds, and that the figures are of them. To measure all: make results.
func TestResultsAreOfOneRun(t *testing.T) {
	files, err := filepath.Glob("../results/*.json")
	if err != nil {
		t.Fatal(err)
	}
	revisions := make(map[string]bool)
	first := ""
	for _, file := range files {
		if filepath.Base(file) == "speed.json" {
			continue // its table says of which machine it is
		}
		r, err := ReadJSON(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if r.Rounds < roundsLeast || r.Partial != "" {
			t.Errorf("%s: %d rounds, not %d; partial: %q", file, r.Rounds, roundsLeast, r.Partial)
		}
		if r.Revision == "" || r.Revision == "unknown" || strings.HasSuffix(r.Revision, "+") {
			t.Errorf("%s is of revision %q, which nobody can check out", file, r.Revision)
		}
		revisions[r.Revision] = true
		origin := r.Revision + " on " + r.Machine
		if first == "" {
			first = origin
		}
		if origin != first {
			t.Errorf("%s is of %s, others of %s", file, origin, first)
		}
	}
	figures, err := filepath.Glob("../results/*.svg")
	if err != nil {
		t.Fatal(err)
	}
	for _, figure := range figures {
		text, err := os.ReadFile(figure)
		if err != nil {
			t.Fatal(err)
		}
		shown := false
		for r := range revisions {
			shown = shown || strings.Contains(string(text), "revision "+r+",")
		}
		if !shown {
			t.Errorf("%s is of another revision", figure)
		}
	}
}
