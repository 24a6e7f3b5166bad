package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/groupcache/groupcache-go/v3"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/groupcache/groupcache-go/v3/transport/peer"
	"github.com/redis/rueidis"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

const (
	roleMany = "many"
	// manyKeys is how many keys a call requests, manyPeers how many other processes own some of them.
	manyKeys  = 100
	manyPeers = 2
)

// playMany is one of the other processes: a node of weir and a node of groupcache.
func playMany() (line string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the port must be unique to this process, because the name is
	if err != nil {
		return "", nil, err
	}
	m, err := startNode(nil, roleMany+l.Addr().String()[len("127.0.0.1:"):])
	if err != nil {
		return "", nil, errors.Join(err, l.Close())
	}
	g, err := startGroup(keepsOwned())
	if err != nil {
		return "", nil, errors.Join(err, closeMembers(m), l.Close())
	}
	return fmt.Sprintln(m.Node.Addr(), g.addr), func() {
		_ = g.close()
		_ = closeMembers(m)
		_ = l.Close()
	}, nil
}

// many compares a GetMany of keys of three nodes, two of them in other processes, with one get of another process's
// key, with groupcache-go, which reads keys one by one, and with an MGET to Redis. Near copies are disabled.
func many(o options, t *bench.Table) (err error) {
	o.log("many: starting the other processes")
	var weir, group []string
	for range manyPeers {
		p, err := bench.Child(roleMany)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Stop()) }()
		if len(p.Words) != 2 {
			return fmt.Errorf("the other process said %q", p.Words)
		}
		weir, group = append(weir, p.Words[0]), append(group, p.Words[1])
	}
	m, err := startNode(nil, "here", weir...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeMembers(m)) }()
	if err := awaitView(m, 1+manyPeers); err != nil {
		return err
	}
	n, c := m.Node, m.Cache
	g, err := startGroup(keepsOwned(), group...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()

	keys := make([]string, manyKeys)
	remote := 0
	var one []string // the other processes' keys
	for i := range keys {
		if keys[i] = keyOf(sizes[0], i); n.View().Owner(keys[i]).Name != n.Name() {
			remote++
			one = append(one, keys[i])
		}
	}
	var all []*bench.Callers
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	var turns []bench.Contender
	add := func(name string, caller bench.Caller) error {
		c, err := bench.NewCallers(1, func(int) (bench.Caller, error) { return caller, nil })
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, c)
		turns = append(turns, bench.Contender{Name: name, Run: func() (bench.Sample, error) { return c.Load(o.each) }})
		return nil
	}
	err = errors.Join(add("GetMany", manyCaller(c, keys)), add("one get", weirCaller(c, one)), add("groupcache", g.caller(g.keys(sizes[0], manyKeys-remote, remote))))
	redis, redisErr := startRedis()
	if redisErr == nil {
		defer redis.Stop()
		client, err := redis.Dial(0)
		if err != nil {
			return err
		}
		defer client.Close()
		redisErr = add("MGET", mgetCaller(client, keys))
	} else if errors.Is(redisErr, server.ErrNoRedis) {
		o.log("many: %v", redisErr)
	}
	if err = errors.Join(err, redisErr); err != nil && !errors.Is(err, server.ErrNoRedis) {
		return err
	}
	before := c.Stats()
	got, err := bench.Rounds(o.rounds, turns...)
	if err != nil {
		return err
	}
	if err := crossed(before, c.Stats()); err != nil {
		return err
	}
	asked := int64(0)
	for _, s := range got["GetMany"] {
		asked += s.Calls * int64(remote)
	}
	for _, s := range got["one get"] {
		asked += s.Calls
	}
	if did := c.Stats().Asked - before.Asked; did < asked {
		return fmt.Errorf("%d keys of %d did not ask the other processes", asked-did, asked)
	}
	manyTable(t, got)
	o.log("many: weir %.0f us, %.2f x one get", got["GetMany"].Median(bench.P50Micros), got["GetMany"].Ratio(got["one get"], bench.P50Micros))
	return nil
}

// manyTable adds the rows.
func manyTable(t *bench.Table, got map[string]bench.Results) {
	what := fmt.Sprintf("GetMany, %d keys of %d B over %d nodes, one caller", manyKeys, sizes[0], 1+manyPeers)
	weir := got["GetMany"]
	micros := func(r bench.Results) string { return fmt.Sprintf("%.1f", r.Median(bench.P50Micros)) }
	allocs := fmt.Sprintf("%.0f groupcache-go one by one", got["groupcache"].Median(bench.Allocs))
	for _, rival := range []struct {
		name, shown string
		aim         bench.Aim
	}{
		{"one get", "one remote get", bench.AtMost(2)}, {"groupcache", "groupcache-go one by one", bench.Aim{}},
		{"MGET", "Redis MGET (rueidis)", bench.Aim{}},
	} {
		r := bench.Row{What: what + ", p50, us", Result: micros(weir), Floor: rival.shown, Aim: rival.aim, Note: server.ErrNoRedis.Error()}
		if x := got[rival.name]; x != nil {
			r.Floor, r.Ratio, r.Note = micros(x)+" "+rival.shown, weir.Ratio(x, bench.P50Micros), ""
		}
		t.Add(r)
	}
	if x := got["MGET"]; x != nil {
		allocs += fmt.Sprintf(", %.0f MGET", x.Median(bench.Allocs))
	}
	t.Add(bench.Row{What: what + ", allocations a call", Result: fmt.Sprintf("%.0f", weir.Median(bench.Allocs)), Floor: allocs})
}

