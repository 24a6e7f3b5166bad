package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/tier"
)

// invalidate compares an Invalidate, which returns when all nodes have applied it, with deleting a key in Redis and
// waiting for the server's push to as many clients, each of which has a copy of the key in its client-side cache.
// All nodes of weir and all clients of Redis are in this process, over real sockets, so that the push can be
// awaited; redis-server is a separate process. Each key is in every cache beforehand.
func invalidate(o options, t *bench.Table) error {
	for _, nodes := range []int{3, 5} {
		if err := invalidateOn(o, t, nodes); err != nil {
			return fmt.Errorf("%d nodes: %w", nodes, err)
		}
	}
	return nil
}

// eraser is a system that can delete keys everywhere.
type eraser interface {
	// prepare puts a copy of the first n keys into every cache.
	prepare(n int) error
	// erase returns once the copies are gone from all caches.
	erase(caller, key int) error
	close() error
}

func eraseKey(i int) string { return "erase:" + strconv.Itoa(i) }

func invalidateOn(o options, t *bench.Table, nodes int) (err error) {
	o.log("invalidate: starting %d nodes", nodes)
	systems := map[string]eraser{}
	defer func() {
		for _, s := range systems {
			err = errors.Join(err, s.close())
		}
	}()
	if systems["weir"], err = startErasers(nodes); err != nil {
		delete(systems, "weir")
		return err
	}
	redis, err := startRedis()
	switch {
	case errors.Is(err, server.ErrNoRedis):
		o.log("invalidate: %v", err)
	case err != nil:
		return err
	default:
		defer redis.Stop()
		for i, d := range flushDelays {
			r, err := dialErasers(redis, d, nodes)
			if err != nil {
				return err
			}
			systems[redisName(i)] = r
		}
	}
	for _, load := range []struct{ callers, each int }{{1, 2000}, {64, 250}} {
		if o.quick {
			load.each /= 4
		}
		if err := eraseRows(o, t, systems, nodes, load.callers, load.each); err != nil {
			return fmt.Errorf("%d callers: %w", load.callers, err)
		}
	}
	return nil
}

// eraseRows measures one number of callers, each of which deletes the same number of keys.
func eraseRows(o options, t *bench.Table, systems map[string]eraser, nodes, callers, each int) error {
	turn := func(name string) bench.Contender {
		s := systems[name]
		return bench.Contender{Name: name, Run: func() (bench.Sample, error) {
			if err := s.prepare(callers * each); err != nil {
				return bench.Sample{}, err
			}
			return bench.Timed(callers, each, func(g, k int) error { return s.erase(g, g*each+k) })
		}}
	}
	turns := []bench.Contender{turn("weir")}
	for i := range len(systems) - 1 {
		turns = append(turns, turn(redisName(i)))
	}
	got, err := bench.Rounds(o.rounds, turns...)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("invalidate on %d nodes, %d callers", nodes, callers)
	if callers == 1 {
		what = fmt.Sprintf("invalidate on %d nodes, one caller", nodes)
	}
	p99 := func(s bench.Sample) float64 { return float64(s.P99) / 1e3 }
	micros := func(x float64) string { return fmt.Sprintf("%.0f", x) }
	for _, m := range []struct {
		unit string
		of   func(bench.Sample) float64
		text func(float64) string
	}{
		{", p50, us", bench.P50Micros, micros}, {", p99, us", p99, micros}, {", a second", bench.Sample.PerSecond, bench.Count},
	} {
		weir := got["weir"]
		row := bench.Row{What: what + m.unit, Result: m.text(weir.Median(m.of)), Floor: "Redis", Note: server.ErrNoRedis.Error()}
		// Redis's best delay is the one with the most deletions per second.
		best := 0
		for i := range len(systems) - 1 {
			if got[redisName(i)].Median(bench.Sample.PerSecond) > got[redisName(best)].Median(bench.Sample.PerSecond) {
				best = i
			}
		}
		if redis := got[redisName(best)]; redis != nil {
			name := "Redis, pushes awaited"
			if best > 0 {
				name += fmt.Sprintf(" (flush delay %v)", flushDelays[best])
			}
			row.Floor, row.Ratio, row.Note = m.text(redis.Median(m.of))+" "+name, weir.Ratio(redis, m.of), ""
		}
		t.Add(row)
	}
	o.log("%s: weir p50 %.0f us, %s/s", what, got["weir"].Median(bench.P50Micros), bench.Count(got["weir"].Median(bench.Sample.PerSecond)))
	return nil
}

