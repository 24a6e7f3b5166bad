package owner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/governor"
)

// Outcome returns the error of the fill, given the error that the batch loader returned.
func (f *Run) Outcome(err error) error {
	if f.Done {
		return f.Err
	}
	if err == nil {
		err = ErrUnset
	}
	return err
}

// A group is a set of flights that are loaded together, as one load of the origin. From the moment that they join it, the
// group's ticket stands for theirs: a class, depth or deadline promised to a caller of one flight goes to both tickets,
// see Governor.Promote.
type group struct {
	id     uint64 // stands for its keys in the chains of the reads of its load; random, so that it differs from those of keys
	ticket governor.Ticket
	chain  []uint64
	all    []*Flight   // guarded by gatherer.mu while it is open
	timer  *time.Timer // closes the group; nil: it was never open
}

// gatherer collects single misses into groups.
type gatherer struct {
	mu   sync.Mutex // guards the rest
	open [governor.Classes]*group
}

func (c *Owner) newGroup(cl governor.Class, chain []uint64, all []*Flight) *group {
	g := &group{id: c.Random.uint64(), ticket: governor.Ticket{Class: cl}, chain: chain}
	g.add(c.Governor, all...)
	return g
}

// add adds flights to a group that has not started.
func (g *group) add(gov *governor.Governor, flights ...*Flight) {
	g.all = append(g.all, flights...)
	gov.Gather(g.tickets(), &g.ticket)
	for _, f := range flights {
		f.group.Store(g)
	}
}

// ungroup makes a flight of a group run by itself.
func (c *Owner) ungroup(f *Flight) {
	c.Governor.Split(&f.ticket)
	f.group.Store(nil)
}

// countJoined counts a caller that has joined a flight. ErrCycle: the caller belongs to the load that the flight waits for.
func (c *Owner) countJoined(f *Flight, cl governor.Class, chain []uint64, until int64) error {
	if until == noWait {
		return nil
	}
	if g := f.group.Load(); g != nil && slices.Contains(chain, g.id) {
		c.Flights.leave(f)
		return ErrCycle
	}
	c.Governor.Promote(&f.ticket, cl, depthOf(chain, until), c.govTime(until))
	return nil
}

// gather puts a flight that has just been started into the open group. It returns false if the flight must run by
// itself.
func (c *Owner) gather(f *Flight, cl governor.Class, chain []uint64) bool {
	if !c.Config.Batches || c.Config.BatchWindow <= 0 || len(chain) > 0 {
		return false
	}
	s := &c.gathered
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.open[cl]
	if g == nil {
		g = c.newGroup(cl, nil, nil)
		s.open[cl] = g
		g.timer = time.AfterFunc(c.Config.BatchWindow, func() { // ends with the flights, and Close waits for each of them
			if c.closeGroup(g, cl) {
				c.runGroup(g)
			}
		})
	}
	g.add(c.Governor, f)
	if len(g.all) >= c.Config.BatchSize {
		s.open[cl] = nil
		g.timer.Stop()
		go c.runGroup(g)
	}
	return true
}

// closeGroup takes a group out of the gatherer. It returns true once.
func (c *Owner) closeGroup(g *group, cl governor.Class) bool {
	s := &c.gathered
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[cl] != g {
		return false
	}
	s.open[cl] = nil
	return true
}

// startFlights starts flights that were created at the same time, in groups if there is a batch loader.
func (c *Owner) startFlights(started []*Flight, cl governor.Class, chain []uint64) {
	if !c.Config.Batches || len(started) == 1 {
		for _, f := range started {
			go c.runFlight(f)
		}
		return
	}
	for some := range slices.Chunk(started, c.Config.BatchSize) {
		go c.runGroup(c.newGroup(cl, chain, some))
	}
}

