package peertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/tier"
)

// A Plan configures a run: first a calm time, then faults, then a time after everything is healed.
type Plan struct {
	Calm, Faults, After time.Duration // 0: 15 s, 65 s and 40 s
	Keys                int           // 0: eight
	Pace                time.Duration // between two reads of a client, on average; 0: 400 ms
	Clients             int           // per node; 0: one
	Storms              time.Duration // between two storms, on average; 0: 800 ms
	Steady              bool          // nodes are neither killed nor do they leave
	Kinds               []Kind        // of faults; nil: all, or with Steady those that do not end a node
	Without             []int         // the numbers of faults to leave out; the first is 1
}

func (p Plan) withDefaults() Plan {
	if p.Calm == 0 {
		p.Calm, p.Faults, p.After = 15*time.Second, 65*time.Second, 40*time.Second
	}
	if p.Keys == 0 {
		p.Keys = 8
	}
	if p.Pace == 0 {
		p.Pace = 400 * time.Millisecond
	}
	if p.Clients == 0 {
		p.Clients = 1
	}
	if p.Storms == 0 {
		p.Storms = 800 * time.Millisecond
	}
	return p
}

const (
	// settleLimit is how long a cluster may take to agree after the end of the faults.
	settleLimit = 60 * time.Second
	// aftermath is how long after that the faults may still show: connections wait before they are retried, errors are
	// remembered, shares of the cap grow late, stand-in owners keep copies.
	aftermath = 10 * time.Second
	// stormLength is how long a storm lasts: some loads and some trips across the network.
	stormLength = 120 * time.Millisecond
)

// Run starts all nodes, plays the plan, whose faults the seed decides, and stops all nodes. The error says what the run
// could not do, or that the cluster did not settle after the faults. The History has what was served.
func (c *Cluster) Run(ctx context.Context, plan Plan) (err error) {
	p := plan.withDefaults()
	defer func() { err = errors.Join(err, c.Stop()) }()
	// Frames of different connections overtake one another from the start.
	c.base = netsim.ConnFaults{Delay: time.Duration(c.random(8).IntN(15)) * time.Millisecond}
	c.Net.SetFaults(netsim.PacketFaults{}, c.base)
	for i := range c.hosts {
		if err := c.Start(ctx, i); err != nil {
			return err
		}
	}
	if err := c.Settle(settleLimit); err != nil {
		return fmt.Errorf("before any fault: %w", err)
	}
	if c.outsider, err = tier.New(tier.Config[Value]{
		Namespace: "sim", Loader: c.Origin.Loader(ctx, "outside", 1), Freshness: c.opt.Freshness, NearBytes: -1, OwnedBytes: 1 << 20, Seed: c.opt.Seed + 99,
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeCache(c.outsider)) }()
	var wg sync.WaitGroup
	end, stop := context.WithCancel(ctx)
	defer wg.Wait()
	defer stop()
	for i := range c.hosts {
		for k := range p.Clients {
			wg.Go(func() { c.client(end, i, p, c.random(uint64(1000+i*100+k))) })
		}
	}
	wg.Go(func() { c.storms(end, p, c.random(9)) })
	sleep(ctx, min(aftermath, p.Calm/2))
	c.calm(ctx, p.Calm-min(aftermath, p.Calm/2))
	if err := c.trouble(ctx, p); err != nil {
		return err
	}
	limit := settleLimit + c.Origin.overrun // a load that hangs may have begun at the end of the faults
	if err := c.Settle(limit); err != nil {
		return fmt.Errorf("%v after the last fault: %w", limit, err)
	}
	sleep(ctx, min(aftermath, p.After))
	c.unshadow()
	if p.After > aftermath {
		c.calm(ctx, p.After-aftermath)
	}
	return ctx.Err()
}

// calm lets time pass without faults.
func (c *Cluster) calm(ctx context.Context, d time.Duration) {
	c.History.BeginCalm()
	sleep(ctx, d)
	c.History.EndCalm()
}

