package tier

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// found is what the owner found for a read.
type found struct {
	e      *store.Entry
	fill   loading // has e's value; nil: it is to be decoded
	filled bool    // the read waited for a fill
	late   bool    // served although a refill failed or got no permit
	// private: only for the caller that asked.
	private bool
	why     store.StaleReason
	flight  *flight // the flight that brought it, nil: none
}

// lookup is what a read asks of the member that owns the key.
type lookup struct {
	key    string
	hash   uint64 // ring.Hash of key
	maxAge time.Duration
	chain  []uint64
	flags  uint8 // of the request: codec.FlagSuccessor, FlagNoFill and FlagDrill
}

// standsIn reports whether the member is asked as a stand-in for the key's owner.
func (l *lookup) standsIn() bool { return l.flags&codec.FlagSuccessor != 0 }

// valid returns the owned tier's entry for key, if there is one that is valid and not past hard expiry.
func (c *core) valid(key string, hash uint64, now int64) *store.Entry {
	e, ok := c.owned.Get(key)
	if !ok || now >= e.Hard || !c.fences.OwnedValid(key, hash, e.Stamp, e.Handed) || c.fences.Tagged(e.Tags) {
		return nil
	}
	return e
}

// peek answers from the owned tier without waiting, and starts the refresh that is due. A nil hit means that a fill is
// needed; e is then the present copy, if there is one.
func (c *core) peek(now int64, l *lookup) (hit, e *store.Entry, late bool) {
	if e = c.valid(l.key, l.hash, now); e == nil {
		return nil, nil, false
	}
	if e.Replica && l.standsIn() && l.maxAge == 0 { // the read wants the owner's answer, not a replica
		return nil, e, false
	}
	switch e.Judge(now, l.maxAge) {
	case store.Serve:
		if !(e.Replica && l.standsIn()) && c.isRefreshDue(e, now) {
			_, _ = c.join(&joining{lookup: *l, class: governor.Refresh, cause: placement.RefreshAhead, prev: e, until: noWait})
		}
	case store.ServeStale:
		// after ErrClosed nothing is refreshed
		_, _ = c.join(&joining{lookup: *l, class: governor.Stale, cause: placement.Expired, prev: e, until: noWait})
	case store.ServeLate:
		late = true
	default:
		return nil, e, false
	}
	return e, e, late
}

// isRefreshDue decides by XFetch whether a fresh entry is refreshed before its soft expiry. The more the fill costs and the
// nearer the expiry is, the likelier it is.
func (c *core) isRefreshDue(e *store.Entry, now int64) bool {
	beta := c.cfg.Freshness.RefreshAhead
	if beta <= 0 || e.Flags != 0 {
		return false
	}
	gap, scale := float64(e.Soft-now), float64(e.Cost)*beta
	const least = 37 // -ln of the smallest number above 0 that the rng gives
	if gap > scale*least {
		return false
	}
	return scale*-math.Log(1-c.rng.float64()) >= gap
}

// nearLimit returns when the near copies of a fresh entry end early. While XFetch may want to refresh the entry, reads
// must reach the owner, or a hot key would expire unseen.
func (c *core) nearLimit(e *store.Entry, now int64) int64 {
	beta := c.cfg.Freshness.RefreshAhead
	if beta <= 0 || e.Flags != 0 || now >= e.Soft {
		return math.MaxInt64
	}
	const early = 8 // one read in 3000 refreshes this many costs ahead
	return e.Soft - int64(min(early*beta*float64(e.Cost), float64(e.Soft-e.Loaded)/8))
}

