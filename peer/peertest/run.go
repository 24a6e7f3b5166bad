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

// A Plan is how a run goes: first it is calm, then there are faults, then everything is healed.
type Plan struct {
	Calm, Faults, After time.Duration // 0: 15 s, 65 s and 40 s
	Keys                int           // 0: eight
	Pace                time.Duration // between two reads of a client, on the average; 0: 150 ms
	Clients             int           // for each node; 0: one
}

func (p Plan) withDefaults() Plan {
	if p.Calm == 0 {
		p.Calm, p.Faults, p.After = 15*time.Second, 65*time.Second, 40*time.Second
	}
	if p.Keys == 0 {
		p.Keys = 8
	}
	if p.Pace == 0 {
		p.Pace = 150 * time.Millisecond
	}
	if p.Clients == 0 {
		p.Clients = 1
	}
	return p
}

// settleLimit is how long after the end of the faults a cluster may take to agree.
const settleLimit = 60 * time.Second

// Run starts all nodes, plays the plan, which the seed fills in, and takes all nodes down. The
// error says what the run could not do, or that the cluster did not come to rest after the faults.
// What was served is in the History.
func (c *Cluster) Run(ctx context.Context, plan Plan) (err error) {
	p := plan.withDefaults()
	defer func() { err = errors.Join(err, c.Stop()) }()
	for i := range c.hosts {
		if err := c.Start(ctx, i); err != nil {
			return err
		}
	}
	if err := c.Settle(settleLimit); err != nil {
		return fmt.Errorf("before any fault: %w", err)
	}
	var wg sync.WaitGroup
	end, stop := context.WithCancel(ctx)
	defer wg.Wait()
	defer stop()
	for i := range c.hosts {
		for k := range p.Clients {
			wg.Go(func() { c.client(end, i, p, c.random(uint64(1000+i*100+k))) })
		}
	}
	sleep(ctx, p.Calm)
	if err := c.trouble(ctx, p.Faults); err != nil {
		return err
	}
	if err := c.Settle(settleLimit); err != nil {
		return fmt.Errorf("%v after the last fault: %w", settleLimit, err)
	}
	sleep(ctx, p.After)
	return ctx.Err()
}

// Stop takes all nodes down.
func (c *Cluster) Stop() error {
	var errs []error
	for i := range c.hosts {
		errs = append(errs, c.Crash(i))
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

// client reads and sometimes writes until ctx ends.
func (c *Cluster) client(ctx context.Context, i int, p Plan, dice *rand.Rand) {
	for ctx.Err() == nil {
		key := fmt.Sprintf("k%d", min(dice.IntN(p.Keys), dice.IntN(p.Keys))) // some are hotter
		switch at := dice.Float64(); {
		case at < 0.05:
			c.Write(i, key)
		case at < 0.15:
			c.Read(i, key, 0, time.Second)
		case at < 0.2:
			c.Read(i, key, time.Duration(dice.Int64N(int64(3*time.Second))), 2*time.Second)
		default:
			c.Read(i, key, tier.AnyAge, time.Duration(1+dice.IntN(2000))*time.Millisecond)
		}
		sleep(ctx, time.Duration(dice.Int64N(int64(2*p.Pace))))
	}
}

// trouble makes faults for so long, then heals everything and starts what is down.
func (c *Cluster) trouble(ctx context.Context, length time.Duration) error {
	dice := c.random(7)
	var wg sync.WaitGroup
	defer wg.Wait()
	c.Net.SetFaults(
		netsim.PacketFaults{Drop: dice.Float64() * 0.2, Duplicate: dice.Float64() * 0.1, Delay: time.Duration(dice.IntN(100)) * time.Millisecond},
		netsim.ConnFaults{
			Delay: time.Duration(dice.IntN(5)) * time.Millisecond, Stall: dice.Float64() * 0.005, StallFor: 300 * time.Millisecond,
			Break: dice.Float64() * 0.001, HalfClose: dice.Float64() * 0.0005,
		})
	c.Origin.SetMoods(Moods{Slow: 0.05, Fail: 0.05, Hang: 0.01, Overrun: 0.01, Panic: 0.01})
	for end := time.Now().Add(length); time.Now().Before(end) && ctx.Err() == nil; {
		if err := c.fault(ctx, dice, &wg); err != nil {
			return err
		}
		sleep(ctx, time.Duration(1+dice.IntN(8))*time.Second)
	}
	wg.Wait()
	c.Net.SetFaults(netsim.PacketFaults{}, netsim.ConnFaults{})
	c.Net.Heal()
	c.Origin.SetMoods(Moods{})
	for i := range c.hosts {
		if err := c.Start(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// fault makes one fault. What ends it later belongs to wg.
func (c *Cluster) fault(ctx context.Context, dice *rand.Rand, wg *sync.WaitGroup) error {
	i, j := dice.IntN(len(c.hosts)), dice.IntN(len(c.hosts))
	a, b := c.IP(i), c.IP(j)
	hold := time.Duration(500+dice.IntN(15000)) * time.Millisecond
	later := func(f func()) {
		wg.Go(func() {
			sleep(ctx, hold)
			f()
		})
	}
	switch dice.IntN(8) {
	case 0: // one way
		c.Net.Cut(a, b)
		later(func() { c.Net.Uncut(a, b) })
	case 1: // both ways
		c.Net.Cut(a, b)
		c.Net.Cut(b, a)
		later(func() { c.Net.Uncut(b, a); c.Net.Uncut(a, b) })
	case 2: // one alone, or two
		c.Net.Isolate(a, b)
		later(c.Net.Heal)
	case 3:
		c.Net.Pause(a)
		later(func() { c.Net.Resume(a) })
	case 4, 5:
		err := c.Crash(i)
		sleep(ctx, time.Duration(dice.IntN(3000))*time.Millisecond)
		return errors.Join(err, c.Start(ctx, i))
	case 6:
		err := c.Crash(i)
		later(func() { _ = c.Start(ctx, i) })
		return err
	case 7:
		bye, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_ = c.Leave(bye, i) // who is cut off cannot say goodbye
		later(func() { _ = c.Start(ctx, i) })
	}
	return nil
}
