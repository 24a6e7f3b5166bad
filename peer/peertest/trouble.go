package peertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/tier"
)

// usual is the origin's moods during faults.
var usual = Moods{Slow: 0.05, Fail: 0.05, Hang: 0.01, Overrun: 0.01, Panic: 0.01}

// trouble injects the plan's faults, then heals everything and starts the nodes that are down.
func (c *Cluster) trouble(ctx context.Context, p Plan) error {
	dice := c.random(7)
	var wg sync.WaitGroup
	defer wg.Wait()
	c.Net.SetFaults(
		netsim.PacketFaults{Drop: dice.Float64() * 0.2, Duplicate: dice.Float64() * 0.1, Delay: time.Duration(dice.IntN(100)) * time.Millisecond},
		netsim.ConnFaults{
			Delay: c.base.Delay + time.Duration(dice.IntN(30))*time.Millisecond, Stall: dice.Float64() * 0.005, StallFor: 300 * time.Millisecond,
			Break: dice.Float64() * 0.001, HalfClose: dice.Float64() * 0.0005,
		})
	c.Origin.SetMoods(usual)
	for end := time.Now().Add(p.Faults); time.Now().Before(end) && ctx.Err() == nil; {
		c.planned.Add(1)
		own := rand.New(rand.NewPCG(dice.Uint64(), dice.Uint64())) // leaving out a fault does not change the others
		if !slices.Contains(p.Without, int(c.planned.Load())) {
			if err := c.fault(ctx, p, own, &wg); err != nil {
				return err
			}
		}
		sleep(ctx, time.Duration(1+dice.IntN(8))*time.Second)
	}
	wg.Wait()
	c.Net.SetFaults(netsim.PacketFaults{}, c.base)
	c.Net.Heal()
	c.Origin.SetMoods(Moods{})
	c.History.Note("the faults end")
	for i := range c.hosts {
		if err := c.Start(ctx, i); err != nil {
			return err
		}
		if clock := c.Clock(i); clock != nil {
			clock.SetRate(1)
		}
	}
	return nil
}

// A Kind is a kind of fault.
type Kind uint8

// The kinds. From Crashed on, they end a node.
const (
	NotHeardByOne Kind = iota // the link between two nodes is cut in one direction
	Apart                     // the link between two nodes is cut in both directions
	Alone                     // a node is cut off
	TwoCutOff                 // two nodes are cut off together
	NotHeard                  // everything that a node sends is lost
	HearsNobody               // everything that is sent to a node is lost
	Paused                    // a node's host is paused
	OriginIll                 // the origin fails or hangs
	ClockDrifts               // a clock is fast or slow
	ClockJumps                // a clock is set ahead
	HeldPut                   // a key's owner is paused while another node puts a value of the key
	TokensApart               // two nodes are cut off, both sides write, and each side reads with the other's tokens
	Crashed                   // a node crashes and starts again
	StaysDown                 // a node crashes and is away for a while
	Left                      // a node leaves and is away for a while
	Flaps                     // a node crashes and starts again and again
	Renamed                   // a node crashes and another one starts under a new name, sometimes at a new address
	Together                  // two nodes go at once and come back at once, sometimes under new names
	Doubled                   // a second node with a name in use comes and goes
	kinds
)

// String returns the kind's name.
func (k Kind) String() string {
	return [kinds]string{
		"not heard by one", "apart", "alone", "two cut off", "not heard", "hears nobody", "paused", "origin ill", "clock drifts", "clock jumps",
		"held put", "tokens apart", "crashed", "stays down", "left", "flaps", "renamed", "together", "doubled",
	}[k]
}

// kindsOf returns the kinds from which the plan draws.
func (p Plan) kindsOf() []Kind {
	if p.Kinds != nil {
		return p.Kinds
	}
	all := []Kind{Paused} // drawn twice as often as others
	for k := range kinds {
		if k < Crashed || !p.Steady {
			all = append(all, k)
		}
	}
	return all
}

