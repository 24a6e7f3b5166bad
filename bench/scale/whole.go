package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/weircache/weir/bench/cputime"
	"github.com/weircache/weir/bench/member"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/tier"
)

// whole measures n whole nodes over the simulated network.
func whole(ctx context.Context, n int, o options) (r result, err error) {
	r.members = n
	before := measureProcess()
	world := netsim.New(1)
	meters, nodes := make([]meter, n), make([]*peer.Node, n)
	caches := make([]*tier.Cache[string], n)
	defer func() {
		o.say("closing")
		err = errors.Join(err, inParallel(n, func(i int) error {
			if caches[i] != nil {
				return caches[i].Close(context.WithoutCancel(ctx))
			}
			return nil
		}), inParallel(n, func(i int) error {
			if nodes[i] != nil {
				return nodes[i].Close()
			}
			return nil
		}))
	}()
	start := func(i int) (err error) {
		ip := address(i)
		nodes[i], err = peer.Start(ctx, peer.Config{
			Name: fmt.Sprintf("catalog-%d", i), Bind: ip + ":7946", Join: []string{address(0) + ":7946"}, MinMembers: n,
			Network: metered{world.Host(ip), &meters[i]}, Logger: slog.New(slog.DiscardHandler), Seed: uint64(i) + 1,
		})
		return err
	}
	if err := errors.Join(start(0), inParallel(n-1, func(i int) error { return start(i + 1) })); err != nil {
		return r, err
	}
	o.say("nodes are started")
	for _, p := range nodes {
		if err := member.AwaitView(ctx, p, n); err != nil {
			return r, err
		}
	}
	o.say("all see all")
	// Only gossip: the nodes do not have caches yet, so they do not use data connections.
	if err := pause(ctx, o.rest); err != nil {
		return r, err
	}
	for _, p := range nodes {
		r.idleConnections += connections(p)
	}
	if err := inParallel(n, func(i int) (err error) {
		caches[i], err = tier.New(cacheConfig(nodes[i]))
		return err
	}); err != nil {
		return r, err
	}
	o.say("caches are made")
	for _, p := range nodes {
		if err := member.AwaitReady(ctx, p); err != nil {
			return r, err
		}
	}
	for _, p := range nodes {
		r.connections += float64(connections(p)) / float64(n)
	}
	r.perNode(before, measureProcess(), n)
	o.say("ready, measured")
	var cpu time.Duration
	if r.rest, cpu, err = rest(ctx, meters, o.rest); err != nil {
		return r, err
	}
	r.restCPU = cpu.Seconds() / o.rest.Seconds() / float64(n)

	// One node invalidates.
	from, others := meters[0].read(), sum(meters[1:])
	cpu0, began := cputime.Used(), time.Now()
	r.invalidations, err = invalidate(ctx, caches[0], o)
	d := time.Since(began).Seconds()
	r.loadCPU = (cputime.Used() - cpu0).Seconds() / d
	r.sender = meters[0].read().minus(from).out()
	r.senderIn = meters[0].read().minus(from).in()
	r.receiver = sum(meters[1:]).minus(others).in() / int64(max(n-1, 1))
	r.seconds = d
	o.say("%+v", r)
	return r, err
}

// rest returns what a node sends and receives per second, and the CPU time of all nodes, while the cluster is idle.
func rest(ctx context.Context, meters []meter, d time.Duration) (perSecond reading, cpu time.Duration, err error) {
	before, cpu0 := sum(meters), cputime.Used()
	if err := pause(ctx, d); err != nil {
		return perSecond, 0, err
	}
	r, by := sum(meters).minus(before), int64(len(meters))*int64(d/time.Millisecond)
	return reading{r.udpOut * 1000 / by, r.udpIn * 1000 / by, r.tcpOut * 1000 / by, r.tcpIn * 1000 / by}, cputime.Used() - cpu0, nil
}

func sum(meters []meter) (all reading) {
	for i := range meters {
		all = all.plus(meters[i].read())
	}
	return all
}

// connections returns how many of the data connections that a node has opened are up.
func connections(p *peer.Node) (n int) {
	for _, c := range p.Stats().Connections {
		n += c.Connected
	}
	return n
}

func cacheConfig(c tier.Cluster) tier.Config[string] {
	return tier.Config[string]{
		Cluster: c, Namespace: "scale", Codec: codec.JSON[string](), Logger: slog.New(slog.DiscardHandler),
		Loader:    tier.ByKey(func(_ context.Context, key string) (string, error) { return key, nil }),
		Freshness: tier.Freshness{TTL: time.Hour}, NearBytes: -1, OwnedBytes: 1 << 20,
	}
}

// inParallel calls f for 0 to n-1, a few at a time, and returns all errors.
func inParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// address returns the address of the i-th node.
func address(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250+1) }
