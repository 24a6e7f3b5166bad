package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/rueidis"
	"google.golang.org/grpc"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/tier"
)

const rolePeer = "peer"

// playPeer is the other process: a node of weir, raw TCP, gRPC and a node of groupcache, each on a port that it
// reports.
func playPeer() (line string, stop func(), err error) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go serveRaw(raw)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := newGRPC()
	go func() { _ = s.Serve(l) }()
	plain, err := startNode(nil, rolePeer)
	if err != nil {
		return "", nil, err
	}
	sealed, err := startNode(secret, rolePeer)
	if err != nil {
		return "", nil, err
	}
	g, err := startGroup(keepsOwned())
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintln(plain.Node.Addr(), raw.Addr(), l.Addr(), sealed.Node.Addr(), g.addr), func() {
		_ = g.close()
		_ = closeMembers(plain, sealed)
		s.Stop()
		_ = raw.Close()
	}, nil
}

// flushDelays are the delays that rueidis is tried with; the best one counts.
var flushDelays = []time.Duration{0, 20 * time.Microsecond}

// keysEach is how many keys each caller has for itself. In weir, callers of one key share a request. That is not
// what is measured here, so no two callers have a key in common.
const keysEach = 4

// wires holds all connections to the other process.
type wires struct {
	cache *tier.Cache[[]byte]
	tls   *tier.Cache[[]byte] // the same with TLS; both place keys alike
	keys  map[int][]string    // by size, the keys that the other node owns
	raw   string
	grpc  *grpc.ClientConn
	group *group
	asked map[int][]string // by size, the keys that the other node of groupcache owns
	redis []rueidis.Client // one per flush delay; empty without Redis
}

// hop compares a get of a key that another process owns with raw TCP, gRPC, groupcache-go and Redis.
func hop(o options, t *bench.Table) (err error) {
	o.log("hop: starting the other processes")
	p, err := bench.Child(rolePeer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if len(p.Words) != 5 {
		return fmt.Errorf("the other process said %q", p.Words)
	}
	plain, err := startNode(nil, "here", p.Words[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeMembers(plain)) }()
	sealed, err := startNode(secret, "here", p.Words[3])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeMembers(sealed)) }()
	if err := errors.Join(awaitView(plain, 2), awaitView(sealed, 2)); err != nil {
		return err
	}
	g, err := startGroup(keepsOwned(), p.Words[4])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	w := wires{cache: plain.Cache, tls: sealed.Cache, raw: p.Words[1], keys: map[int][]string{}, group: g, asked: map[int][]string{}}
	for _, size := range sizes {
		w.asked[size] = g.keys(size, 0, 512*keysEach)
		w.keys[size] = ownedBy(plain.Node, rolePeer, size, 512*keysEach)
	}
	if w.grpc, err = dialGRPC(p.Words[2]); err != nil {
		return err
	}
	defer func() { _ = w.grpc.Close() }()
	redis, err := startRedis()
	switch {
	case errors.Is(err, server.ErrNoRedis):
		o.log("hop: %v", err)
	case err != nil:
		return err
	default:
		defer redis.Stop()
		for _, d := range flushDelays {
			client, err := redis.Dial(d)
			if err != nil {
				return err
			}
			defer client.Close()
			w.redis = append(w.redis, client)
		}
	}
	for _, callers := range []int{1, 64, 512} {
		for _, size := range sizes {
			before, beforeTLS := plain.Cache.Stats(), sealed.Cache.Stats()
			if err := hopRows(o, t, &w, callers, size); err != nil {
				return err
			}
			if err := errors.Join(crossed(before, plain.Cache.Stats()), crossed(beforeTLS, sealed.Cache.Stats())); err != nil {
				return fmt.Errorf("%d callers: %w", callers, err)
			}
		}
	}
	return nil
}

// crossed returns an error if some gets between the two readings were not answered by the other process.
func crossed(before, after tier.Stats) error {
	if after.Unreachable != before.Unreachable || after.Bypassed != before.Bypassed || after.Near != before.Near {
		return fmt.Errorf("some gets did not cross over: %d near, %d loaded here", after.Near-before.Near, after.Bypassed-before.Bypassed)
	}
	return nil
}

