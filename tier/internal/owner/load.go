package owner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/store"
)

// runFlight runs a flight: it checks the owned tier again, waits for a permit, loads, and commits. It ends when the loader
// has really returned.
func (c *Owner) runFlight(f *Flight) {
	defer c.Life.End()

	if c.isFilled(f) {
		return
	}
	if c.getFromPrevious(f) {
		return
	}
	if err := c.admit(c.Ctx, f); err != nil {
		c.finish(f, c.refused(f, err))
		return
	}
	c.Governor.EarnRetry()

	base := c.Ctx
	if f.from != (codec.Trace{}) {
		base = c.Config.Tracing.Within(base, f.from)
	}
	load, stop := context.WithTimeout(base, c.Config.Origin.Timeout)
	defer stop()
	expired := make(chan struct{})
	disarm := context.AfterFunc(load, func() {
		defer close(expired)
		c.overrun(f, load)
	})
	fill := c.Config.Values.NewFill(f)
	err := ErrGoexit // remains if the loader ends the goroutine
	holds := true    // a permit, and a place among the key's loads
	defer func() {
		if p := recover(); p != nil {
			err = c.Config.Errors.Panicked(p, debug.Stack())
		}
		if IsContext(load, err) && c.Ctx.Err() == nil { // whether or not overrun came first
			err = fmt.Errorf("%w (%w)", ErrTimeout, err)
		}
		cost := time.Duration(c.Clock.Now() - f.began)
		if holds {
			c.ended(f, err, cost)
			c.Flights.returned(f)
		}
		c.finishLoad(f, fill, err, cost)
		if !disarm() {
			<-expired
		}
	}()
	for try := 0; ; try++ {
		if err = fill.Load(c.Governor.AttemptContext(load, &f.ticket, f.chain)); err == nil || !hasMark(err, markRetry) {
			return
		}
		again := false
		if again, holds = c.retry(load, f, try, err); !again {
			return
		}
		err, fill = ErrGoexit, c.Config.Values.NewFill(f)
	}
}

// isFilled ends a flight that has nothing to load: what its starter missed may have been filled, or have
// failed, before it became the live one.
func (c *Owner) isFilled(f *Flight) bool {
	e := c.Valid(f.Key, f.Hash, c.Clock.Now())
	return e != nil && e != f.prev && c.Clock.Now() < e.Soft && c.Flights.Skip(f, e, c.StillValid(f))
}

// permit waits for a permit. The error is a refusal, or the cause of ctx's end.
func (c *Owner) permit(ctx context.Context, t *governor.Ticket) error {
	err := c.Governor.Acquire(ctx, t)
	if r, ok := err.(*governor.Refusal); ok {
		return c.Config.Errors.Refused(r)
	}
	return err
}

// admit waits for a place among the key's loads, then for a permit, and counts the load as begun.
func (c *Owner) admit(ctx context.Context, f *Flight) error {
	if err := c.Flights.reserve(ctx, f, c.Config.Origin.Timeout); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = c.Config.Errors.Refused(&governor.Refusal{Why: governor.KeyBusy, After: c.Config.Origin.Timeout})
		}
		return err
	}
	if err := c.permit(ctx, &f.ticket); err != nil {
		c.Flights.vacate(f)
		return err
	}
	if !c.Flights.begin(f, c.Fences, c.Clock.Now) {
		c.Flights.vacate(f)
		c.Governor.Release(&f.ticket, governor.Void, 0)
		return context.DeadlineExceeded
	}
	c.Stats.Begun(f.cause, c.Clock.Now())
	return nil
}

// ended counts a load that has returned, and gives back its permit.
func (c *Owner) ended(f *Flight, err error, cost time.Duration) {
	out := c.outcomeOf(err)
	if c.Ctx.Err() != nil && errors.Is(err, c.Ctx.Err()) {
		out = governor.Void
	}
	c.Stats.Observe(cost, c.Clock.Now())
	c.Governor.Release(&f.ticket, out, cost)
	c.logBreaker()
	c.drillEnded(f, out)
}

