package main

import (
	"errors"
	"fmt"

	"github.com/weircache/weir/bench"
)

// Names of contenders.
const (
	plainWeir  = "weir without TLS"
	sealedWeir = "weir with TLS"
	rawEach    = "raw TCP, a connection each"
	rawPipe    = "raw TCP, pipelined"
	grpcName   = "gRPC"
	groupName  = "groupcache-go"
	// redisPlain and redisSealed are names that redisName returns without a delay.
	redisPlain  = "Redis without TLS (rueidis)"
	redisSealed = "Redis with TLS (rueidis)"
)

// hop compares a get of a key that another process owns with raw TCP, gRPC, groupcache-go and Redis. Off the loopback weir
// always uses TLS, so it is beside Redis with TLS as well.
func hop(o options, t *bench.Table) (err error) {
	c, err := startCluster(o, 1)
	defer func() { err = errors.Join(err, c.close()) }()
	if err != nil {
		return err
	}
	for _, callers := range []int{1, 64, mostCallers} {
		for _, size := range sizes {
			if err := hopRows(o, t, c, callers, size); err != nil {
				return fmt.Errorf("%d callers: %w", callers, err)
			}
		}
	}
	return nil
}

// hopRows measures one number of callers and one value size.
func hopRows(o options, t *bench.Table, c *cluster, callers, size int) error {
	turns := turns{options: o, callers: callers, cpu: c.cpu}
	defer turns.close()
	keys, groupKeys := ownedElsewhere(c.plain, size, callers*keysEach), c.group.keys(size, 0, callers*keysEach)
	each := func(keys []string, i int) []string { return keys[i*keysEach : (i+1)*keysEach] }
	for _, m := range []*weirMember{c.plain, c.sealed} { // fills the owner
		all := weirCaller(m, keys)
		for range keys {
			if err := all.Call(); err != nil {
				return err
			}
		}
	}
	errs := []error{
		turns.add(plainWeir, func(i int) (bench.Caller, error) { return weirCaller(c.plain, each(keys, i)), nil }),
		turns.add(sealedWeir, func(i int) (bench.Caller, error) { return weirCaller(c.sealed, each(keys, i)), nil }),
		turns.add(rawEach, func(int) (bench.Caller, error) { return rawCaller(c.raw, size) }),
		turns.add(rawPipe, func(int) (bench.Caller, error) { return c.pipe.caller(size), nil }),
		turns.add(grpcName, func(i int) (bench.Caller, error) { return grpcCaller(c.grpc, size, i), nil }),
		turns.add(groupName, func(i int) (bench.Caller, error) { return c.group.each(each(groupKeys, i)), nil }),
	}
	stored := make([]string, callers*keysEach)
	for i := range stored {
		stored[i] = keyOf(size, i)
	}
	for _, r := range c.redis {
		if r.delay == 0 || callers > 1 { // one caller has nothing to collect
			errs = append(errs, turns.add(r.name, func(i int) (bench.Caller, error) { return redisCaller(r.client, each(stored, i)), nil }))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	crossed, plain, sealed := c.crossed(), c.plain.Cache.Stats(), c.sealed.Cache.Stats()
	got, err := turns.run()
	if err != nil {
		return err
	}
	if err := errors.Join(crossed(), asked(plain, c.plain.Cache.Stats(), got[plainWeir], 1),
		asked(sealed, c.sealed.Cache.Stats(), got[sealedWeir], 1)); err != nil {
		return err
	}
	what := fmt.Sprintf("peer hop, %d B, %s", size, callersText(callers))
	hopTable(t, what, callers, got)
	o.log("%s: done", what)
	return nil
}

// hopTable adds the rows for one number of callers: the time of a get for one caller, and gets a second and CPU time for
// many.
func hopTable(t *bench.Table, what string, callers int, got map[string]bench.Results) {
	aims := map[int]struct{ raw, sealed, group, redis bench.Aim }{
		1:           {raw: bench.AtMost(1.15)},
		64:          {sealed: bench.AtLeast(0.7), group: bench.AtLeast(8), redis: bench.AtLeast(3)},
		mostCallers: {redis: bench.AtLeast(4)},
	}[callers]
	pairs := []pair{
		{plainWeir, rawEach, aims.raw}, {sealedWeir, plainWeir, aims.sealed},
		{plainWeir, grpcName, bench.Aim{}}, {plainWeir, groupName, aims.group},
		{plainWeir, redisPlain, aims.redis}, {sealedWeir, redisSealed, bench.Aim{}}, {sealedWeir, redisPlain, bench.Aim{}},
	}
	if callers == 1 {
		compare(t, got, what, figure{"p50, us", bench.P50Micros}, pairs...)
	} else {
		late := flushDelays[1]
		pairs = append(pairs, pair{plainWeir, rawPipe, bench.Aim{}}, pair{plainWeir, redisName(false, late), bench.Aim{}},
			pair{sealedWeir, redisName(true, late), bench.Aim{}})
		compare(t, got, what, figure{"gets/s", bench.Sample.PerSecond}, pairs...)
		for i := range pairs {
			pairs[i].aim = bench.Aim{}
		}
		compare(t, got, what, figure{"CPU us a get, both processes", bench.CPUMicros}, pairs...)
	}
	t.Rows = append(t.Rows, bench.Row{What: what + ", " + plainWeir + ", allocations a get", Aim: bench.AtMost(2.05), Rounds: got[plainWeir].Beside(nil, bench.Allocs)})
}