// getOwned answers a read on the member that owns the key, or stands in for its owner.
func (c *core) getOwned(ctx context.Context, l *lookup) (f found, err error) {
	if len(l.chain) >= codec.MaxChain || slices.Contains(l.chain, c.chainID(l.hash)) {
		return f, ErrCycle
	}
	wide := c.fences.TagClock()
	hit, e, late := c.peek(c.clock.Now(), l)
	c.reuse.Read(l.key, l.hash, cmp.Or(hit, e))
	if hit != nil {
		if err := hit.Err(); err != nil {
			return f, err
		}
		return found{e: hit, late: late, why: hit.WhyStale(late)}, nil
	}
	cl, why := governor.Miss, placement.Expired
	switch {
	case e != nil:
		cl = governor.Stale
	default:
		why = c.whyMissing(l.key, l.hash, l.standsIn())
	}
	if c.isolation.Cut.Load() {
		why = placement.CutOff
	}
	w := joining{lookup: *l, class: cl, cause: why, prev: e, wide: wide, began: c.clock.Now()}
	return c.awaitFlight(ctx, &w, nil, false)
}

// awaitFlight waits for the key's flight. fl is a flight that the caller has joined or started; if it is nil, awaitFlight
// joins one. It changes w.
func (c *core) awaitFlight(ctx context.Context, w *joining, fl *flight, started bool) (f found, err error) {
	if len(w.chain) > 0 {
		n := governor.NestingOf(ctx)
		n.Wait()
		defer func() {
			if over := n.Resume(); over != nil {
				f, err = found{}, over
			}
		}()
	}
	var r *result
	for ; ; fl = nil {
		if fl == nil {
			w.until, w.from = c.patience(ctx), c.traceOf(ctx)
			if fl, started, err = c.joinOrStart(w); err != nil {
				return f, err
			}
		}
		if s, ok := c.awaitSoftTimeout(ctx, fl, w.prev, w.maxAge, w.began); ok {
			return s, nil
		}
		select {
		case <-fl.done:
		case <-c.flights.passed(fl, w.wide):
			c.flights.leave(fl)
			w.class, w.cause, w.prev, w.before = governor.Miss, placement.Fenced, nil, nil
			continue
		case <-ctx.Done():
			select {
			case <-fl.done: // it ended while the caller waited for other keys
			default:
				c.stats.Left.Add(1)
				c.flights.leave(fl)
				return f, ctx.Err()
			}
		}
		r = &fl.res
		if r.err == nil && c.retagged(r.e, w.wide) {
			w.class, w.cause, w.prev, w.before = governor.Miss, placement.Fenced, nil, nil
			continue
		}
		if r.private && !started && w.before == nil { // the key's next flight begins after this read began
			w.before = fl
			continue
		}
		w.before = nil
		if r.err == nil && r.e.Handed && r.e.Judge(c.clock.Now(), w.maxAge) == store.MustFill {
			w.class, w.cause, w.prev = governor.Stale, placement.Expired, r.e
			continue
		}
		if r.err != nil || w.maxAge <= 0 || r.e.Loaded >= w.began || c.clock.Now()-r.e.Loaded <= int64(w.maxAge) {
			break
		}
		// The flight that the caller joined began to load too long ago. The next one has not begun yet.
		w.class, w.cause, w.prev = governor.Stale, placement.Expired, r.e
	}
	f = found{e: r.e, fill: r.fill, filled: true, private: r.private, flight: fl}
	if r.err != nil {
		if r.e == nil || w.maxAge == 0 || w.maxAge > 0 && c.clock.Now()-r.e.Loaded > int64(w.maxAge) || c.clock.Now() >= r.e.Hard {
			return f, r.err
		}
		c.stats.Rescued.Add(1)
		f.late, f.why = true, whyOf(r.err)
	}
	return f, nil
}

// retagged reports whether a tag of a flight's result was, or may have been, invalidated after the flight's load began
// and before the read began that joined it. The tag clock showed wide when the read began.
func (c *core) retagged(e *store.Entry, wide uint64) bool {
	return e.Tags != nil && e.Tags.Since() < wide && c.fences.Tagged(e.Tags)
}