// runGroup is runFlight for a group that is closed: one permit, one call of the loader, and a commit for each key.
func (c *Owner) runGroup(g *group) {
	if len(g.all) == 1 {
		f := g.all[0]
		c.ungroup(f)
		c.runFlight(f)
		return
	}
	alone, kept := 0, c.stillToLoad(g.all)
	if g.all = kept; len(kept) == 0 {
		return
	}
	defer func() {
		for range len(kept) - alone {
			c.Life.End()
		}
	}()
	free, busy := c.reserveAll(kept)
	alone = len(busy)
	for _, f := range busy { // they must not keep the others waiting
		c.ungroup(f)
		go c.runFlight(f)
	}
	if g.all = free; len(free) == 0 {
		return
	}
	c.Governor.Gather(g.tickets(), &g.ticket) // those that are left
	flying, err := c.admitAll(c.Ctx, g, free)
	if err != nil {
		for _, f := range free {
			c.finish(f, c.refused(f, err))
		}
		return
	}
	if len(flying) > 0 {
		c.Governor.EarnRetry()
		c.loadGroup(g, flying)
	}
}

// stillToLoad ends the flights that have nothing to load, and returns the others.
func (c *Owner) stillToLoad(flights []*Flight) (kept []*Flight) {
	over := make([]bool, len(flights))
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(len(flights), MaxSingles) { // each asks its key's previous owner
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(flights) {
					return
				}
				over[i] = c.isFilled(flights[i]) || c.getFromPrevious(flights[i])
			}
		})
	}
	wg.Wait()
	for i, f := range flights {
		if over[i] {
			c.Life.End()
		} else {
			kept = append(kept, f)
		}
	}
	return kept
}

func (g *group) tickets() []*governor.Ticket {
	out := make([]*governor.Ticket, len(g.all))
	for i, f := range g.all {
		out[i] = &f.ticket
	}
	return out
}

// reserveAll reserves a place among the loads of its key for each flight; busy are those that would have to wait for
// one.
func (c *Owner) reserveAll(flights []*Flight) (free, busy []*Flight) {
	for _, f := range flights {
		if c.Flights.reserve(c.Ctx, f, 0) != nil {
			busy = append(busy, f)
		} else {
			free = append(free, f)
		}
	}
	return free, busy
}

// admitAll waits for a permit for flights that have their places, and counts their loads as begun. Flights that were
// finished in the meantime are left out of flying; if no flight remains, the permit is given back.
func (c *Owner) admitAll(ctx context.Context, g *group, flights []*Flight) (flying []*Flight, err error) {
	if err := c.permit(ctx, &g.ticket); err != nil {
		for _, f := range flights {
			c.Flights.vacate(f)
		}
		return nil, err
	}
	for _, f := range flights {
		if !c.Flights.begin(f, c.Fences, c.Clock.Now) {
			c.Flights.vacate(f)
			continue
		}
		c.Stats.Fills[f.cause].Add(1)
		flying = append(flying, f)
	}
	if len(flying) == 0 {
		c.Governor.Release(&g.ticket, governor.Void, 0)
		return nil, nil
	}
	c.Stats.Batches.Add(1)
	c.Stats.Ledger.Running(+1, c.Clock.Now())
	return flying, nil
}

// loadGroup runs the batch loader for flights that have begun, with g's permit, and repeats the load while a retry is
// needed and allowed.
func (c *Owner) loadGroup(g *group, flying []*Flight) {
	chain := append(g.chain[:len(g.chain):len(g.chain)], g.id)
	load, stop := context.WithTimeout(c.Ctx, c.Config.Origin.Timeout)
	defer stop()
	all, expired := slices.Clone(flying), make(chan struct{})
	disarm := context.AfterFunc(load, func() {
		defer close(expired)
		for _, f := range all {
			c.overrun(f, load)
		}
	})
	defer func() {
		if !disarm() {
			<-expired
		}
	}()
	for try := 0; len(flying) > 0; try++ {
		fills := make([]Loading, len(flying))
		for i, f := range flying {
			fills[i] = c.Config.Values.NewFill(f)
		}
		began := c.Clock.Now()
		err := c.callBatch(c.Governor.AttemptContext(load, &g.ticket, chain), fills)
		flying = c.finishGroup(g, load, attempt{flying, fills, try, time.Duration(c.Clock.Now() - began)}, err)
	}
}

