package main

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/rivals/server"
)

// invalidate compares an Invalidate with a DEL in Redis of a key that each process has a copy of: in its near tier, or
// in the client-side cache of its client. Each node of weir and each client is in a process of its own, and so are the
// callers, which are spread over these processes.
//
// An Invalidate returns when all members have applied it. A DEL is timed until the client of the last process has
// dropped its copy. Its caller does not wait for that, so what Redis does in a second is not confirmed when it is
// counted, and the row says so. All processes of a machine have one CLOCK_MONOTONIC, which times both.
func invalidate(o options, t *bench.Table) error {
	for _, nodes := range []int{3, 5} {
		if err := invalidateOn(o, t, nodes); err != nil {
			return fmt.Errorf("%d nodes: %w", nodes, err)
		}
	}
	return nil
}

// erasers are the processes, each with a node of weir and perhaps a client of Redis.
type erasers struct {
	all   []*rpc.Client
	redis rueidis.Client // sets the keys; nil: without Redis
}

func invalidateOn(o options, t *bench.Table, nodes int) (err error) {
	redis, err := server.StartRedis(context.Background())
	s, setup := erasers{}, Setup{Nodes: nodes}
	switch {
	case errors.Is(err, server.ErrNoRedis):
		o.log("%v", err)
	case err != nil:
		return err
	default:
		defer redis.Stop()
		s.redis, setup.Redis = redis.Client, redis.Addr
	}
	for range nodes {
		p, err := bench.Child(roleEraser)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Stop()) }()
		one, err := rpc.Dial("tcp", p.Words[0])
		if err != nil {
			return err
		}
		defer func() { _ = one.Close() }()
		var addr string
		if err := one.Call(controlName+".Start", setup, &addr); err != nil {
			return err
		}
		s.all, setup.Join = append(s.all, one), append(setup.Join, addr)
	}
	if _, err := each[int](s.all, "AwaitView", func(int) any { return struct{}{} }); err != nil {
		return err
	}
	for _, load := range []struct{ callers, each int }{{1, 2000}, {64, 250}} {
		if o.quick {
			load.each /= 4
		}
		turns := []bench.Contender{{Name: "weir", Run: func() (bench.Sample, error) { return s.run(false, load.callers, load.each) }}}
		const confirmed, unconfirmed = "Redis, DEL until the last push", "Redis, DEL answered, pushes not awaited"
		if s.redis != nil {
			turns = append(turns, bench.Contender{Name: confirmed, Run: func() (bench.Sample, error) { return s.run(true, load.callers, load.each) }})
		}
		got, err := bench.Rounds(o.rounds, turns...)
		if err != nil {
			return err
		}
		got[unconfirmed] = got[confirmed]
		what := fmt.Sprintf("invalidate on %d nodes, a process each, %s", nodes, callersText(load.callers))
		compare(t, got, what, figure{"p50, us", bench.P50Micros}, pair{"weir", confirmed, bench.Aim{}})
		compare(t, got, what, figure{"p99, us", bench.P99Micros}, pair{"weir", confirmed, bench.Aim{}})
		compare(t, got, what, figure{"a second", bench.Sample.PerSecond}, pair{"weir", unconfirmed, bench.Aim{}})
		o.log("%s: done", what)
	}
	return nil
}

// each lets all processes do something at once, and returns their answers.
func each[Reply any](all []*rpc.Client, does string, with func(i int) any) ([]Reply, error) {
	replies, calls, errs := make([]Reply, len(all)), make([]*rpc.Call, len(all)), make([]error, len(all))
	for i, one := range all {
		calls[i] = one.Go(controlName+"."+does, with(i), &replies[i], nil)
	}
	for i, call := range calls {
		errs[i] = (<-call.Done).Error
	}
	return replies, errors.Join(errs...)
}

func eraseKey(i int) string { return "erase:" + strconv.Itoa(i) }

// run erases keys: each caller as many, each key once.
func (s *erasers) run(redis bool, callers, keys int) (bench.Sample, error) {
	n := callers * keys
	if redis {
		sets := make([]rueidis.Completed, n)
		for i := range sets {
			sets[i] = s.redis.B().Set().Key(eraseKey(i)).Value(rueidis.BinaryString(value(sizes[0]))).Build()
		}
		for part := range slices.Chunk(sets, 1000) {
			for _, r := range s.redis.DoMulti(context.Background(), part...) {
				if err := r.Error(); err != nil {
					return bench.Sample{}, err
				}
			}
		}
	}
	if _, err := each[int](s.all, "Prepare", func(int) any { return Prepared{redis, n} }); err != nil {
		return bench.Sample{}, err
	}
	// The callers of a process have consecutive keys.
	from := func(i int) int { return i * callers / len(s.all) }
	did, err := each[Erased](s.all, "Erase", func(i int) any {
		return Erasing{redis, from(i) * keys, from(i+1) - from(i), keys}
	})
	if err != nil {
		return bench.Sample{}, err
	}
	var all Erased
	for _, one := range did {
		all.Began, all.Ended = append(all.Began, one.Began...), append(all.Ended, one.Ended...)
	}
	sample := bench.Sample{Calls: int64(n), Elapsed: slices.Max(all.Ended) - slices.Min(all.Began)}
	if redis {
		arrived, err := each[[]time.Duration](s.all, "Arrivals", func(int) any { return struct{}{} })
		if err != nil {
			return sample, err
		}
		for i := range all.Ended {
			for _, one := range arrived {
				all.Ended[i] = max(all.Ended[i], one[i])
			}
		}
	}
	took := make([]time.Duration, n)
	for i := range took {
		took[i] = all.Ended[i] - all.Began[i]
	}
	slices.Sort(took)
	sample.P50, sample.P99 = took[n/2], took[n*99/100]
	return sample, nil
}
