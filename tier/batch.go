package tier

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

const (
	// DefaultBatchSize is the default of Config.BatchSize.
	DefaultBatchSize = 128
	// MaxBatchSize is the largest Config.BatchSize.
	MaxBatchSize = 1 << 16
	// MaxBatchWindow is the longest Config.BatchWindow: every single miss waits for it.
	MaxBatchWindow = 100 * time.Millisecond
)

// ErrUnset says that a BatchLoader returned nil without having set or failed the fill.
var ErrUnset = errors.New("weir: the batch loader has neither set nor failed the fill")

// A BatchLoader reads the origin for many keys at once. It calls Set, Fail or KeepPrevious on each fill. The fills have
// different keys, at least one and at most Config.BatchSize, in no order. A BatchLoader may work on different fills in
// different goroutines, but it must have joined them when it returns, because the values are used then.
//
// The error that it returns applies to all fills that it has neither set nor failed; if the error is nil they fail with
// ErrUnset. So it may return ErrNotFound after it has set what the origin has, or the error of its one query. The rules
// for a Loader apply: its time, panics, and Retryable, which repeats the fills that failed with it.
//
// The fills of a batch end together. So keys that are made of other keys should be in another cache than those keys.
// Otherwise two batches may wait for each other.
type BatchLoader[V any] func(ctx context.Context, fills []*Fill[V]) error

// ByKeys adapts a plain function to a BatchLoader. A key that is not in the map it returns is not found.
func ByKeys[V any](load func(ctx context.Context, keys []string) (map[string]V, error)) BatchLoader[V] {
	if load == nil {
		return nil
	}
	return func(ctx context.Context, fills []*Fill[V]) error {
		keys := make([]string, len(fills))
		for i, f := range fills {
			keys[i] = f.Key
		}
		values, err := load(ctx, keys)
		if err != nil {
			return err
		}
		for _, f := range fills {
			if v, ok := values[f.Key]; ok {
				f.Set(v)
			}
		}
		return ErrNotFound
	}
}

// Set gives the fill its value, in a BatchLoader. The last of several calls counts.
func (f *Fill[V]) Set(value V) { f.value, f.err, f.done, f.keep = value, nil, true, false }

// Fail gives the fill its error, in a BatchLoader. ErrNotFound means that the origin has no value for the key. err must
// not be nil.
func (f *Fill[V]) Fail(err error) {
	var zero V
	if err == nil {
		err = ErrUnset
	}
	f.value, f.err, f.done, f.keep = zero, err, true, false
}

// outcome returns the error of the fill, given the error that the batch loader returned.
func (f *run) outcome(err error) error {
	if f.done {
		return f.err
	}
	if err == nil {
		err = ErrUnset
	}
	return err
}

// batches fills in the defaults for batches.
func (cfg Config[V]) batches() Config[V] {
	if cfg.BatchSize == 0 {
		cfg.BatchSize = DefaultBatchSize
	}
	if batch := cfg.BatchLoader; batch != nil && cfg.Loader == nil {
		cfg.Loader = func(ctx context.Context, fill *Fill[V]) (V, error) {
			err := fill.outcome(batch(ctx, []*Fill[V]{fill}))
			return fill.value, err
		}
	}
	return cfg
}

func (cfg *Config[V]) checkBatch(bad func(format string, args ...any)) {
	if cfg.Loader == nil && cfg.BatchLoader == nil {
		bad("Loader is nil: give the function that reads the origin, tier.ByKey adapts a plain one; or a BatchLoader")
	}
	if cfg.BatchSize < 0 || cfg.BatchSize > MaxBatchSize {
		bad("BatchSize is %d: it must be from 1 to %d; 0 means %d", cfg.BatchSize, MaxBatchSize, DefaultBatchSize)
	}
	if cfg.BatchWindow < 0 || cfg.BatchWindow > MaxBatchWindow {
		bad("BatchWindow is %v: it must be from 0, which is off, to %v", cfg.BatchWindow, MaxBatchWindow)
	}
	if cfg.BatchLoader == nil && (cfg.BatchSize != 0 || cfg.BatchWindow != 0) {
		bad("BatchSize or BatchWindow is set without a BatchLoader: there are no batches")
	}
}

// A group is a set of flights that are loaded together, as one load of the origin. From the moment that they join it, the
// group's ticket stands for theirs: a class, depth or deadline promised to a caller of one flight goes to both tickets,
// see Governor.Promote.
type group struct {
	id     uint64 // stands for its keys in the chains of the reads of its load; random, so that it differs from those of keys
	ticket governor.Ticket
	chain  []uint64
	all    []*flight   // guarded by gatherer.mu while it is open
	timer  *time.Timer // closes the group; nil: it was never open
}