// Stop stops all nodes.
func (c *Cluster) Stop() error {
	var errs []error
	for i := range c.hosts {
		errs = append(errs, c.stop(i, func(p instance) error {
			p.cancel(errEnded)
			return errors.Join(closeCache(p.cache), p.node.Close())
		}))
	}
	return errors.Join(errs...)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func upTo(dice *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(dice.Int64N(max(int64(d), 1)))
}

// someKey returns one of the plan's keys; some are hotter than others.
func someKey(p Plan, dice *rand.Rand) string {
	return fmt.Sprintf("k%d", min(dice.IntN(p.Keys), dice.IntN(p.Keys)))
}

// readKeyOf returns a key for a client to read: key or, with nested loads, sometimes a key whose load reads it.
func (c *Cluster) readKeyOf(key string, dice *rand.Rand) string {
	for c.opt.Nested && len(key) < len("ppk99") && dice.IntN(4) == 0 {
		key = parentOf(key)
	}
	return key
}

// client reads and sometimes writes until ctx ends.
func (c *Cluster) client(ctx context.Context, i int, p Plan, dice *rand.Rand) {
	for ctx.Err() == nil {
		key := someKey(p, dice)
		if dice.Float64() < 0.05 {
			c.anyWrite(i, p, key, dice)
		} else {
			c.anyRead(i, c.readKeyOf(key, dice), dice)
		}
		sleep(ctx, upTo(dice, 2*p.Pace))
	}
}

// anyRead is a read of a random kind.
func (c *Cluster) anyRead(i int, key string, dice *rand.Rand) {
	brief := 8 * time.Millisecond << dice.IntN(9) // may be shorter than a load
	switch at := dice.Float64(); {
	case at < 0.1:
		c.Read(i, key, 0, time.Second)
	case at < 0.15:
		c.Read(i, key, upTo(dice, upTo(dice, 3*time.Second)), 2*time.Second)
	case at < 0.22:
		c.ReadAfter(i, key, dice)
	case at < 0.3:
		c.Read(i, key, tier.AnyAge, c.patience())
	case at < 0.45:
		c.Read(i, key, tier.AnyAge, brief)
	case at < 0.55:
		c.read(i, &Read{Key: key, MaxAge: tier.AnyAge, Plain: true, Leaves: true}, brief)
	case at < 0.75:
		c.Get(i, key, 2*time.Second)
	default:
		c.Get(i, key, brief)
	}
}

// ReadAfter is a recorded read of key on the i-th node with the token of one of the key's last invalidations, wherever it
// was started and whichever members have heard of it. Without a token it is an ordinary read.
func (c *Cluster) ReadAfter(i int, key string, dice *rand.Rand) bool {
	r := &Read{Key: key, MaxAge: tier.AnyAge}
	if list := c.History.Tokens(key); len(list) > 0 {
		r.After = list[dice.IntN(len(list))]
	}
	return c.read(i, r, 2*time.Second)
}

// anyWrite is a write of a random kind: mostly of one key, sometimes of two or of a tag's keys, with an invalidation of
// everything, from outside the cluster, or as a Put of the value.
func (c *Cluster) anyWrite(i int, p Plan, key string, dice *rand.Rand) {
	gone := dice.Float64() < 0.15
	switch at := dice.Float64(); {
	case at < 0.03:
		c.Change(i, gone, tier.Change{All: true}, key)
	case at < 0.12:
		c.Change(i, gone, tier.Change{Tags: []string{TagOf(key), TagOf(someKey(p, dice))}}, key)
	case at < 0.20:
		c.Change(i, gone, tier.Change{Keys: []string{key, someKey(p, dice)}, Tags: []string{"nothing has it"}})
	case at < 0.27:
		c.WriteOutside(gone, key)
	case at < 0.32:
		c.Put(i, key, c.opt.LongTTL)
	default:
		c.Write(i, key, gone)
	}
}

// storms makes many clients read one key that is being written, or many cold keys, at the same moment, again and again
// until ctx ends.
func (c *Cluster) storms(ctx context.Context, p Plan, dice *rand.Rand) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for cold := 0; ctx.Err() == nil; sleep(ctx, upTo(dice, 2*p.Storms)) {
		key := someKey(p, dice)
		at := func(most time.Duration, f func(dice *rand.Rand)) {
			own := rand.New(rand.NewPCG(dice.Uint64(), dice.Uint64()))
			wait := upTo(own, most)
			wg.Go(func() {
				sleep(ctx, wait)
				f(own)
			})
		}
		if dice.IntN(8) == 0 {
			for range 5 * len(c.hosts) {
				cold++
				name, i := fmt.Sprintf("c%d", cold), dice.IntN(len(c.hosts))
				at(time.Millisecond, func(*rand.Rand) { c.Get(i, name, c.patience()) })
			}
			continue
		}
		for i := range c.hosts {
			for range 1 + dice.IntN(3) {
				at(stormLength, func(dice *rand.Rand) { c.anyRead(i, c.readKeyOf(key, dice), dice) })
			}
		}
		for range dice.IntN(3) {
			i := dice.IntN(len(c.hosts))
			at(stormLength/2, func(dice *rand.Rand) { c.anyWrite(i, p, key, dice) })
		}
	}
}
