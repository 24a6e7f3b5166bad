package owner

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// Found is what the owner found for a read.
type Found struct {
	E      *store.Entry
	Fill   Loading // has e's value; nil: it is to be decoded
	Filled bool    // the read waited for a fill
	Late   bool    // served although a refill failed or got no permit
	// Private: only for the caller that asked.
	Private bool
	Why     store.StaleReason
	Flight  *Flight // the flight that brought it, nil: none
}

// Lookup is what a read asks of the member that owns the key.
type Lookup struct {
	Key    string
	Hash   uint64 // ring.Hash of key
	MaxAge time.Duration
	Chain  []uint64
	Flags  uint8 // of the request: codec.FlagSuccessor, FlagNoFill and FlagDrill
}

// StandsIn reports whether the member is asked as a stand-in for the key's owner.
func (l *Lookup) StandsIn() bool { return l.Flags&codec.FlagSuccessor != 0 }

// Valid returns the owned tier's entry for key, if there is one that is valid and not past hard expiry.
func (c *Owner) Valid(key string, hash uint64, now int64) *store.Entry {
	e, ok := c.Owned.Get(key)
	if !ok || now >= e.Hard || !c.Fences.OwnedValid(key, hash, e.Stamp, e.Handed) || c.Fences.Tagged(e.Tags) {
		return nil
	}
	return e
}

// peek answers from the owned tier without waiting, and starts the refresh that is due. A nil hit means that a fill is
// needed; e is then the present copy, if there is one.
func (c *Owner) peek(now int64, l *Lookup) (hit, e *store.Entry, late bool) {
	if e = c.Valid(l.Key, l.Hash, now); e == nil {
		return nil, nil, false
	}
	if e.Replica && l.StandsIn() && l.MaxAge == 0 { // the read wants the owner's answer, not a replica
		return nil, e, false
	}
	switch e.Judge(now, l.MaxAge) {
	case store.Serve:
		if !(e.Replica && l.StandsIn()) && c.isRefreshDue(e, now) {
			_, _ = c.Join(&Joining{Lookup: *l, Class: governor.Refresh, Cause: placement.RefreshAhead, prev: e, until: noWait})
		}
	case store.ServeStale:
		// after ErrClosed nothing is refreshed
		_, _ = c.Join(&Joining{Lookup: *l, Class: governor.Stale, Cause: placement.Expired, prev: e, until: noWait})
	case store.ServeLate:
		late = true
	default:
		return nil, e, false
	}
	return e, e, late
}

// isRefreshDue decides by XFetch whether a fresh entry is refreshed before its soft expiry. The more the fill costs and the
// nearer the expiry is, the likelier it is.
func (c *Owner) isRefreshDue(e *store.Entry, now int64) bool {
	if e.Flags != 0 {
		return false
	}
	gap, scale := float64(e.Soft-now), float64(e.Cost)*c.Config.Freshness.RefreshAhead
	const least = 37 // -ln of the smallest number above 0 that the rng gives
	if gap > scale*least {
		return false
	}
	return scale*-math.Log(1-c.Random.Float64()) >= gap
}

// NearLimit returns when the near copies of a fresh entry end early. While XFetch may want to refresh the entry, reads
// must reach the owner, or a hot key would expire unseen.
func (c *Owner) NearLimit(e *store.Entry, now int64) int64 {
	beta := c.Config.Freshness.RefreshAhead
	if beta <= 0 || e.Flags != 0 || now >= e.Soft {
		return math.MaxInt64
	}
	const early = 8 // one read in 3000 refreshes this many costs ahead
	return e.Soft - int64(min(early*beta*float64(e.Cost), float64(e.Soft-e.Loaded)/8))
}

// getOwned answers a read on the member that owns the key, or stands in for its owner.
func (c *Owner) getOwned(ctx context.Context, l *Lookup) (f Found, err error) {
	if len(l.Chain) >= codec.MaxChain || slices.Contains(l.Chain, c.chainID(l.Hash)) {
		return f, ErrCycle
	}
	wide := c.Fences.TagClock()
	hit, e, late := c.peek(c.Clock.Now(), l)
	c.Reuse.Read(l.Key, l.Hash, cmp.Or(hit, e))
	if hit != nil {
		if err := hit.Err(); err != nil {
			return f, err
		}
		return Found{E: hit, Late: late, Why: hit.WhyStale(late)}, nil
	}
	cl, why := governor.Miss, placement.Expired
	switch {
	case e != nil:
		cl = governor.Stale
	default:
		why = c.whyMissing(l.Key, l.Hash, l.StandsIn())
	}
	if c.Isolation.Cut.Load() {
		why = placement.CutOff
	}
	w := Joining{Lookup: *l, Class: cl, Cause: why, prev: e, wide: wide, began: c.Clock.Now()}
	return c.awaitFlight(ctx, &w, nil, false)
}

