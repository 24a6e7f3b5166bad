package main

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/semaphore"

	"github.com/weircache/weir/bench/harness"
)

// noLimit is what a rival lacks that loads as often as it misses.
const noLimit = "limit of loads at once"

// limited is a rival with what its users add where the origin bears only so many loads: a semaphore around the load, on
// each node.
type limited struct{ harness.System }

func (l limited) Name() string { return l.System.Name() + "+limit" }

func (l limited) Setup() string {
	return l.System.Setup() + "; golang.org/x/sync/semaphore around the origin on each node, with the node's share, rounded up, of the loads that the origin bears at once, or else of the scenario's concurrency; a load waits for its turn within its timeout"
}

func (l limited) Limits() []string {
	return slices.DeleteFunc(slices.Clone(l.System.Limits()), func(s string) bool { return s == noLimit })
}

// errUnknownNode is the error of an adapter that loads without an origin.
var errUnknownNode = errors.New("a load does not say on which node it runs")

func (l limited) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	all, n := env.Scenario.Cluster.Concurrency, env.Scenario.Cluster.Nodes
	if c := env.Scenario.Origin.Capacity; c > 0 {
		all = c
	}
	turns := make([]*semaphore.Weighted, n)
	for i := range turns {
		turns[i] = semaphore.NewWeighted(int64((all + n - 1) / n))
	}
	load := env.Load
	env.Load = func(ctx context.Context, key string) ([]byte, error) {
		i, ok := ctx.Value(loader{}).(int)
		if !ok {
			return nil, errUnknownNode
		}
		if err := turns[i].Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer turns[i].Release(1)
		return load(ctx, key)
	}
	return l.System.Start(ctx, env)
}
