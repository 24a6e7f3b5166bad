package tier

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/store"
)

// runFlight runs a flight: it checks the owned tier again, waits for a permit, loads, and commits. It ends when the loader
// has really returned.
func (c *core) runFlight(f *flight) {
	defer c.life.end()

	if c.isFilled(f) {
		return
	}
	if c.getFromPrevious(f) {
		return
	}
	if err := c.admit(c.ctx, f); err != nil {
		c.finish(f, c.refused(f, err))
		return
	}
	c.gov.EarnRetry()

	base := c.ctx
	if f.from != (Trace{}) {
		base = context.WithValue(base, causeKey{}, f.from)
	}
	load, stop := context.WithTimeout(base, c.cfg.Origin.Timeout)
	defer stop()
	expired := make(chan struct{})
	disarm := context.AfterFunc(load, func() {
		defer close(expired)
		c.overrun(f, load)
	})
	fill := c.front.newFill(f)
	err := ErrGoexit // remains if the loader ends the goroutine
	holds := true    // a permit, and a place among the key's loads
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
		if isContext(load, err) && c.ctx.Err() == nil { // whether or not overrun came first
			err = fmt.Errorf("%w (%w)", ErrTimeout, err)
		}
		cost := time.Duration(c.clock.Now() - f.began)
		if holds {
			c.ended(f, err, cost)
			c.flights.returned(f)
		}
		c.finishLoad(f, fill, err, cost)
		if !disarm() {
			<-expired
		}
	}()
	for try := 0; ; try++ {
		if err = fill.load(c.gov.AttemptContext(load, &f.ticket, f.chain)); err == nil || !hasMark(err, markRetry) {
			return
		}
		again := false
		if again, holds = c.retry(load, f, try, err); !again {
			return
		}
		err, fill = ErrGoexit, c.front.newFill(f)
	}
}

// isFilled ends a flight that has nothing to load: what its starter missed may have been filled, or have
// failed, before it became the live one.
func (c *core) isFilled(f *flight) bool {
	e := c.valid(f.key, f.hash, c.clock.Now())
	return e != nil && e != f.prev && c.clock.Now() < e.Soft && c.flights.skip(f, e, c.stillValid(f))
}

// permit waits for a permit. The error is an *OverloadedError, or the cause of ctx's end.
func permit(ctx context.Context, g *governor.Governor, t *governor.Ticket) error {
	err := g.Acquire(ctx, t)
	if r, ok := err.(*governor.Refusal); ok {
		return overloaded(r)
	}
	return err
}

// admit waits for a place among the key's loads, then for a permit, and counts the load as begun.
func (c *core) admit(ctx context.Context, f *flight) error {
	if err := c.flights.reserve(ctx, f, c.cfg.Origin.Timeout); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = overloaded(&governor.Refusal{Why: governor.KeyBusy, After: c.cfg.Origin.Timeout})
		}
		return err
	}
	if err := permit(ctx, c.gov, &f.ticket); err != nil {
		c.flights.vacate(f)
		return err
	}
	if !c.flights.begin(f, c.fences, c.clock.Now) {
		c.flights.vacate(f)
		c.gov.Release(&f.ticket, governor.Void, 0)
		return context.DeadlineExceeded
	}
	c.stats.Begun(f.cause, c.clock.Now())
	return nil
}

// ended counts a load that has returned, and gives back its permit.
func (c *core) ended(f *flight, err error, cost time.Duration) {
	out := outcomeOf(err)
	if c.ctx.Err() != nil && errors.Is(err, c.ctx.Err()) {
		out = governor.Void
	}
	c.stats.Observe(cost, c.clock.Now())
	c.gov.Release(&f.ticket, out, cost)
	c.logBreaker()
	c.drillEnded(f, out)
}

