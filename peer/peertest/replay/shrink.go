package main

import (
	"context"
	"slices"
	"strings"
)

// shrinkTries is how many schedules a set of faults gets to show the violation. With one fault less the run is a different
// one, so the same schedule seed need not show it again.
const shrinkTries = 3

// shrink drops faults as long as the violation persists. It returns the job with the fewest faults, and of all violations
// of the same kind that it has seen, the one with the shortest history.
func shrink(ctx context.Context, run func(context.Context, job) report, j job, r report) (job, broken) {
	kinds := r.kinds()
	best := shortest(r, kinds, broken{})
	for fault := 1; fault <= r.Faults && ctx.Err() == nil; fault++ {
		less := j
		less.Without = append(slices.Clone(j.Without), fault)
		for try := range uint64(shrinkTries) {
			less.Schedule = j.Schedule + try
			again := run(ctx, less)
			if !overlap(kinds, again.kinds()) {
				continue
			}
			j, best = less, shortest(again, kinds, best)
			break
		}
	}
	return j, best
}

func overlap(a, b map[string]bool) bool {
	for k := range a {
		if b[k] {
			return true
		}
	}
	return false
}

// shortest returns the violation of one of the kinds with the shortest history, considering best as well.
func shortest(r report, kinds map[string]bool, best broken) broken {
	for _, text := range r.Failed {
		if best.What == "" && kinds["failure"] {
			best.What = text
		}
	}
	for _, b := range r.Broken {
		if kinds[strings.SplitN(b.What, " ", 2)[0]] && (best.History == "" || strings.Count(b.History, "\n") < strings.Count(best.History, "\n")) {
			best = b
		}
	}
	return best
}
