package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/tier"
)

const forever = 100 * time.Hour

// nearValue is short, so that the measurement is about finding it.
const nearValue = 16

// near compares a hit of the near tier with a Get of ristretto without a TTL, on the same keys.
func near(o options, t *bench.Table) error {
	ctx := context.Background()
	keys := make([]string, o.keys)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%08d", i)
	}
	o.log("near: filling two caches with %d keys", len(keys))
	// Both have room for twice the keys, and about ten counters per key.
	config := cacheConfig("near", tier.Freshness{TTL: forever, NearTTL: forever})
	config.Loader = tier.ByKey(func(context.Context, string) ([]byte, error) { return make([]byte, nearValue), nil })
	config.NearBytes, config.OwnedBytes = int64(len(keys))*500, int64(len(keys))*400
	c, err := tier.New(config)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	raw, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
		NumCounters: int64(len(keys)) * 10, MaxCost: int64(len(keys)) * 2, BufferItems: 64, IgnoreInternalCost: true,
	})
	if err != nil {
		return err
	}
	defer raw.Close()

	for i, k := range keys {
		if _, err := c.Get(ctx, k); err != nil {
			return err
		}
		raw.Set(k, make([]byte, nearValue), 1)
		if i%1000 == 999 { // both drop what does not fit into their buffers
			raw.Wait()
		}
	}
	raw.Wait()
	both := keys[:0:0]
	for range 3 { // a dropped key comes back on another read
		both = both[:0]
		for _, k := range keys {
			a, err := c.Read(ctx, k, tier.ReadOptions{MaxAge: tier.AnyAge})
			if err != nil {
				return err
			}
			if _, ok := raw.Get(k); ok && a.Source == tier.SourceNear {
				both = append(both, k)
			}
		}
	}
	if len(both) < len(keys)/2 {
		return fmt.Errorf("only %d of %d keys are in both caches", len(both), len(keys))
	}

	const draws = 1 << 20
	seed := uint64(1)
	zipf := make([]string, draws)
	hot := make([]string, draws)
	r := rand.New(rand.NewPCG(seed, seed))
	z := rand.NewZipf(r, 1.01, 1, uint64(len(both)-1))
	rank := r.Perm(len(both)) // so that hot keys are not adjacent
	for i := range draws {
		zipf[i] = both[rank[z.Uint64()]]
		hot[i] = both[rank[r.IntN(1000)]]
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, w := range []struct {
		name  string
		draws []string
	}{{fmt.Sprintf("%d keys, Zipf 1.01", len(both)), zipf}, {"1000 hot keys", hot}} {
		for _, procs := range []int{1, 2} {
			runtime.GOMAXPROCS(procs)
			before := c.Stats()
			got, err := bench.Rounds(o.rounds,
				bench.Contender{Name: "weir", Run: func() (bench.Sample, error) {
					return bench.Batch(procs, draws, func(g, n int) error {
						at := g * n / 2
						for i := range n {
							if v, err := c.Get(ctx, w.draws[(at+i)&(draws-1)]); err != nil || len(v) != nearValue {
								return fmt.Errorf("a get: %d bytes, %w", len(v), err)
							}
						}
						return nil
					})
				}},
				bench.Contender{Name: "ristretto", Run: func() (bench.Sample, error) {
					return bench.Batch(procs, draws, func(g, n int) error {
						at := g * n / 2
						for i := range n {
							if v, ok := raw.Get(w.draws[(at+i)&(draws-1)]); !ok || len(v) != nearValue {
								return errors.New("ristretto lost a key")
							}
						}
						return nil
					})
				}})
			if err != nil {
				return err
			}
			after := c.Stats()
			if rest := after.Owned + after.Fill - before.Owned - before.Fill; rest > int64(draws/1000) {
				o.log("near: %d gets were no near hits", rest)
			}
			weir, floor := got["weir"], got["ristretto"]
			what := fmt.Sprintf("near hit, %s, GOMAXPROCS %d", w.name, procs)
			t.Add(bench.Row{
				What:   what + ", ns",
				Result: fmt.Sprintf("%.0f", weir.Median(bench.Nanos)),
				Floor:  fmt.Sprintf("%.0f ristretto", floor.Median(bench.Nanos)),
				Ratio:  weir.Ratio(floor, bench.Nanos), Aim: bench.AtMost(1.15),
			}, allocRow(what, weir, floor, "ristretto", 0.01))
			o.log("%s: %.2f", what, weir.Ratio(floor, bench.Nanos))
		}
	}
	return nil
}

// allocRow returns the row of allocations. The aim allows a hundredth more, because the runtime allocates as well.
func allocRow(what string, weir, floor bench.Results, name string, most float64) bench.Row {
	return bench.Row{
		What: what + ", allocations a get", Value: weir.Median(bench.Allocs),
		Result: fmt.Sprintf("%.2f", weir.Median(bench.Allocs)),
		Floor:  fmt.Sprintf("%.2f %s", floor.Median(bench.Allocs), name),
		Aim:    bench.AtMost(most),
	}
}
