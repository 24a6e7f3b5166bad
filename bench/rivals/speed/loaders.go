package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/maypok86/otter/v2"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"
	"golang.org/x/sync/singleflight"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/tier"
)

// loader is a cache that loads missing keys, or what a user would build one from. All its keys are cached.
type loader struct {
	name  string
	clock bool // it reads the clock, as exact expiry requires
	bare  bool // it does not load
	get   func(key string) (int, error)
}

// loaders compares near hits with the hits of other loading caches: hot keys, one key for all callers, and Zipf.
func loaders(o options, t *bench.Table) (err error) {
	count := 100_000
	if o.quick {
		count = 20_000
	}
	keys := make([]string, count)
	for i := range keys {
		keys[i] = keyOf(sizes[0], i)
	}
	o.log("loaders: filling them with %d keys", count)
	all, closers, err := newLoaders(keys)
	defer func() {
		for _, c := range slices.Backward(closers) {
			err = errors.Join(err, c())
		}
	}()
	if err != nil {
		return err
	}
	for _, l := range all {
		if err := fillLoader(l, keys); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	const draws, procs = 1 << 18, 2
	r := rand.New(rand.NewPCG(1, 1))
	z := rand.NewZipf(r, 1.01, 1, uint64(count-1))
	rank := r.Perm(count)
	var hot, one, zipf [draws]string
	for i := range draws {
		hot[i], one[i], zipf[i] = keys[rank[r.IntN(1000)]], keys[rank[0]], keys[rank[z.Uint64()]]
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	for _, w := range []struct {
		name  string
		draws []string
	}{{"1000 hot keys", hot[:]}, {"one key for all", one[:]}, {fmt.Sprintf("%d keys, Zipf 1.01", count), zipf[:]}} {
		var turns []bench.Contender
		for _, l := range all {
			turns = append(turns, bench.Contender{Name: l.name, Run: func() (bench.Sample, error) {
				return bench.Batch(procs, draws, func(g, n int) error {
					at := g * n / 2
					for i := range n {
						if got, err := l.get(w.draws[(at+i)%draws]); err != nil || got != sizes[0] {
							return fmt.Errorf("%s: %d bytes, %w", l.name, got, err)
						}
					}
					return nil
				})
			}})
		}
		got, err := bench.Rounds(o.rounds, turns...)
		if err != nil {
			return err
		}
		weir := got["weir"]
		for _, l := range all[1:] {
			shown, aim := l.name, bench.AtMost(1)
			if !l.clock {
				shown += ", no expiry"
			}
			if l.bare {
				shown, aim = shown+", no loading", bench.Aim{}
			}
			t.Add(bench.Row{
				What:   fmt.Sprintf("near hit, %s, GOMAXPROCS %d, beside what loads, ns", w.name, procs),
				Result: fmt.Sprintf("%.0f", weir.Median(bench.Nanos)),
				Floor:  fmt.Sprintf("%.0f %s", got[l.name].Median(bench.Nanos), shown),
				Ratio:  weir.Ratio(got[l.name], bench.Nanos), Aim: aim,
			})
			o.log("loaders: %s: %.2f x %s", w.name, weir.Ratio(got[l.name], bench.Nanos), l.name)
		}
		if all[len(all)-1].name != redisAside {
			t.Add(bench.Row{
				What: fmt.Sprintf("near hit, %s, beside what loads, ns", w.name), Result: fmt.Sprintf("%.0f", weir.Median(bench.Nanos)),
				Floor: "Redis, client-side caching", Aim: bench.AtMost(1), Note: server.ErrNoRedis.Error(),
			})
		}
	}
	return nil
}

const redisAside = "rueidisaside"

// newLoaders creates all of them, weir first. It returns what must be closed even after an error.
func newLoaders(keys []string) (all []loader, closers []func() error, err error) {
	ctx := context.Background()
	load := func(context.Context, string) ([]byte, error) { return value(sizes[0]), nil }
	room := int64(len(keys)) * 1500

	config := cacheConfig("loaders", tier.Freshness{TTL: time.Hour, NearTTL: time.Hour})
	config.NearBytes, config.OwnedBytes = room, room
	c, err := tier.New(config)
	if err != nil {
		return all, closers, err
	}
	closers = append(closers, func() error { return c.Close(ctx) })
	all = append(all, loader{name: "weir", clock: true, get: func(key string) (int, error) {
		v, err := c.Get(ctx, key)
		return len(v), err
	}})

	for _, expires := range []bool{true, false} {
		x := &otter.Options[string, []byte]{MaximumSize: 2 * len(keys), Logger: &otter.NoopLogger{}}
		name := "otter"
		if expires {
			name, x.ExpiryCalculator = "otter with expiry", otter.ExpiryWriting[string, []byte](time.Hour)
		}
		store, err := otter.New(x)
		if err != nil {
			return all, closers, err
		}
		closers = append(closers, func() error { store.StopAllGoroutines(); return nil })
		fill := otter.LoaderFunc[string, []byte](load)
		all = append(all, loader{name: name, clock: expires, get: func(key string) (int, error) {
			v, err := store.Get(ctx, key, fill)
			return len(v), err
		}})
	}

	for _, bare := range []bool{false, true} {
		raw, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
			NumCounters: 10 * int64(len(keys)), MaxCost: 2 * int64(len(keys)), BufferItems: 64, IgnoreInternalCost: true,
		})
		if err != nil {
			return all, closers, err
		}
		closers = append(closers, func() error { raw.Close(); return nil })
		name := "ristretto with expiry, singleflight"
		if bare {
			name = "ristretto with expiry"
		}
		var flights singleflight.Group
		all = append(all, loader{name: name, clock: true, bare: bare, get: func(key string) (int, error) {
			if v, ok := raw.Get(key); ok {
				return len(v), nil
			}
			v, err, _ := flights.Do(key, func() (any, error) {
				v, err := load(ctx, key)
				if err == nil {
					raw.SetWithTTL(key, v, 1, time.Hour)
					raw.Wait()
				}
				return v, err
			})
			b, _ := v.([]byte)
			return len(b), err
		}})
	}

	g, err := startGroup(nil)
	if err != nil {
		return all, closers, err
	}
	closers = append(closers, g.close)
	all = append(all, loader{name: "groupcache-go", get: func(key string) (int, error) {
		var v transport.ByteView
		err := g.group.Get(ctx, key, transport.ByteViewSink(&v))
		return v.Len(), err
	}})

	redis, err := startRedis()
	if errors.Is(err, server.ErrNoRedis) {
		return all, closers, nil
	} else if err != nil {
		return all, closers, err
	}
	closers = append(closers, func() error { redis.Stop(); return nil })
	option := rueidis.ClientOption{InitAddress: []string{redis.Addr}, CacheSizeEachConn: 1 << 30}
	client, err := rueidis.NewClient(option)
	if err != nil {
		return all, closers, err
	}
	closers = append(closers, func() error { client.Close(); return nil })
	aside, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: option})
	if err != nil {
		return all, closers, err
	}
	closers = append(closers, func() error { aside.Close(); return nil })
	for part := range slices.Chunk(keys, 1000) { // DoCache needs the keys to exist
		sets := make([]rueidis.Completed, len(part))
		for i, k := range part {
			sets[i] = client.B().Set().Key(k).Value(rueidis.BinaryString(value(sizes[0]))).Build()
		}
		for _, r := range client.DoMulti(ctx, sets...) {
			if err := r.Error(); err != nil {
				return all, closers, err
			}
		}
	}
	all = append(all, loader{name: "rueidis DoCache", clock: true, bare: true, get: func(key string) (int, error) {
		v, err := client.DoCache(ctx, client.B().Get().Key(key).Cache(), time.Hour).ToString()
		return len(v), err
	}}, loader{name: redisAside, clock: true, get: func(key string) (int, error) {
		v, err := aside.Get(ctx, time.Hour, key, func(ctx context.Context, key string) (string, error) {
			b, err := load(ctx, key)
			return string(b), err
		})
		return len(v), err
	}})
	return all, closers, nil
}

// fillLoader requests all keys until another pass would find them: near tiers drop entries that arrive in a burst.
func fillLoader(l loader, keys []string) error {
	for range 3 {
		var wg sync.WaitGroup
		errs := make([]error, 32)
		for g := range errs {
			wg.Go(func() {
				for i := g; i < len(keys); i += len(errs) {
					if _, err := l.get(keys[i]); err != nil {
						errs[g] = err
						return
					}
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}