// fault makes one fault. The goroutine that ends it later belongs to wg. Faults overlap, and end in another order.
func (c *Cluster) fault(ctx context.Context, p Plan, dice *rand.Rand, wg *sync.WaitGroup) error {
	i, j := dice.IntN(len(c.hosts)), dice.IntN(len(c.hosts))
	hold := 500*time.Millisecond + upTo(dice, 15*time.Second)
	if dice.IntN(10) == 0 {
		hold += 35 * time.Second // memberlist forgets the dead after half a minute
	}
	// during notes the fault and schedules undo for its end.
	during := func(undo func(), what string, args ...any) {
		c.History.Note(what, args...)
		wg.Go(func() {
			sleep(ctx, hold)
			c.History.Note("over: "+what, args...)
			undo()
		})
	}
	restart := func() { _ = c.Start(ctx, i) } // fails only with ctx
	list := p.kindsOf()
	kind := list[dice.IntN(len(list))]
	c.drawn[kind].Add(1)
	switch kind {
	case NotHeardByOne:
		during(c.clog([]int{i}, []int{j}), "n%d is not heard by n%d", i, j)
	case Apart:
		during(c.clog([]int{i, j}, []int{i, j}), "n%d and n%d are apart", i, j)
	case Alone:
		during(c.clog([]int{i}, c.others(i), c.others(i), []int{i}), "n%d is alone", i)
	case TwoCutOff:
		during(c.clog([]int{i, j}, c.others(i, j), c.others(i, j), []int{i, j}), "n%d and n%d are cut off", i, j)
	case NotHeard:
		during(c.clog([]int{i}, c.others(i)), "n%d is not heard", i)
	case HearsNobody:
		during(c.clog(c.others(i), []int{i}), "n%d hears nobody", i)
	case Paused:
		during(c.pause(i), "n%d is paused", i)
	case OriginIll:
		mood := Moods{Fail: 0.9, Slow: 0.1}
		if dice.IntN(3) == 0 {
			mood = Moods{Hang: 0.5, Overrun: 0.2, Fail: 0.3}
		}
		c.Origin.SetMoods(mood)
		c.outages.Add(1)
		during(func() { c.Origin.SetMoods(usual) }, "the origin is ill: %+v", mood)
	case ClockDrifts:
		if clock := c.Clock(i); clock != nil {
			rate := 1 + (dice.Float64()*2-1)*maxDrift
			clock.SetRate(rate)
			c.clocks.Add(1)
			c.History.Note("n%d's clock runs at %.3f", i, rate)
		}
	case ClockJumps:
		if clock := c.Clock(i); clock != nil {
			d := upTo(dice, 10*time.Second)
			c.History.Note("n%d's clock jumps ahead by %v", i, d)
			c.History.jumped(c.nameOf(i))
			clock.Jump(d)
			c.clocks.Add(1)
		}
	case HeldPut:
		c.heldPut(ctx, fmt.Sprintf("h%d", c.names.Add(1)), i, hold, wg)
	case TokensApart:
		wg.Go(func() { c.tokensApart(ctx, someKey(p, dice), i, j, hold) })
	case Crashed:
		err := c.Crash(i)
		sleep(ctx, upTo(dice, 3*time.Second))
		return errors.Join(err, c.Start(ctx, i))
	case StaysDown:
		err := c.Crash(i)
		during(restart, "n%d stays down", i)
		return err
	case Left:
		bye, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_ = c.Leave(bye, i) // a node that is cut off cannot say goodbye
		during(restart, "n%d stays away", i)
	case Flaps:
		c.History.Note("n%d flaps", i)
		for range 2 + dice.IntN(4) {
			if err := errors.Join(c.Crash(i), c.Start(ctx, i)); err != nil {
				return err
			}
			sleep(ctx, upTo(dice, 3*time.Second))
		}
	case Renamed:
		err := c.Crash(i)
		sleep(ctx, upTo(dice, 8*time.Second)) // the others may or may not notice
		c.Rename(i, dice.IntN(2) == 0)
		return errors.Join(err, c.Start(ctx, i))
	case Together:
		return c.together(ctx, dice, i, j)
	case Doubled:
		return c.doubled(ctx, dice, i, hold, wg)
	}
	return nil
}

// pause pauses the i-th node's host. undo ends the pause.
func (c *Cluster) pause(i int) (undo func()) {
	ip := c.IP(i)
	c.Net.Pause(ip)
	return func() { c.Net.Resume(ip) }
}

// heldPut holds the puts of other nodes at a key's owner while the i-th node puts a value of the key, as if the owner were
// stopped. Clients do not write this key, because after an invalidation without a version an owner keeps no value.
func (c *Cluster) heldPut(ctx context.Context, key string, i int, hold time.Duration, wg *sync.WaitGroup) {
	n, _ := c.serving(i)
	if n == nil {
		return
	}
	owner := n.View().Owner(key).Name
	if owner == n.Name() {
		return
	}
	c.Put(i, key, c.opt.LongTTL) // so that it gets a reading of the owner's clock
	c.History.Note("%s is stopped while n%d puts %s", owner, i, key)
	open := c.held.hold(owner)
	wg.Go(func() { c.Put(i, key, c.opt.LongTTL) })
	wg.Go(func() {
		sleep(ctx, hold)
		c.History.Note("%s goes on", owner)
		open()
		c.readEverywhere(ctx, key, nil)
	})
}