// hopRows measures one number of callers and one value size.
func hopRows(o options, t *bench.Table, w *wires, callers, size int) error {
	var all []*bench.Callers
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	var turns []bench.Contender
	add := func(name string, next func(i int) (bench.Caller, error)) error {
		c, err := bench.NewCallers(callers, next)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, c)
		turns = append(turns, bench.Contender{Name: name, Run: func() (bench.Sample, error) { return c.Load(o.each) }})
		return nil
	}
	keys := w.keys[size]
	for _, k := range keys { // fills the owner
		for _, c := range []*tier.Cache[[]byte]{w.cache, w.tls} {
			if err := weirCaller(c, []string{k}).Call(); err != nil {
				return err
			}
		}
	}
	stored := make([]string, redisKeys)
	for i := range stored {
		stored[i] = keyOf(size, i)
	}
	errs := []error{
		add("weir", func(i int) (bench.Caller, error) { return weirCaller(w.cache, keys[i*keysEach:(i+1)*keysEach]), nil }),
		add("weir, TLS", func(i int) (bench.Caller, error) { return weirCaller(w.tls, keys[i*keysEach:(i+1)*keysEach]), nil }),
		add("raw TCP", func(int) (bench.Caller, error) { return rawCaller(w.raw, size) }),
		add("groupcache", func(i int) (bench.Caller, error) {
			return w.group.each(w.asked[size][i*keysEach : (i+1)*keysEach]), nil
		}),
		add("gRPC", func(i int) (bench.Caller, error) { return grpcCaller(w.grpc, size, i), nil }),
	}
	for i, client := range w.redis {
		errs = append(errs, add(redisName(i), func(i int) (bench.Caller, error) { return redisCaller(client, stored[i*keysEach:(i+1)*keysEach]), nil }))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	asked := w.cache.Stats().Asked
	got, err := bench.Rounds(o.rounds, turns...)
	if err != nil {
		return err
	}
	asked = w.cache.Stats().Asked - asked
	gets := int64(0)
	for _, s := range got["weir"] {
		gets += s.Calls
	}
	if asked < gets {
		return fmt.Errorf("%d of %d gets did not ask the other process", gets-asked, gets)
	}
	what := fmt.Sprintf("peer hop, %d B, %d callers", size, callers)
	if callers == 1 {
		what = fmt.Sprintf("peer hop, %d B, one caller", size)
	}
	hopTable(t, what, callers, len(w.redis), got)
	o.log("%s: weir %s/s, %.2f x raw TCP", what, bench.Count(got["weir"].Median(bench.Sample.PerSecond)),
		got["weir"].Ratio(got["raw TCP"], bench.Sample.PerSecond))
	return nil
}

func redisName(i int) string { return fmt.Sprintf("Redis, rueidis flush delay %v", flushDelays[i]) }

// hopTable adds the rows for one number of callers: a row for each rival, with the time per get for one caller, and
// gets per second for many.
func hopTable(t *bench.Table, what string, callers, redis int, got map[string]bench.Results) {
	weir := got["weir"]
	of, unit := bench.Sample.PerSecond, ", gets/s"
	text := func(r bench.Results) string { return bench.Count(r.Median(of)) }
	if callers == 1 {
		of, unit = bench.P50Micros, ", p50, us"
		text = func(r bench.Results) string { return fmt.Sprintf("%.1f", r.Median(of)) }
	}
	row := func(name, shown string, aim bench.Aim) {
		t.Add(bench.Row{
			What: what + unit, Result: text(weir), Floor: text(got[name]) + " " + shown,
			Ratio: weir.Ratio(got[name], of), Aim: aim,
		})
	}
	var raw, rival bench.Aim
	switch callers {
	case 1:
		raw = bench.AtMost(1.15)
	case 64:
		rival = bench.AtLeast(3)
	default:
		rival = bench.AtLeast(4)
	}
	row("raw TCP", "raw TCP", raw)
	sealed := bench.Aim{}
	if callers == 64 {
		sealed = bench.AtLeast(0.7)
	}
	t.Add(bench.Row{
		What: what + ", TLS on" + unit, Result: text(got["weir, TLS"]), Floor: text(weir) + " TLS off",
		Ratio: got["weir, TLS"].Ratio(weir, of), Aim: sealed,
	})
	row("gRPC", "gRPC", bench.Aim{})
	group := bench.Aim{}
	if callers == 64 {
		group = bench.AtLeast(8)
	}
	row("groupcache", "groupcache-go", group)
	if redis == 0 {
		t.Add(bench.Row{What: what + unit, Result: text(weir), Floor: "Redis", Aim: rival, Note: server.ErrNoRedis.Error()})
	} else {
		best := 0
		for i := range redis {
			if x := got[redisName(i)].Median(of); callers > 1 && x > got[redisName(best)].Median(of) {
				best = i
			}
		}
		row(redisName(0), "Redis (rueidis)", rival)
		if best != 0 {
			row(redisName(best), fmt.Sprintf("Redis (rueidis, flush delay %v)", flushDelays[best]), bench.Aim{})
		}
	}
	r := allocRow(what, weir, got["gRPC"], "gRPC", 2.05)
	if redis > 0 {
		r.Floor += fmt.Sprintf(", %.2f rueidis", got[redisName(0)].Median(bench.Allocs))
	}
	t.Add(r)
}