// callBatch runs the batch loader in a goroutine of its own, because the loader may end it.
func (c *Owner) callBatch(ctx context.Context, fills []Loading) (err error) {
	done := make(chan struct{})
	err = ErrGoexit // remains if the loader ends the goroutine
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = c.Config.Errors.Panicked(p, debug.Stack())
			}
		}()
		err = c.Config.Values.LoadBatch(ctx, fills)
	}()
	<-done
	return err
}

// attempt is one call of the batch loader: its flights, their fills, how many calls came before it, and how long it
// took.
type attempt struct {
	flying []*Flight
	fills  []Loading
	try    int
	cost   time.Duration
}

// finishGroup ends the flights of an attempt that has returned, except those that are to be tried again. It returns these,
// with their loads begun.
func (c *Owner) finishGroup(g *group, load context.Context, made attempt, err error) (again []*Flight) {
	flying, fills, try, cost := made.flying, made.fills, made.try, made.cost
	errs := make([]error, len(fills))
	failed := 0
	for i, fill := range fills {
		errs[i] = fill.State().Outcome(err)
		if IsContext(load, errs[i]) && c.Ctx.Err() == nil {
			errs[i] = fmt.Errorf("%w (%w)", ErrTimeout, errs[i])
		}
		if c.outcomeOf(errs[i]) == governor.Failed {
			failed++
		}
	}
	out := c.outcomeOf(err)
	switch {
	case c.Ctx.Err() != nil && errors.Is(err, c.Ctx.Err()):
		out = governor.Void
	case failed == len(fills):
		out = governor.Failed
	}
	retry := c.retryMany(load, flying, errs, try)
	c.Stats.Ledger.Running(-1, c.Clock.Now())
	c.Governor.Release(&g.ticket, out, cost)
	c.logBreaker()
	landing := make([]int, 0, len(flying))
	for i, f := range flying {
		c.Stats.Took(cost)
		c.drillEnded(f, c.outcomeOf(errs[i]))
		if retry[i] {
			c.Stats.Results[counters.ResultError].Add(1)
			again = append(again, f)
			continue
		}
		c.Flights.returned(f)
		landing = append(landing, i)
	}
	c.storeEach(len(landing), func(n int) {
		i := landing[n]
		c.finishLoad(flying[i], fills[i], errs[i], cost)
	})
	if len(again) == 0 {
		return nil
	}
	c.Stats.Retries.Add(int64(len(again)))
	last := make(map[*Flight]error, len(again))
	for i, f := range flying {
		last[f] = errs[i]
	}
	var begun []*Flight
	if Sleep(load, c.Config.Origin.Retry.backoff(try, c.Random.Float64())) == nil {
		free, _ := c.reserveAll(again)
		if begun, err = c.admitAll(load, g, free); err != nil {
			begun = nil
		}
	}
	for _, f := range again {
		if !slices.Contains(begun, f) {
			c.finishLoad(f, c.Config.Values.NewFill(f), last[f], cost)
		}
	}
	return begun
}

// storeEach calls land for each of n flights, in a separate goroutine. If a codec ends that goroutine, another one lands
// the rest.
func (c *Owner) storeEach(n int, land func(i int)) {
	for next := 0; next < n; {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for next < n {
				i := next
				next++
				land(i)
			}
		}()
		<-done
	}
}

// retryMany decides which flights are tried again, and prepares them for that.
func (c *Owner) retryMany(load context.Context, flying []*Flight, errs []error, try int) []bool {
	retry := make([]bool, len(flying))
	p := c.Config.Origin.Retry
	deadline, _ := load.Deadline()
	asked, granted := false, false
	for i, f := range flying {
		if !hasMark(errs[i], markRetry) || try >= p.Most || load.Err() != nil || time.Until(deadline) <= p.backoff(try, 1) {
			continue
		}
		if !asked { // the batch is one load
			if asked, granted = true, c.Governor.TakeRetry(); !granted {
				c.Stats.NoRetry.Add(1)
			}
		}
		retry[i] = granted && c.Flights.pause(f)
	}
	return retry
}