// gatherer collects single misses into groups.
type gatherer struct {
	mu   sync.Mutex // guards the rest
	open [governor.Classes]*group
}

func (c *core) newGroup(cl governor.Class, chain []uint64, all []*flight) *group {
	g := &group{id: c.rng.uint64(), ticket: governor.Ticket{Class: cl}, chain: chain}
	g.add(c.gov, all...)
	return g
}

// add adds flights to a group that has not started.
func (g *group) add(gov *governor.Governor, flights ...*flight) {
	g.all = append(g.all, flights...)
	gov.Gather(g.tickets(), &g.ticket)
	for _, f := range flights {
		f.group.Store(g)
	}
}

// ungroup makes a flight of a group run by itself.
func (c *core) ungroup(f *flight) {
	c.gov.Split(&f.ticket)
	f.group.Store(nil)
}

// countJoined counts a caller that has joined a flight. ErrCycle: the caller belongs to the load that the flight waits for.
func (c *core) countJoined(f *flight, cl governor.Class, chain []uint64, until int64) error {
	if until == noWait {
		return nil
	}
	if g := f.group.Load(); g != nil && slices.Contains(chain, g.id) {
		c.flights.leave(f)
		return ErrCycle
	}
	c.gov.Promote(&f.ticket, cl, depthOf(chain, until), c.govTime(until))
	return nil
}

// gather puts a flight that has just been started into the open group. It returns false if the flight must run by
// itself.
func (c *core) gather(f *flight, cl governor.Class, chain []uint64) bool {
	if !c.cfg.batches || c.cfg.BatchWindow <= 0 || len(chain) > 0 {
		return false
	}
	s := &c.gathered
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.open[cl]
	if g == nil {
		g = c.newGroup(cl, nil, nil)
		s.open[cl] = g
		g.timer = time.AfterFunc(c.cfg.BatchWindow, func() { // ends with the flights, and Close waits for each of them
			if c.closeGroup(g, cl) {
				c.runGroup(g)
			}
		})
	}
	g.add(c.gov, f)
	if len(g.all) >= c.cfg.BatchSize {
		s.open[cl] = nil
		g.timer.Stop()
		go c.runGroup(g)
	}
	return true
}

// closeGroup takes a group out of the gatherer. It returns true once.
func (c *core) closeGroup(g *group, cl governor.Class) bool {
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
func (c *core) startFlights(started []*flight, cl governor.Class, chain []uint64) {
	if !c.cfg.batches || len(started) == 1 {
		for _, f := range started {
			go c.runFlight(f)
		}
		return
	}
	for some := range slices.Chunk(started, c.cfg.BatchSize) {
		go c.runGroup(c.newGroup(cl, chain, some))
	}
}

// runGroup is runFlight for a group that is closed: one permit, one call of the loader, and a commit for each key.
func (c *core) runGroup(g *group) {
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
			c.life.end()
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
	c.gov.Gather(g.tickets(), &g.ticket) // those that are left
	flying, err := c.admitAll(c.ctx, g, free)
	if err != nil {
		for _, f := range free {
			c.finish(f, c.refused(f, err))
		}
		return
	}
	if len(flying) > 0 {
		c.gov.EarnRetry()
		c.loadGroup(g, flying)
	}
}

// stillToLoad ends the flights that have nothing to load, and returns the others.
func (c *core) stillToLoad(flights []*flight) (kept []*flight) {
	over := make([]bool, len(flights))
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(len(flights), maxSingles) { // each asks its key's previous owner
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
			c.life.end()
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
func (c *core) reserveAll(flights []*flight) (free, busy []*flight) {
	for _, f := range flights {
		if c.flights.reserve(c.ctx, f, 0) != nil {
			busy = append(busy, f)
		} else {
			free = append(free, f)
		}
	}
	return free, busy
}

// admitAll waits for a permit for flights that have their places, and counts their loads as begun. Flights that were
// finished in the meantime are left out of flying; if no flight remains, the permit is given back.
func (c *core) admitAll(ctx context.Context, g *group, flights []*flight) (flying []*flight, err error) {
	if err := permit(ctx, c.gov, &g.ticket); err != nil {
		for _, f := range flights {
			c.flights.vacate(f)
		}
		return nil, err
	}
	for _, f := range flights {
		if !c.flights.begin(f, c.fences, c.clock.Now) {
			c.flights.vacate(f)
			continue
		}
		c.stats.Fills[f.cause].Add(1)
		flying = append(flying, f)
	}
	if len(flying) == 0 {
		c.gov.Release(&g.ticket, governor.Void, 0)
		return nil, nil
	}
	c.stats.Batches.Add(1)
	c.stats.Ledger.Running(+1, c.clock.Now())
	return flying, nil
}

// loadGroup runs the batch loader for flights that have begun, with g's permit, and repeats the load while a retry is
// needed and allowed.
func (c *core) loadGroup(g *group, flying []*flight) {
	chain := append(g.chain[:len(g.chain):len(g.chain)], g.id)
	load, stop := context.WithTimeout(c.ctx, c.cfg.Origin.Timeout)
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
		fills := make([]loading, len(flying))
		for i, f := range flying {
			fills[i] = c.front.newFill(f)
		}
		began := c.clock.Now()
		err := c.callBatch(c.gov.AttemptContext(load, &g.ticket, chain), fills)
		flying = c.finishGroup(g, load, attempt{flying, fills, try, time.Duration(c.clock.Now() - began)}, err)
	}
}

// callBatch runs the batch loader in a goroutine of its own, because the loader may end it.
func (c *core) callBatch(ctx context.Context, fills []loading) (err error) {
	done := make(chan struct{})
	err = ErrGoexit // remains if the loader ends the goroutine
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = &PanicError{Value: p, Stack: debug.Stack()}
			}
		}()
		err = c.front.loadBatch(ctx, fills)
	}()
	<-done
	return err
}

