package report

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weircache/weir/bench"
)

// roundsLeast is how often each system runs for a result that is published.
const roundsLeast = 5

// TestResultsAreOfOneRun checks that all published results are of one machine and of one revision without changes, that
// they are complete and have enough rounds, and that the figures are of them. To measure all: make results.
func TestResultsAreOfOneRun(t *testing.T) {
	files, err := filepath.Glob("../results/*.json")
	if err != nil {
		t.Fatal(err)
	}
	revisions := make(map[string]bool)
	first := ""
	for _, file := range files {
		revision, machine := published(t, file)
		if revision == "" || revision == "unknown" || strings.HasSuffix(revision, "+") {
			t.Errorf("%s is of revision %q, which nobody can check out", file, revision)
		}
		revisions[revision] = true
		origin := revision + " on " + machine
		if first == "" {
			first = origin
		}
		if origin != first {
			t.Errorf("%s is of %s, others of %s", file, origin, first)
		}
	}
	micro, err := os.ReadFile("../results/micro.txt")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^revision: (.*)$").FindAllStringSubmatch(string(micro), -1) {
		if !revisions[m[1]] {
			t.Errorf("micro.txt has a round of revision %s", m[1])
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

// published returns the revision and the machine of a result file, and checks that it is complete.
func published(t *testing.T, file string) (revision, machine string) {
	t.Helper()
	if filepath.Base(file) == "speed.json" {
		table, err := bench.ReadTable(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range table.Rows {
			if len(r.Rounds) < roundsLeast {
				t.Errorf("%s: %s: %d rounds, not %d", file, r.What, len(r.Rounds), roundsLeast)
			}
		}
		return table.Revision, table.Machine
	}
	r, err := ReadJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Rounds < roundsLeast || r.Partial != "" {
		t.Errorf("%s: %d rounds, not %d; partial: %q", file, r.Rounds, roundsLeast, r.Partial)
	}
	return r.Revision, r.Machine
}