// readEverywhere reads a key on every node repeatedly for some seconds, with the token of an invalidation if after is not
// nil.
func (c *Cluster) readEverywhere(ctx context.Context, key string, after *Invalidation) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 4 {
		for i := range c.hosts {
			wg.Go(func() { c.read(i, &Read{Key: key, MaxAge: tier.AnyAge, After: after}, 2*time.Second) })
		}
		sleep(ctx, 500*time.Millisecond)
	}
}

// tokensApart cuts two nodes off, lets both sides write a key, and reads with the tokens everywhere, before and after the
// cut ends.
func (c *Cluster) tokensApart(ctx context.Context, key string, i, j int, hold time.Duration) {
	c.History.Note("n%d and n%d are cut off, and tokens cross", i, j)
	heal := c.clog([]int{i, j}, c.others(i, j), c.others(i, j), []int{i, j})
	for _, at := range []int{i, c.others(i, j)[0]} {
		c.Write(at, key, false)
		for _, token := range c.History.Tokens(key)[:min(2, len(c.History.Tokens(key)))] {
			c.readEverywhere(ctx, key, token)
		}
	}
	sleep(ctx, hold)
	c.History.Note("over: n%d and n%d are cut off, and tokens cross", i, j)
	heal()
	for _, token := range c.History.Tokens(key) {
		c.readEverywhere(ctx, key, token)
	}
	c.readEverywhere(ctx, key, nil)
}

// together lets two nodes crash or leave at the same time, and start at the same time.
func (c *Cluster) together(ctx context.Context, dice *rand.Rand, hosts ...int) error {
	c.History.Note("n%d and n%d go and come at once", hosts[0], hosts[1])
	leave, rename := dice.IntN(2) == 0, dice.IntN(2) == 0
	errs := make([]error, len(hosts))
	each := func(f func(i int) error) {
		var wg sync.WaitGroup
		for k, i := range slices.Compact(hosts) {
			wg.Go(func() { errs[k] = errors.Join(errs[k], f(i)) })
		}
		wg.Wait()
	}
	bye, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	each(func(i int) error {
		if leave {
			_ = c.Leave(bye, i) // a node that is cut off cannot say goodbye
			return nil
		}
		return c.Crash(i)
	})
	sleep(ctx, upTo(dice, 3*time.Second))
	each(func(i int) error {
		if rename {
			c.Rename(i, false)
		}
		return c.Start(ctx, i)
	})
	return errors.Join(errs...)
}

// doubled starts a second node under the name of the i-th, at its own address, and stops it after a while. Clients call
// neither until the cluster has settled.
func (c *Cluster) doubled(ctx context.Context, dice *rand.Rand, i int, hold time.Duration, wg *sync.WaitGroup) error {
	h := c.hosts[i]
	h.mu.Lock()
	up := h.node != nil
	h.shadowed = h.shadowed || up
	name := h.name
	h.mu.Unlock()
	if !up {
		return nil
	}
	number := c.names.Add(1)
	c.History.Note("a second %s starts", name)
	double := &host{name: name, ip: fmt.Sprintf("10.0.%d.%d", 100+number/250, 1+number%250), starts: 1000 * int(number)}
	var p instance
	if err := p.start(ctx, c, i, double); err != nil {
		return err
	}
	leave := dice.IntN(3) > 0
	wg.Go(func() {
		sleep(ctx, hold)
		c.History.Note("the second %s goes, in order %t", name, leave)
		c.History.Gone(name) // the first node does not know what this one was told
		if leave {
			bye, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_ = p.node.Leave(bye) // it may be cut off
		} else {
			p.cancel(errEnded)
			c.Net.Crash(double.ip)
		}
		_ = closeCache(p.cache) // a load may overrun
		_ = p.node.Close()
		p.cancel(errEnded)
	})
	return nil
}

// unshadow lets clients call all nodes again.
func (c *Cluster) unshadow() {
	for _, h := range c.hosts {
		h.mu.Lock()
		h.shadowed = false
		h.mu.Unlock()
	}
}

// clog cuts the links from each host of the first group to each of the second, and likewise for further pairs of groups.
// undo removes the cuts.
func (c *Cluster) clog(groups ...[]int) (undo func()) {
	var ways [][2]string
	for g := 0; g+1 < len(groups); g += 2 {
		for _, i := range groups[g] {
			for _, j := range groups[g+1] {
				if i != j {
					ways = append(ways, [2]string{c.IP(i), c.IP(j)})
				}
			}
		}
	}
	for _, way := range ways {
		c.Net.Cut(way[0], way[1])
	}
	return func() {
		for _, way := range ways {
			c.Net.Uncut(way[0], way[1])
		}
	}
}

// others returns all hosts except the given ones.
func (c *Cluster) others(but ...int) (out []int) {
	for i := range c.hosts {
		if i != but[0] && i != but[len(but)-1] {
			out = append(out, i)
		}
	}
	return out
}