// attempt is one call of the batch loader: its flights, their fills, how many calls came before it, and how long it
// took.
type attempt struct {
	flying []*flight
	fills  []loading
	try    int
	cost   time.Duration
}

// finishGroup ends the flights of an attempt that has returned, except those that are to be tried again. It returns these,
// with their loads begun.
func (c *core) finishGroup(g *group, load context.Context, made attempt, err error) (again []*flight) {
	flying, fills, try, cost := made.flying, made.fills, made.try, made.cost
	errs := make([]error, len(fills))
	failed := 0
	for i, fill := range fills {
		errs[i] = fill.state().outcome(err)
		if isContext(load, errs[i]) && c.ctx.Err() == nil {
			errs[i] = fmt.Errorf("%w (%w)", ErrTimeout, errs[i])
		}
		if outcomeOf(errs[i]) == governor.Failed {
			failed++
		}
	}
	out := outcomeOf(err)
	switch {
	case c.ctx.Err() != nil && errors.Is(err, c.ctx.Err()):
		out = governor.Void
	case failed == len(fills):
		out = governor.Failed
	}
	retry := c.retryMany(load, flying, errs, try)
	c.stats.Ledger.Running(-1, c.clock.Now())
	c.gov.Release(&g.ticket, out, cost)
	c.logBreaker()
	landing := make([]int, 0, len(flying))
	for i, f := range flying {
		c.stats.Took(cost)
		c.drillEnded(f, outcomeOf(errs[i]))
		if retry[i] {
			c.stats.Results[counters.ResultError].Add(1)
			again = append(again, f)
			continue
		}
		c.flights.returned(f)
		landing = append(landing, i)
	}
	c.storeEach(len(landing), func(n int) {
		i := landing[n]
		c.finishLoad(flying[i], fills[i], errs[i], cost)
	})
	if len(again) == 0 {
		return nil
	}
	c.stats.Retries.Add(int64(len(again)))
	last := make(map[*flight]error, len(again))
	for i, f := range flying {
		last[f] = errs[i]
	}
	var begun []*flight
	if sleep(load, c.cfg.Origin.Retry.backoff(try, c.rng.float64())) == nil {
		free, _ := c.reserveAll(again)
		if begun, err = c.admitAll(load, g, free); err != nil {
			begun = nil
		}
	}
	for _, f := range again {
		if !slices.Contains(begun, f) {
			c.finishLoad(f, c.front.newFill(f), last[f], cost)
		}
	}
	return begun
}

// storeEach calls land for each of n flights, in a separate goroutine. If a codec ends that goroutine, another one lands
// the rest.
func (c *core) storeEach(n int, land func(i int)) {
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
func (c *core) retryMany(load context.Context, flying []*flight, errs []error, try int) []bool {
	retry := make([]bool, len(flying))
	p := c.cfg.Origin.Retry
	deadline, _ := load.Deadline()
	asked, granted := false, false
	for i, f := range flying {
		if !hasMark(errs[i], markRetry) || try >= p.Most || load.Err() != nil || time.Until(deadline) <= p.backoff(try, 1) {
			continue
		}
		if !asked { // the batch is one load
			if asked, granted = true, c.gov.TakeRetry(); !granted {
				c.stats.NoRetry.Add(1)
			}
		}
		retry[i] = granted && c.flights.pause(f)
	}
	return retry
}