// manyCaller gets all keys in one call.
func manyCaller(c *tier.Cache[[]byte], keys []string) bench.Caller {
	ctx := context.Background()
	return bench.Caller{Call: func() error {
		got, err := c.GetMany(ctx, keys)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if len(got[k]) != sizeOf(k) {
				return fmt.Errorf("%q: %d bytes", k, len(got[k]))
			}
		}
		return nil
	}}
}

// mgetCaller gets all keys in one call from Redis.
func mgetCaller(c rueidis.Client, keys []string) bench.Caller {
	ctx := context.Background()
	return bench.Caller{Call: func() error {
		got, err := rueidis.MGet(c, ctx, keys)
		if err != nil {
			return err
		}
		for _, k := range keys {
			m := got[k]
			if b, err := m.AsBytes(); err != nil || len(b) != sizeOf(k) {
				return fmt.Errorf("redis: %q: %d bytes, %v", k, len(b), err)
			}
		}
		return nil
	}}
}

// group is a node of groupcache.
type group struct {
	addr   string
	daemon *groupcache.Daemon
	group  transport.Group
	client *http.Transport
}

// keepsOwned creates the two caches of a group: the first, for keys that the node owns, keeps everything, and the
// second, for values from other nodes, keeps nothing.
func keepsOwned() func(int64) (groupcache.Cache, error) {
	made := 0
	return func(int64) (groupcache.Cache, error) {
		made++
		return &groupKept{m: make(map[string]transport.ByteView), off: made%2 == 0}, nil
	}
}

// startGroup starts a node. A node without others owns all keys. With nil caches it uses groupcache's own.
func startGroup(caches func(int64) (groupcache.Cache, error), others ...string) (*group, error) {
	addr, _, err := server.FreePort()
	if err != nil {
		return nil, err
	}
	g := &group{addr: addr, client: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 512}}
	ctx, quiet := context.Background(), slog.New(slog.DiscardHandler)
	g.daemon, err = groupcache.ListenAndServe(ctx, g.addr, groupcache.Options{
		Logger:       quiet,
		HashFn:       func(key []byte) uint64 { return ring.Hash(string(key)) }, // its default assigns similar keys to one node
		Transport:    transport.NewHttpTransport(transport.HttpTransportOptions{Client: &http.Client{Transport: g.client}, Logger: quiet}),
		CacheFactory: caches,
	})
	if err != nil {
		return nil, err
	}
	g.group, err = g.daemon.NewGroup("speed", 64<<20, groupcache.GetterFunc(func(_ context.Context, key string, dest transport.Sink) error {
		return dest.SetBytes(value(sizeOf(key)), time.Time{})
	}))
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	peers := []peer.Info{{Address: g.addr}}
	for _, addr := range others {
		peers = append(peers, peer.Info{Address: addr})
	}
	if err := g.daemon.SetPeers(ctx, peers); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// keys returns keys for values of the given size: here keys that the node owns, and there keys that others own.
func (g *group) keys(size, here, there int) []string {
	var out []string
	for i := 0; here+there > 0; i++ {
		k, left := keyOf(size, i), &here
		if _, remote := g.daemon.GetInstance().PickPeer(k); remote {
			left = &there
		}
		if *left > 0 {
			*left--
			out = append(out, k)
		}
	}
	return out
}

// caller gets all keys, one after the other: groupcache has no multi-get.
func (g *group) caller(keys []string) bench.Caller {
	return bench.Caller{Call: func() error {
		for _, k := range keys {
			if err := g.get(k); err != nil {
				return err
			}
		}
		return nil
	}}
}

// each gets one key per call.
func (g *group) each(keys []string) bench.Caller {
	i := 0
	return bench.Caller{Call: func() error {
		i++
		return g.get(keys[i%len(keys)])
	}}
}

func (g *group) get(key string) error {
	var v transport.ByteView
	if err := g.group.Get(context.Background(), key, transport.ByteViewSink(&v)); err != nil {
		return err
	}
	if v.Len() != sizeOf(key) {
		return fmt.Errorf("groupcache: %q: %d bytes", key, v.Len())
	}
	return nil
}

func (g *group) close() error {
	g.client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return g.daemon.Shutdown(ctx)
}

// groupKept is a cache for groupcache that keeps everything or nothing: the path to the owners is what is measured.
type groupKept struct {
	off bool
	mu  sync.RWMutex // guards m
	m   map[string]transport.ByteView
}

func (k *groupKept) Get(key string) (transport.ByteView, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	v, ok := k.m[key]
	return v, ok
}

func (k *groupKept) Add(key string, v transport.ByteView) {
	if k.off {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.m[key] = v
}

func (k *groupKept) Remove(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, key)
}

func (k *groupKept) Stats() groupcache.CacheStats { return groupcache.CacheStats{} }
func (k *groupKept) Bytes() int64                 { return 0 }
func (k *groupKept) Close()                       {}