// retry prepares the next attempt of a load that failed with a retryable err: it waits for the attempt's time and
// permit. holds: the flight holds a permit, either that of the failed attempt or that of the next one.
func (c *Owner) retry(load context.Context, f *Flight, try int, err error) (again, holds bool) {
	p := c.Config.Origin.Retry
	delay := p.backoff(try, c.Random.Float64())
	if deadline, _ := load.Deadline(); try >= p.Most || load.Err() != nil || time.Until(deadline) <= delay {
		return false, true
	}
	if !c.Governor.TakeRetry() {
		c.Stats.NoRetry.Add(1)
		return false, true
	}
	cost := time.Duration(c.Clock.Now() - f.began)
	if !c.Flights.pause(f) {
		return false, true
	}
	c.ended(f, err, cost)
	c.Stats.Results[counters.ResultError].Add(1)
	c.Stats.Retries.Add(1)
	if Sleep(load, delay) != nil || c.admit(load, f) != nil {
		return false, false
	}
	return true, true
}

// finish ends a flight and counts the callers that it served.
func (c *Owner) finish(f *Flight, res Result) {
	c.Flights.settle(f)
	callers, doomed := c.Flights.Finish(f, res, c.StillValid(f))
	c.Stats.Served.Add(callers)
	if doomed {
		c.Stats.Doomed.Add(1)
	}
}

// StillValid returns the check that a flight makes before it hands out a copy from before the load. A fence that came
// after the copy was found may be forgotten already; then the copy has left the owned tier as well.
func (c *Owner) StillValid(f *Flight) func(e *store.Entry) bool {
	return func(e *store.Entry) bool {
		if !c.Fences.OwnedValid(f.Key, f.Hash, e.Stamp, e.Handed) || c.Fences.Tagged(e.Tags) {
			return false
		}
		now, ok := c.Owned.Get(f.Key)
		return ok && now == e || !c.Fences.Covers(f.Key, f.Hash, e.Stamp)
	}
}

// overrun finishes a flight whose load has exceeded its time, or whose cache is closing. The load itself continues
// until it returns.
func (c *Owner) overrun(f *Flight, load context.Context) {
	if !c.Flights.settle(f) {
		return
	}
	if c.Ctx.Err() != nil {
		c.finish(f, Result{Err: ErrClosed})
		return
	}
	c.Stats.Results[counters.ResultTimeout].Add(1)
	c.Governor.Overran(&f.ticket)
	c.logBreaker()
	c.finish(f, c.failed(f, ErrTimeout))
}

