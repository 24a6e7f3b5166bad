package main

import (
	"context"
	"slices"
	"strings"
)

// shrinkTries is how many schedules a set of faults gets to show what is broken. One fault less makes another run of it, so
// the same schedule seed need not show it again.
const shrinkTries = 3

// shrink leaves out faults as long as what is broken still is. It returns the job with the fewest, and of all violations
// of the same kind that it has seen the one with the shortest history.
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

// shortest returns the shorter of the histories that show a violation of one of the kinds, that of best among them.
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