// getOwnedFor answers a read as getOwned does, or as the flags of its request demand.
func (c *core) getOwnedFor(ctx context.Context, l *lookup) (found, error) {
	if c.isolation.Cut.Load() { // other members may not know yet that this node is isolated
		switch {
		case c.cfg.WhenIsolated == Fail:
			return found{}, ErrIsolated
		case l.flags&codec.FlagNoFill != 0:
			return found{}, ErrNotCached
		}
		fresh := *l
		fresh.maxAge = store.RefreshAge
		return c.getOwned(ctx, &fresh)
	}
	if l.flags&codec.FlagNoFill != 0 {
		return c.getCached(l)
	}
	if l.flags&codec.FlagDrill != 0 && l.maxAge < 0 {
		return c.refill(ctx, l)
	}
	return c.getOwned(ctx, l)
}

// getCached answers a read that wants no fill.
func (c *core) getCached(l *lookup) (f found, err error) {
	now := c.clock.Now()
	e := c.valid(l.key, l.hash, now)
	if e == nil || e.Flags&store.Failed != 0 || e.Replica && l.standsIn() && l.maxAge == 0 {
		return f, ErrNotCached
	}
	v := e.Judge(now, l.maxAge)
	if v == store.MustFill {
		return f, ErrNotCached
	}
	c.reuse.Read(l.key, l.hash, e)
	return found{e: e, late: v == store.ServeLate, why: e.WhyStale(v == store.ServeLate)}, nil
}

// answerOwned answers a request on this node, as its flags demand.
func (c *Cache[V]) answerOwned(ctx context.Context, q *request[V], a *answer[V]) error {
	from := c.clock.Now()
	f, err := c.getOwnedFor(ctx, &q.lookup)
	if *a = (answer[V]{}); err != nil {
		return err
	}
	if err = c.answerTo(c.clock.Now(), q.key, &f, from, a); isUndecodable(err) { // that entry has been dropped: a second attempt finds another
		if f, err = c.getOwnedFor(ctx, &q.lookup); err != nil {
			return err
		}
		err = c.answerTo(c.clock.Now(), q.key, &f, from, a)
	}
	if f.e.Replica && q.standsIn() {
		c.stats.ReplicasServed.Add(1)
		a.until = min(a.until, c.clock.Now()+int64(successorTTL))
	}
	return err
}

// answerTo turns what was found, for a read that began at from, into an answer to a caller on this node.
func (c *Cache[V]) answerTo(now int64, key string, f *found, from int64, a *answer[V]) (err error) {
	if f.filled { // the lease starts at the end of the load at the earliest
		from = max(from, f.e.Loaded+int64(f.e.Cost))
	}
	*a = answer[V]{
		finding: finding[V]{loaded: f.e.Loaded, end: f.end(), source: SourceOwned, stale: now >= f.e.Soft, notFound: f.e.Flags&store.NotFound != 0},
		soft:    f.e.Soft, stamp: math.MaxUint64, tags: f.e.Tags.List(), cost: f.e.Cost,
		etag: f.e.Etag, passing: f.e.Flags&store.Passing != 0, why: f.why, age: max(now-f.e.Loaded, 0),
	}
	if f.filled { // the flight may have begun before a fence that has not detached it yet
		a.stamp = f.e.Stamp
	}
	a.until = min(c.lease(from, f.e.SWR, f.e.Hard, f.late), c.nearLimit(f.e, now))
	a.private = f.private
	if f.flight != nil {
		a.kept = &f.flight.kept
	}
	if f.filled && !f.late && !f.e.Handed {
		a.source = SourceFill
	}
	if a.notFound {
		a.stale = false
		return nil
	}
	a.size = len(f.e.Value)
	if f.fill != nil {
		a.value = f.fill.(*Fill[V]).shared
		return nil
	}
	if a.value, err = c.decode(f.e.Value); err != nil {
		c.drop(key, ring.Hash(key), f.e)
		return &FillError{Namespace: c.cfg.Namespace, Key: key, Owner: c.self, Err: err}
	}
	return nil
}

// lease returns until when a copy that its owner gave out at from may be served from the near tier.
func (c *core) lease(from, swr, hard int64, late bool) int64 {
	until := min(from+int64(c.cfg.Freshness.NearTTL), hard)
	if !late {
		until = min(until, max(swr, from))
	}
	return until
}