// finishLoad finishes a flight whose load has returned, unless it was finished before.
func (c *Owner) finishLoad(f *Flight, fill Loading, err error, cost time.Duration) {
	if !c.Flights.settle(f) {
		c.Stats.Results[counters.ResultOverran].Add(1)
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
func (c *Owner) storeLoad(f *Flight, fill Loading, err error, cost time.Duration) {
	e := &store.Entry{Stamp: f.stamp, Loaded: f.began, Cost: cost}
	res, r := Result{E: e, fill: fill}, fill.State()
	switch {
	case err == nil && r.Keep:
		e.Value = f.prev.Value
		err = fill.Unpack(e.Value) // the loader has had access to the other copy
	case err == nil:
		e.Value, err = fill.Pack()
	case errors.Is(err, ErrNotFound):
		e.Flags |= store.NotFound
		res.fill, err = nil, nil
	}
	if err == nil {
		e.Tags, err = r.tagged(f.wide)
	}
	if err == nil && e.Flags&store.NotFound == 0 {
		err = c.Config.Freshness.Allows(r.TTL)
	}
	if err != nil {
		if c.Ctx.Err() != nil {
			c.finish(f, Result{Err: ErrClosed})
			return
		}
		if errors.Is(err, ErrTimeout) {
			c.Stats.Results[counters.ResultTimeout].Add(1)
		} else {
			c.Stats.Results[counters.ResultError].Add(1)
		}
		if errors.Is(err, ErrOverloaded) { // a fill that the loader waited for got no permit: that may change in a moment
			c.finish(f, c.refused(f, c.fillError(f.Key, err)))
			return
		}
		c.finish(f, c.failed(f, err))
		return
	}
	now := c.Clock.Now()
	c.Loads.Add(f.Hash, e.Loaded)
	c.setExpiry(e, lifespan{r.TTL, r.Stale}, f.short && !c.owns(f.Hash), now)
	if r.Drop || now >= e.Hard {
		e.Flags |= store.Passing
	}
	if e.Flags&store.NotFound != 0 {
		c.Stats.Results[counters.ResultNotFound].Add(1)
	} else {
		c.Stats.Results[counters.ResultOK].Add(1)
	}
	if r.TTL > 0 && e.Flags&store.Passing == 0 {
		c.Journal.StoredLife(e.Hard - e.Loaded)
	}
	if e.Version = r.versionOf(); e.Version != 0 && c.Fences.Behind(f.Key, f.Hash, e.Version) {
		e.Flags |= store.Passing
		c.Stats.Results[counters.ResultBehind].Add(1)
		c.finish(f, res)
		return
	}
	e.Etag = c.etag(e)
	stored := !c.Fences.Tagged(e.Tags) && c.Fences.Commit(f.Key, f.Hash, fence.Claim{Stamp: e.Stamp, Began: e.Loaded}, func() {
		if e.Flags&store.Passing == 0 {
			c.Owned.Set(f.Key, e)
		} else {
			c.Owned.Delete(f.Key)
		}
	})
	if !stored {
		c.Stats.Results[counters.ResultFenced].Add(1)
	}
	c.finish(f, res)
}

// failed returns the result of a flight whose load failed. A copy within StaleIfError is served and waits before it is
// tried again. Without a copy the error is remembered.
func (c *Owner) failed(f *Flight, err error) Result {
	now := c.Clock.Now()
	errorTTL := int64(c.Config.Freshness.ErrorTTL)
	wrapped := c.fillError(f.Key, err)
	res := Result{Err: wrapped}
	if e := c.Valid(f.Key, f.Hash, now); e != nil && e.Flags&store.Failed == 0 {
		if late := c.Postpone(f, e, now, errorTTL, store.StaleError); e.Flags&store.NotFound == 0 {
			res.E = late
		}
		return res
	}
	if errorTTL > 0 {
		e := &store.Entry{Stamp: f.stamp, Loaded: f.began, Flags: store.Failed, Rare: &store.Rare{Err: wrapped}}
		e.Soft = now + errorTTL
		e.SWR, e.Hard = e.Soft, e.Soft
		c.Fences.Commit(f.Key, f.Hash, fence.Claim{Stamp: e.Stamp, Began: e.Loaded}, func() { c.Owned.Set(f.Key, e) })
	}
	return res
}

// Postpone delays the next attempt to refresh e, by half of d to one and a half of d.
func (c *Owner) Postpone(f *Flight, e *store.Entry, now, d int64, why store.StaleReason) *store.Entry {
	late := *e
	again := now + d/2 + int64(c.Random.Float64()*float64(d))
	late.Change(func(r *store.Rare) { r.Retry, r.Why = again, why })
	c.Replace(f.Key, f.Hash, e, &late)
	return &late
}

// Replace puts next into the owned tier instead of old, unless old has left it. An entry that is derived from another
// one must be stored this way, because a fill, a fence or a Put may have come since the other was read.
func (c *Owner) Replace(key string, hash uint64, old, next *store.Entry) (replaced bool) {
	c.Fences.Update(hash, func() {
		if now, ok := c.Owned.Get(key); ok && now == old {
			c.Owned.Set(key, next)
			replaced = true
		}
	})
	return replaced
}

// refused returns the result of a flight that got no permit. If there is a copy to serve, reads make no other attempt
// for as long as the governor says, at most for ErrorTTL.
func (c *Owner) refused(f *Flight, err error) Result {
	if c.Ctx.Err() != nil {
		return Result{Err: ErrClosed}
	}
	res := Result{Err: err}
	over, refused := c.Config.Errors.AsRefused(err)
	if over.Bare { // a nested fill's has been counted already
		c.Stats.Shed[over.Why].Add(1)
	}
	now := c.Clock.Now()
	if e := c.Valid(f.Key, f.Hash, now); e != nil && e.Flags&(store.Failed|store.NotFound) == 0 {
		res.E = e
		if refused {
			res.E = c.Postpone(f, e, now, min(int64(over.RetryAfter), int64(c.Config.Freshness.ErrorTTL)), store.StaleShed)
		}
	}
	return res
}