// retry prepares the next attempt of a load that failed with a retryable err: it waits for the attempt's time and
// permit. holds: the flight holds a permit, either that of the failed attempt or that of the next one.
func (c *core) retry(load context.Context, f *flight, try int, err error) (again, holds bool) {
	p := c.cfg.Origin.Retry
	delay := p.backoff(try, c.rng.float64())
	if deadline, _ := load.Deadline(); try >= p.Most || load.Err() != nil || time.Until(deadline) <= delay {
		return false, true
	}
	if !c.gov.TakeRetry() {
		c.stats.NoRetry.Add(1)
		return false, true
	}
	cost := time.Duration(c.clock.Now() - f.began)
	if !c.flights.pause(f) {
		return false, true
	}
	c.ended(f, err, cost)
	c.stats.Results[counters.ResultError].Add(1)
	c.stats.Retries.Add(1)
	if sleep(load, delay) != nil || c.admit(load, f) != nil {
		return false, false
	}
	return true, true
}

// finish ends a flight and counts the callers that it served.
func (c *core) finish(f *flight, res result) {
	c.flights.settle(f)
	callers, doomed := c.flights.finish(f, res, c.stillValid(f))
	c.stats.Served.Add(callers)
	if doomed {
		c.stats.Doomed.Add(1)
	}
}

// stillValid returns the check that a flight makes before it hands out a copy from before the load. A fence that came
// after the copy was found may be forgotten already; then the copy has left the owned tier as well.
func (c *core) stillValid(f *flight) func(e *store.Entry) bool {
	return func(e *store.Entry) bool {
		if !c.fences.OwnedValid(f.key, f.hash, e.Stamp, e.Handed) || c.fences.Tagged(e.Tags) {
			return false
		}
		now, ok := c.owned.Get(f.key)
		return ok && now == e || !c.fences.Covers(f.key, f.hash, e.Stamp)
	}
}

// overrun finishes a flight whose load has exceeded its time, or whose cache is closing. The load itself continues
// until it returns.
func (c *core) overrun(f *flight, load context.Context) {
	if !c.flights.settle(f) {
		return
	}
	if c.ctx.Err() != nil {
		c.finish(f, result{err: ErrClosed})
		return
	}
	c.stats.Results[counters.ResultTimeout].Add(1)
	c.gov.Overran(&f.ticket)
	c.logBreaker()
	c.finish(f, c.failed(f, ErrTimeout))
}

// finishLoad finishes a flight whose load has returned, unless it was finished before.
func (c *core) finishLoad(f *flight, fill loading, err error, cost time.Duration) {
	if !c.flights.settle(f) {
		c.stats.Results[counters.ResultOverran].Add(1)
		return
	}
	finished := false
	defer func() { // a codec may end the goroutine; nobody else would finish the flight
		if !finished {
			c.finish(f, c.failed(f, ErrGoexit))
		}
	}()
	c.storeLoad(f, fill, err, cost)
	finished = true
}

// storeLoad is finishLoad for the caller that has to finish the flight.
func (c *core) storeLoad(f *flight, fill loading, err error, cost time.Duration) {
	e := &store.Entry{Stamp: f.stamp, Loaded: f.began, Cost: cost}
	res, r := result{e: e, fill: fill}, fill.state()
	switch {
	case err == nil && r.keep:
		e.Value = f.prev.Value
		err = fill.unpack(e.Value) // the loader has had access to the other copy
	case err == nil:
		e.Value, err = fill.pack()
	case errors.Is(err, ErrNotFound):
		e.Flags |= store.NotFound
		res.fill, err = nil, nil
	}
	if err == nil {
		e.Tags, err = r.tagged(f.wide)
	}
	if err == nil && e.Flags&store.NotFound == 0 {
		err = c.cfg.Freshness.allows(r.ttl)
	}
	if err != nil {
		if c.ctx.Err() != nil {
			c.finish(f, result{err: ErrClosed})
			return
		}
		if errors.Is(err, ErrTimeout) {
			c.stats.Results[counters.ResultTimeout].Add(1)
		} else {
			c.stats.Results[counters.ResultError].Add(1)
		}
		if errors.Is(err, ErrOverloaded) { // a fill that the loader waited for got no permit: that may change in a moment
			c.finish(f, c.refused(f, &FillError{Namespace: c.cfg.Namespace, Key: f.key, Owner: c.self, Err: err}))
			return
		}
		c.finish(f, c.failed(f, err))
		return
	}
	now := c.clock.Now()
	c.loads.Add(f.hash, e.Loaded)
	c.setExpiry(e, lifespan{r.ttl, r.stale}, f.short && !c.owns(f.hash), now)
	if r.drop || now >= e.Hard {
		e.Flags |= store.Passing
	}
	if e.Flags&store.NotFound != 0 {
		c.stats.Results[counters.ResultNotFound].Add(1)
	} else {
		c.stats.Results[counters.ResultOK].Add(1)
	}
	if r.ttl > 0 && e.Flags&store.Passing == 0 {
		c.journal.StoredLife(e.Hard - e.Loaded)
	}
	if e.Version = r.versionOf(); e.Version != 0 && c.fences.Behind(f.key, f.hash, e.Version) {
		e.Flags |= store.Passing
		c.stats.Results[counters.ResultBehind].Add(1)
		c.finish(f, res)
		return
	}
	e.Etag = c.etag(e)
	stored := !c.fences.Tagged(e.Tags) && c.fences.Commit(f.key, f.hash, fence.Claim{Stamp: e.Stamp, Began: e.Loaded}, func() {
		if e.Flags&store.Passing == 0 {
			c.owned.Set(f.key, e)
		} else {
			c.owned.Delete(f.key)
		}
	})
	if !stored {
		c.stats.Results[counters.ResultFenced].Add(1)
	}
	c.finish(f, res)
}

