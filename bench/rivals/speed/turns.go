package main

import (
	"fmt"
	"time"

	"github.com/weircache/weir/bench"
)

// turns are contenders with a fixed number of callers each.
type turns struct {
	options
	callers    int
	cpu        func() (time.Duration, error) // used by all processes that take part
	contenders []bench.Contender
	all        []*bench.Callers
}

// add adds a contender, whose callers next makes.
func (t *turns) add(name string, next func(i int) (bench.Caller, error)) error {
	c, err := bench.NewCallers(t.callers, next)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	t.all = append(t.all, c)
	t.contenders = append(t.contenders, bench.Contender{Name: name, Run: func() (bench.Sample, error) {
		before, err := t.cpu()
		if err != nil {
			return bench.Sample{}, err
		}
		s, err := c.Load(t.each)
		if err != nil {
			return s, err
		}
		after, err := t.cpu()
		s.CPU = after - before
		return s, err
	}})
	return nil
}

func (t *turns) run() (map[string]bench.Results, error) {
	return bench.Rounds(t.rounds, t.contenders...)
}

func (t *turns) close() {
	for _, c := range t.all {
		c.Close()
	}
}

// pair is one of ours beside one of the rivals, or beside another of ours.
type pair struct {
	ours, rival string
	aim         bench.Aim
}

// figure is what is compared, with its unit.
type figure struct {
	unit string
	of   func(bench.Sample) float64
}

// compare adds a row for each pair. A pair whose rival did not take part has none.
func compare(t *bench.Table, got map[string]bench.Results, what string, f figure, pairs ...pair) {
	for _, p := range pairs {
		if rival := got[p.rival]; rival != nil {
			t.Rows = append(t.Rows, bench.Row{What: what + ", " + p.ours + ", " + f.unit, Floor: p.rival, Aim: p.aim, Rounds: got[p.ours].Beside(rival, f.of)})
		}
	}
}

// callersText returns a number of callers in words.
func callersText(n int) string {
	if n == 1 {
		return "one caller"
	}
	return fmt.Sprintf("%d callers", n)
}
