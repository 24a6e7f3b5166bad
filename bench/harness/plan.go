package harness

import (
	"cmp"
	"slices"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

// planned is a step with its time.
type planned struct {
	at   time.Duration
	step Step
}

// plan splits the faults of a scenario into steps, in order of time.
func plan(s *scenario.Scenario) []planned {
	var out []planned
	add := func(at time.Duration, step Step) {
		if at < s.Duration.D() {
			out = append(out, planned{at, step})
		}
	}
	for _, f := range s.Faults {
		at := f.At.D()
		switch f.Do {
		case scenario.Kill:
			add(at, Step{Do: StepKill, Node: f.Node, Unnoticed: f.Noticed > 0})
			if f.Noticed > 0 {
				add(at+f.Noticed.D(), Step{Do: StepNotice, Node: f.Node})
			}
		case scenario.Leave, scenario.Join:
			add(at, Step{Do: StepKind(f.Do), Node: f.Node})
		case scenario.Starve:
			add(at, Step{Do: StepStarve, Node: f.Node})
			add(at+f.For.D(), Step{Do: StepFeed, Node: f.Node})
		case scenario.Cut:
			add(at, Step{Do: StepCut, Nodes: f.Nodes})
			add(at+f.For.D(), Step{Do: StepHeal})
		case scenario.Stall:
			add(at, Step{Do: StepStall, For: f.For.D()})
		case scenario.Flush:
			add(at, Step{Do: StepFlush})
		case scenario.Rolling:
			for i := range s.Cluster.Nodes {
				down := at + time.Duration(i)*f.Every.D()
				add(down, Step{Do: StepLeave, Node: i})
				add(down+f.For.D(), Step{Do: StepJoin, Node: i})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b planned) int { return cmp.Compare(a.at, b.at) })
	return out
}

// A Mark is an event of a run that plots show.
type Mark struct {
	At   scenario.Duration `json:"at"`
	What string            `json:"what"`
	// Error is why the step failed: "cannot" if the system does not support it.
	Error string `json:"error,omitempty"`
}