// failed returns the result of a flight whose load failed. A copy within StaleIfError is served and waits before it is
// tried again. Without a copy the error is remembered.
func (c *core) failed(f *flight, err error) result {
	now := c.clock.Now()
	errorTTL := int64(c.cfg.Freshness.ErrorTTL)
	wrapped := &FillError{Namespace: c.cfg.Namespace, Key: f.key, Owner: c.self, Err: err}
	res := result{err: wrapped}
	if e := c.valid(f.key, f.hash, now); e != nil && e.Flags&store.Failed == 0 {
		if late := c.postpone(f, e, now, errorTTL, store.StaleError); e.Flags&store.NotFound == 0 {
			res.e = late
		}
		return res
	}
	if errorTTL > 0 {
		e := &store.Entry{Stamp: f.stamp, Loaded: f.began, Flags: store.Failed, Rare: &store.Rare{Err: wrapped}}
		e.Soft = now + errorTTL
		e.SWR, e.Hard = e.Soft, e.Soft
		c.fences.Commit(f.key, f.hash, fence.Claim{Stamp: e.Stamp, Began: e.Loaded}, func() { c.owned.Set(f.key, e) })
	}
	return res
}

// postpone delays the next attempt to refresh e, by half of d to one and a half of d.
func (c *core) postpone(f *flight, e *store.Entry, now, d int64, why store.StaleReason) *store.Entry {
	late := *e
	again := now + d/2 + int64(c.rng.float64()*float64(d))
	late.Change(func(r *store.Rare) { r.Retry, r.Why = again, why })
	c.replace(f.key, f.hash, e, &late)
	return &late
}

// replace puts next into the owned tier instead of old, unless old has left it. An entry that is derived from another
// one must be stored this way, because a fill, a fence or a Put may have come since the other was read.
func (c *core) replace(key string, hash uint64, old, next *store.Entry) (replaced bool) {
	c.fences.Update(hash, func() {
		if now, ok := c.owned.Get(key); ok && now == old {
			c.owned.Set(key, next)
			replaced = true
		}
	})
	return replaced
}

// refused returns the result of a flight that got no permit. If there is a copy to serve, reads make no other attempt
// for as long as the governor says, at most for ErrorTTL.
func (c *core) refused(f *flight, err error) result {
	if c.ctx.Err() != nil {
		return result{err: ErrClosed}
	}
	res := result{err: err}
	var over *OverloadedError
	if errors.As(err, &over) && err == error(over) { // a nested fill's has been counted already
		c.stats.Shed[over.why].Add(1)
	}
	now := c.clock.Now()
	if e := c.valid(f.key, f.hash, now); e != nil && e.Flags&(store.Failed|store.NotFound) == 0 {
		res.e = e
		if over != nil {
			res.e = c.postpone(f, e, now, min(int64(over.RetryAfter), int64(c.cfg.Freshness.ErrorTTL)), store.StaleShed)
		}
	}
	return res
}
