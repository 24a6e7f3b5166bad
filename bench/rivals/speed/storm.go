package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/tier"
)

const (
	stormNodes   = 3
	stormCallers = 200 // on each node
	stormLoad    = 40 * time.Millisecond
)

// storm makes all callers of all nodes request one cold key at once. The nodes are in this process, on real
// sockets, so that one clock times all of them.
func storm(o options, t *bench.Table) (err error) {
	var loads atomic.Int64
	o.log("storm: starting %d nodes", stormNodes)
	c := cacheConfig("storm", tier.Freshness{TTL: forever, NearTTL: time.Minute})
	c.Loader = tier.ByKey(func(ctx context.Context, _ string) ([]byte, error) {
		loads.Add(1)
		origin := time.NewTimer(stormLoad)
		defer origin.Stop()
		select {
		case <-origin.C:
			return value(sizes[0]), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	members, err := startMembers(stormNodes, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeMembers(members...)) }()
	rounds := o.rounds * 3
	var calls, late []float64
	worst := 0.0
	for round := range rounds + 1 { // the first round opens the connections
		before := loads.Load()
		slowest, err := oneStorm(members, fmt.Sprintf("cold:%d", round))
		if err != nil {
			return err
		}
		if round == 0 {
			continue
		}
		calls = append(calls, float64(loads.Load()-before))
		late = append(late, float64(slowest-stormLoad)/1e6)
		worst = max(worst, late[len(late)-1])
	}
	total := 0.0
	for _, n := range calls {
		total += n
	}
	what := fmt.Sprintf("storm, %d callers x %d nodes, one cold key, %v load", stormCallers, stormNodes, stormLoad)
	t.Add(bench.Row{
		What:  what + fmt.Sprintf(", origin calls a storm, mean of %d", rounds),
		Value: total / float64(rounds), Result: fmt.Sprintf("%.2f", total/float64(rounds)), Aim: bench.AtMost(1),
	}, bench.Row{
		What:   what + fmt.Sprintf(", slowest answer minus %v, ms", stormLoad),
		Result: fmt.Sprintf("%.1f (worst of %d: %.1f)", bench.Median(late), rounds, worst),
	})
	return nil
}

// oneStorm returns how long the slowest caller waited.
func oneStorm(members []*weirMember, key string) (time.Duration, error) {
	var (
		ready, wg sync.WaitGroup
		start     = make(chan struct{})
		took      = make([]time.Duration, stormCallers*len(members))
		errs      = make([]error, len(took))
		began     time.Time // written before start is closed
	)
	for i := range took {
		c := members[i%len(members)].Cache
		ready.Add(1)
		wg.Go(func() {
			ready.Done()
			<-start
			_, errs[i] = c.Get(context.Background(), key)
			took[i] = time.Since(began)
		})
	}
	ready.Wait()
	began = time.Now()
	close(start)
	wg.Wait()
	slowest := time.Duration(0)
	for _, d := range took {
		slowest = max(slowest, d)
	}
	return slowest, errors.Join(errs...)
}
