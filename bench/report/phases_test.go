package report

import (
	"strings"
	"testing"

	"github.com/weircache/weir/bench/harness"
)

func TestPhases(t *testing.T) {
	r := sample(t)
	if phases(r) != nil || strings.Contains(render(t, r, Text), "Fault by fault") {
		t.Error("phases that nobody asked for")
	}
	round := func(caused float64, errs float64) harness.Round {
		return harness.Round{Phases: []harness.Phase{
			{From: 0, To: 3e9, OriginCalls: 6},
			{What: "leave node 1", From: 3e9, To: 7e9, Moves: 750, OriginCalls: caused + 8, Caused: caused, Errors: errs, Lost: 1},
		}}
	}
	r.Systems[0].Rounds = []harness.Round{round(75, 0), round(4000, 7), round(30, 2)}
	text := render(t, r, Text)
	for _, want := range []string{
		"| no change, 3s: origin calls                       |   6 |", "| leave node 1: origin calls caused                |  75 (30 to 4,000) |",
		"| leave node 1: for each of 750 keys that move     | 0.100 (0.0400 to 5.33) |", "| leave node 1: errors of callers                  |   3 (1 to 8) |",
	} {
		if !strings.Contains(squeeze(text), squeeze(want)) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if got := phases(r)[1]; got[2] != "-" || got[3] != "-" {
		t.Errorf("systems that were not measured so: %v", got)
	}
}

// squeeze replaces runs of white space with one space.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }
