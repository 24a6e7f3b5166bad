package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/ring"
)

// view measures the look-up of an owner, and how long a view takes to build, from scratch and after one member has
// joined.
func view(o options, t *bench.Table) error {
	keys := make([]string, 1<<14)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%08d", i)
	}
	for _, size := range []int{3, 100, 1000} {
		members := make([]ring.Member, size+1)
		for i := range members {
			members[i] = ring.Member{Name: fmt.Sprintf("catalogue-%04d", i), Addr: fmt.Sprintf("10.0.%d.%d:7946", i/250, i%250)}
		}
		v, err := ring.New(members[:size], ring.Config{})
		if err != nil {
			return err
		}
		got, err := bench.Rounds(o.rounds, bench.Contender{Name: "owner", Run: func() (bench.Sample, error) {
			return bench.Batch(1, 1<<20, func(_, n int) error {
				empty := 0
				for i := range n {
					if v.Owner(keys[i&(len(keys)-1)]).Name == "" {
						empty++
					}
				}
				if empty > 0 {
					return errors.New("a key without an owner")
				}
				return nil
			})
		}}, bench.Contender{Name: "new", Run: timed(func() error {
			_, err := ring.New(members[:size], ring.Config{})
			return err
		})}, bench.Contender{Name: "next", Run: timed(func() error {
			_, err := v.Next(members)
			return err
		})})
		if err != nil {
			return err
		}
		ms := func(name string) string { return fmt.Sprintf("%.1f", got[name].Median(bench.Nanos)/1e6) }
		t.Add(bench.Row{
			What:   fmt.Sprintf("view of %d members, owner of a key, ns", size),
			Result: fmt.Sprintf("%.0f", got["owner"].Median(bench.Nanos)),
		}, bench.Row{
			What:   fmt.Sprintf("view of %d members, rebuilt after a join (from nothing), ms", size),
			Result: fmt.Sprintf("%s (%s)", ms("next"), ms("new")),
		})
		o.log("view of %d members: done", size)
	}
	return nil
}

// timed is a turn with a single call.
func timed(call func() error) func() (bench.Sample, error) {
	return func() (bench.Sample, error) {
		began := time.Now()
		err := call()
		return bench.Sample{Calls: 1, Elapsed: time.Since(began)}, err
	}
}