// awaitFlight waits for the key's flight. fl is a flight that the caller has joined or started; if it is nil, awaitFlight
// joins one. It changes w.
func (c *Owner) awaitFlight(ctx context.Context, w *Joining, fl *Flight, started bool) (f Found, err error) {
	if len(w.Chain) > 0 {
		n := governor.NestingOf(ctx)
		n.Wait()
		defer func() {
			if over := n.Resume(); over != nil {
				f, err = Found{}, over
			}
		}()
	}
	var r *Result
	for ; ; fl = nil {
		if fl == nil {
			w.until, w.from = c.patience(ctx), c.traceOf(ctx)
			if fl, started, err = c.joinOrStart(w); err != nil {
				return f, err
			}
		}
		if s, ok := c.awaitSoftTimeout(ctx, fl, w.prev, w.MaxAge, w.began); ok {
			return s, nil
		}
		select {
		case <-fl.Done:
		case <-c.Flights.passed(fl, w.wide):
			c.Flights.leave(fl)
			w.Class, w.Cause, w.prev, w.before = governor.Miss, placement.Fenced, nil, nil
			continue
		case <-ctx.Done():
			select {
			case <-fl.Done: // it ended while the caller waited for other keys
			default:
				c.Stats.Left.Add(1)
				c.Flights.leave(fl)
				return f, ctx.Err()
			}
		}
		r = &fl.Res
		if r.Err == nil && c.retagged(r.E, w.wide) {
			w.Class, w.Cause, w.prev, w.before = governor.Miss, placement.Fenced, nil, nil
			continue
		}
		if r.Private && !started && w.before == nil { // the key's next flight begins after this read began
			w.before = fl
			continue
		}
		w.before = nil
		if r.Err == nil && r.E.Handed && r.E.Judge(c.Clock.Now(), w.MaxAge) == store.MustFill {
			w.Class, w.Cause, w.prev = governor.Stale, placement.Expired, r.E
			continue
		}
		if r.Err != nil || w.MaxAge <= 0 || r.E.Loaded >= w.began || c.Clock.Now()-r.E.Loaded <= int64(w.MaxAge) {
			break
		}
		// The flight that the caller joined began to load too long ago. The next one has not begun yet.
		w.Class, w.Cause, w.prev = governor.Stale, placement.Expired, r.E
	}
	f = Found{E: r.E, Fill: r.fill, Filled: true, Private: r.Private, Flight: fl}
	if r.Err != nil {
		if r.E == nil || w.MaxAge == 0 || w.MaxAge > 0 && c.Clock.Now()-r.E.Loaded > int64(w.MaxAge) || c.Clock.Now() >= r.E.Hard {
			return f, r.Err
		}
		c.Stats.Rescued.Add(1)
		f.Late, f.Why = true, whyOf(r.Err)
	}
	return f, nil
}

// retagged reports whether a tag of a flight's result was, or may have been, invalidated after the flight's load began
// and before the read began that joined it. The tag clock showed wide when the read began.
func (c *Owner) retagged(e *store.Entry, wide uint64) bool {
	return e.Tags != nil && e.Tags.Since() < wide && c.Fences.Tagged(e.Tags)
}

// GetOwnedFor answers a read as getOwned does, or as the flags of its request demand.
func (c *Owner) GetOwnedFor(ctx context.Context, l *Lookup) (Found, error) {
	if c.Isolation.Cut.Load() { // other members may not know yet that this node is isolated
		switch {
		case c.Config.WhenIsolated == IsolatedFails:
			return Found{}, ErrIsolated
		case l.Flags&codec.FlagNoFill != 0:
			return Found{}, ErrNotCached
		}
		fresh := *l
		fresh.MaxAge = store.RefreshAge
		return c.getOwned(ctx, &fresh)
	}
	if l.Flags&codec.FlagNoFill != 0 {
		return c.getCached(l)
	}
	if l.Flags&codec.FlagDrill != 0 && l.MaxAge < 0 {
		return c.Refill(ctx, l)
	}
	return c.getOwned(ctx, l)
}

// getCached answers a read that wants no fill.
func (c *Owner) getCached(l *Lookup) (f Found, err error) {
	now := c.Clock.Now()
	e := c.Valid(l.Key, l.Hash, now)
	if e == nil || e.Flags&store.Failed != 0 || e.Replica && l.StandsIn() && l.MaxAge == 0 {
		return f, ErrNotCached
	}
	v := e.Judge(now, l.MaxAge)
	if v == store.MustFill {
		return f, ErrNotCached
	}
	c.Reuse.Read(l.Key, l.Hash, e)
	return Found{E: e, Late: v == store.ServeLate, Why: e.WhyStale(v == store.ServeLate)}, nil
}

// Lease returns until when a copy that its owner gave out at from may be served from the near tier.
func (c *Owner) Lease(from, swr, hard int64, late bool) int64 {
	until := min(from+int64(c.Config.Freshness.NearTTL), hard)
	if !late {
		until = min(until, max(swr, from))
	}
	return until
}