// erasers is weir, with a number of nodes in this process.
type erasers []*weirMember

func startErasers(nodes int) (erasers, error) {
	return startMembers(nodes, cacheConfig("invalidate", tier.Freshness{TTL: forever, NearTTL: time.Hour}))
}

func (s erasers) prepare(n int) error {
	const readers = 64
	for _, m := range s {
		if _, err := bench.Batch(readers, (n+readers-1)/readers, func(g, each int) error {
			for k := g * each; k < min(n, (g+1)*each); k++ {
				if _, err := m.Cache.Get(context.Background(), eraseKey(k)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s erasers) erase(caller, key int) error {
	return s[caller%len(s)].Cache.Invalidate(context.Background(), eraseKey(key))
}

func (s erasers) close() error { return closeMembers(s...) }

// redisErasers is Redis, with a number of clients with client-side caching, each with its own connection.
type redisErasers struct {
	fill    rueidis.Client // sets the keys; it caches nothing
	clients []rueidis.Client
	// left is, by key, how many clients have not received the push yet. The last one signals told.
	left []atomic.Int32
	told []chan struct{}
}

// maxErased is the maximum number of keys.
const maxErased = 64 * 250

func dialErasers(redis *server.Redis, delay time.Duration, clients int) (_ *redisErasers, err error) {
	s := &redisErasers{left: make([]atomic.Int32, maxErased), told: make([]chan struct{}, maxErased)}
	for i := range s.told {
		s.told[i] = make(chan struct{}, 1)
	}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	if s.fill, err = redis.Dial(0); err != nil {
		return nil, err
	}
	for range clients {
		o := redis.Option()
		o.MaxFlushDelay, o.CacheSizeEachConn, o.PipelineMultiplex, o.OnInvalidations = delay, 128<<20, -1, s.pushed
		c, err := rueidis.NewClient(o)
		if err != nil {
			return nil, err
		}
		s.clients = append(s.clients, c)
	}
	return s, nil
}

// pushed is called by each client with the keys that it has dropped.
func (s *redisErasers) pushed(keys []rueidis.RedisMessage) {
	for _, m := range keys {
		name, err := m.ToString()
		if err != nil {
			continue
		}
		if k, err := strconv.Atoi(name[len("erase:"):]); err == nil && s.left[k].Add(-1) == 0 {
			s.told[k] <- struct{}{}
		}
	}
}

func (s *redisErasers) prepare(n int) error {
	const chunk = 1000
	ctx := context.Background()
	text := rueidis.BinaryString(value(sizes[0]))
	for from := 0; from < n; from += chunk {
		to := min(n, from+chunk)
		var set rueidis.Commands
		for k := from; k < to; k++ {
			set = append(set, s.fill.B().Set().Key(eraseKey(k)).Value(text).Build())
		}
		for _, r := range s.fill.DoMulti(ctx, set...) {
			if err := r.Error(); err != nil {
				return err
			}
		}
		for _, c := range s.clients {
			var get []rueidis.CacheableTTL
			for k := from; k < to; k++ {
				get = append(get, rueidis.CT(c.B().Get().Key(eraseKey(k)).Cache(), time.Hour))
			}
			for _, r := range c.DoMultiCache(ctx, get...) {
				if err := r.Error(); err != nil {
					return err
				}
			}
		}
		for k := from; k < to; k++ {
			s.left[k].Store(int32(len(s.clients)))
		}
	}
	return nil
}

// pushWithin is longer than any push takes: a missing push is an error, not a hang.
const pushWithin = 10 * time.Second

func (s *redisErasers) erase(caller, key int) error {
	c := s.clients[caller%len(s.clients)]
	n, err := c.Do(context.Background(), c.B().Del().Key(eraseKey(key)).Build()).AsInt64()
	if err == nil && n != 1 {
		err = fmt.Errorf("redis: %s was not there", eraseKey(key))
	}
	if err != nil {
		return err
	}
	select { // the usual case does not need a timer
	case <-s.told[key]:
		return nil
	default:
	}
	late := time.NewTimer(pushWithin)
	defer late.Stop()
	select {
	case <-s.told[key]:
		return nil
	case <-late.C:
		return fmt.Errorf("redis: no push of %s to all clients after %v", eraseKey(key), pushWithin)
	}
}

func (s *redisErasers) close() error {
	if s.fill != nil {
		s.fill.Close()
	}
	for _, c := range s.clients {
		c.Close()
	}
	return nil
}
