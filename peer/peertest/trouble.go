package peertest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/peer/netsim"
)

// usual are the origin's moods while there are faults.
var usual = Moods{Slow: 0.05, Fail: 0.05, Hang: 0.01, Overrun: 0.01, Panic: 0.01}

// trouble makes the plan's faults, then heals everything and starts what is down.
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
		own := rand.New(rand.NewPCG(dice.Uint64(), dice.Uint64())) // a fault that is left out changes no other
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

// kinds is how many kinds of faults there are; the last four end a node.
const kinds = 15

// fault makes one fault. What ends it later belongs to wg. Faults overlap, and end in another order.
func (c *Cluster) fault(ctx context.Context, p Plan, dice *rand.Rand, wg *sync.WaitGroup) error {
	i, j := dice.IntN(len(c.hosts)), dice.IntN(len(c.hosts))
	hold := 500*time.Millisecond + upTo(dice, 15*time.Second)
	if dice.IntN(10) == 0 {
		hold += 35 * time.Second // after half a minute memberlist forgets the dead
	}
	// during says what happens and makes undo happen when it is over.
	during := func(undo func(), what string, args ...any) {
		c.History.Note(what, args...)
		wg.Go(func() {
			sleep(ctx, hold)
			c.History.Note("over: "+what, args...)
			undo()
		})
	}
	restart := func() { _ = c.Start(ctx, i) } // fails with ctx only
	kind := dice.IntN(kinds)
	if p.Steady {
		kind = dice.IntN(kinds - 4)
	}
	switch kind {
	case 0:
		during(c.clog([]int{i}, []int{j}), "n%d is not heard by n%d", i, j)
	case 1:
		during(c.clog([]int{i, j}, []int{i, j}), "n%d and n%d are apart", i, j)
	case 2:
		during(c.clog([]int{i}, c.others(i), c.others(i), []int{i}), "n%d is alone", i)
	case 3:
		during(c.clog([]int{i, j}, c.others(i, j), c.others(i, j), []int{i, j}), "n%d and n%d are cut off", i, j)
	case 4:
		during(c.clog([]int{i}, c.others(i)), "n%d is not heard", i)
	case 5:
		during(c.clog(c.others(i), []int{i}), "n%d hears nobody", i)
	case 6, 7:
		c.Net.Pause(c.IP(i))
		during(func() { c.Net.Resume(c.IP(i)) }, "n%d is paused", i)
	case 8:
		mood := Moods{Fail: 0.9, Slow: 0.1}
		if dice.IntN(3) == 0 {
			mood = Moods{Hang: 0.5, Overrun: 0.2, Fail: 0.3}
		}
		c.Origin.SetMoods(mood)
		c.outages.Add(1)
		during(func() { c.Origin.SetMoods(usual) }, "the origin is ill: %+v", mood)
	case 9:
		if clock := c.Clock(i); clock != nil {
			rate := 1 + (dice.Float64()*2-1)*maxDrift
			clock.SetRate(rate)
			c.clocks.Add(1)
			c.History.Note("n%d's clock runs at %.3f", i, rate)
		}
	case 10:
		if clock := c.Clock(i); clock != nil {
			d := upTo(dice, 10*time.Second)
			c.History.Note("n%d's clock jumps ahead by %v", i, d)
			c.History.jumped(c.hosts[i].name)
			clock.Jump(d)
			c.clocks.Add(1)
		}
	case 11: // from here on a node goes
		err := c.Crash(i)
		sleep(ctx, upTo(dice, 3*time.Second))
		return errors.Join(err, c.Start(ctx, i))
	case 12:
		err := c.Crash(i)
		during(restart, "n%d stays down", i)
		return err
	case 13:
		bye, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_ = c.Leave(bye, i) // who is cut off cannot say goodbye
		during(restart, "n%d stays away", i)
	case 14:
		c.History.Note("n%d flaps", i)
		for range 2 + dice.IntN(4) {
			if err := errors.Join(c.Crash(i), c.Start(ctx, i)); err != nil {
				return err
			}
			sleep(ctx, upTo(dice, 3*time.Second))
		}
	}
	return nil
}

// clog cuts the ways from each host of the first group to each of the second, and so on for
// further pairs of groups. undo takes the cuts back.
func (c *Cluster) clog(groups ...[]int) (undo func()) {
	each := func(f func(from, to string)) {
		for g := 0; g+1 < len(groups); g += 2 {
			for _, i := range groups[g] {
				for _, j := range groups[g+1] {
					if i != j {
						f(c.IP(i), c.IP(j))
					}
				}
			}
		}
	}
	each(c.Net.Cut)
	return func() { each(c.Net.Uncut) }
}

// others are all hosts but these.
func (c *Cluster) others(but ...int) (out []int) {
	for i := range c.hosts {
		if i != but[0] && i != but[len(but)-1] {
			out = append(out, i)
		}
	}
	return out
}
