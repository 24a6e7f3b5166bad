package main

import (
	"errors"
	"fmt"

	"github.com/weircache/weir/bench"
)

const (
	// manyKeys is how many keys a call requests, manyPeers how many other processes own some of them.
	manyKeys  = 100
	manyPeers = 2
)

// many compares a GetMany of keys of three nodes, two of them in other processes, with one get of another process's
// key, with a goroutine for each key in groupcache-go, which has no such call, and with an MGET to Redis. Near copies
// are disabled.
func many(o options, t *bench.Table) (err error) {
	c, err := startCluster(o, manyPeers)
	defer func() { err = errors.Join(err, c.close()) }()
	if err != nil {
		return err
	}
	const oneGet, groupAll = "one remote get without TLS", "groupcache-go, a goroutine a key"
	keys := make([]string, manyKeys)
	var remote []string
	for i := range keys {
		if keys[i] = keyOf(sizes[0], i); c.plain.Node.View().Owner(keys[i]).Name != c.plain.Node.Name() {
			remote = append(remote, keys[i])
		}
	}
	turns := turns{options: o, callers: 1, cpu: c.cpu}
	defer turns.close()
	add := func(name string, caller bench.Caller) error {
		return turns.add(name, func(int) (bench.Caller, error) { return caller, nil })
	}
	errs := []error{
		add(plainWeir, manyCaller(c.plain, keys)), add(sealedWeir, manyCaller(c.sealed, keys)), add(oneGet, weirCaller(c.plain, remote)),
		add(groupAll, c.group.all(c.group.keys(sizes[0], manyKeys-len(remote), len(remote)))),
	}
	for _, r := range c.redis {
		if r.delay == 0 {
			errs = append(errs, add("MGET, "+r.name, mgetCaller(r.client, keys)))
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
	if err := errors.Join(crossed(), asked(plain, c.plain.Cache.Stats(), got[plainWeir], len(remote)),
		asked(sealed, c.sealed.Cache.Stats(), got[sealedWeir], len(remote))); err != nil {
		return err
	}
	what := fmt.Sprintf("GetMany, %d keys of %d B over %d nodes, one caller", manyKeys, sizes[0], 1+manyPeers)
	compare(t, got, what, figure{"p50, us", bench.P50Micros},
		pair{plainWeir, oneGet, bench.AtMost(2)}, pair{sealedWeir, plainWeir, bench.Aim{}}, pair{plainWeir, groupAll, bench.Aim{}},
		pair{plainWeir, "MGET, " + redisPlain, bench.Aim{}}, pair{sealedWeir, "MGET, " + redisSealed, bench.Aim{}},
		pair{sealedWeir, "MGET, " + redisPlain, bench.Aim{}})
	compare(t, got, what, figure{"allocations a call", bench.Allocs},
		pair{plainWeir, groupAll, bench.Aim{}}, pair{plainWeir, "MGET, " + redisPlain, bench.Aim{}})
	return nil
}
