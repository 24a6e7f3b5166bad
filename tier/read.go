package tier

import (
	"cmp"
	"context"
	"math"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// AnyAge as ReadOptions.MaxAge accepts whatever the contract allows, as Get does.
const AnyAge time.Duration = -1

// ReadOptions are one read's own demands on freshness. They only add to the contract. The zero ReadOptions are the
// strictest: who wants NoFill or After alone sets MaxAge to AnyAge beside it.
type ReadOptions struct {
	// MaxAge is the age of the oldest copy that this read accepts, counted from the start of its load; an older one
	// is refreshed first. 0 is the owner's word: no near copy, and no copy past its soft expiry. Below 0, as
	// AnyAge is: as Get.
	MaxAge time.Duration
	// NoFill answers from what is cached, here or at the owner: a key for which there is no copy
	// that the contract and MaxAge allow is ErrNotCached. The origin is not asked, nor is
	// a refresh begun.
	NoFill bool
	// After, if it is not zero, names invalidations that the answer must not be older than,
	// wherever they were started: see Token.
	After Token
}

// Source says where an answer came from.
type Source uint8

// The sources.
const (
	SourceNear  Source = 1 + iota // this node's near tier
	SourceOwned                   // the owner's copy
	SourceFill                    // a fill that the read waited for
)

// String returns "near", "owned" or "fill".
func (s Source) String() string {
	switch s {
	case SourceNear:
		return "near"
	case SourceOwned:
		return "owned"
	case SourceFill:
		return "fill"
	}
	return "none"
}

// Answer is a value and how it was come by.
type Answer[V any] struct {
	Value  V
	Age    time.Duration // since the start of the load, at the time of the answer; never too low
	Source Source
	Stale  bool // past soft expiry
}

// answer is what the tiers below the near one give: a near copy to be, with its times on
// this node's clock.
type answer[V any] struct {
	value    V
	notFound bool
	loaded   int64
	soft     int64
	until    int64 // end of a near copy's lease
	source   Source
	stale    bool
	size     int           // bytes of the value's encoding
	stamp    uint64        // a near copy's stamp is at most this
	wide     uint64        // and its tag clock at most this
	cost     time.Duration // of its load, 0: not known
	tags     []uint32
	private  bool // only for who asked: neither kept nor given to who comes later
	passing  bool // not to be kept
	why      staleReason
	age      int64 // when it was given
	etag     uint64
}

// Get returns the value of key: from the near tier, from the key's owner, or from a fill that
// all who want the key share. The value is shared too: do not change it, or set Config.Clone.
//
// Errors: ErrNotFound; a *FillError if the fill failed and no copy could be served; ErrOverloaded if the origin could
// not be asked; ErrIsolated with Config.WhenIsolated Fail; ErrClosed, ErrEmptyKey, ErrKeyTooLarge, ErrCycle; and
// ctx's error. Ending ctx ends this call and nobody else's.
func (c *Cache[V]) Get(ctx context.Context, key string) (V, error) {
	if c.near == nil {
		a, _, err := c.read(ctx, key, AnyAge, nil)
		return a.Value, err
	}
	now := c.clock.now()
	b := c.near.get(key)
	if b == nil {
		a, _, err := c.read(ctx, key, AnyAge, nil)
		return a.Value, err
	}
	if now < b.until && b.checked >= c.fences.slots[b.slot].Load() && (b.tags == nil || !c.fences.tagged(b.tags)) && ctx.Err() == nil {
		if x := mix(now, b.slot); x < c.watch.Load() {
			if c.isolation.cut.Load() {
				a, _, err := c.read(ctx, key, AnyAge, b)
				return a.Value, err
			}
			if d := c.noticed(key, b, now, x); d != nil {
				a, _, err := c.rehearse(ctx, d, key, b)
				return a.Value, err
			}
		}
		if b.notFound {
			return b.value, ErrNotFound
		}
		return c.clone(b.value), nil
	}
	a, _, err := c.read(ctx, key, AnyAge, b)
	return a.Value, err
}

// Read is Get with demands of its own, and says where the answer came from and how old it is. The errors are those of
// Get, and ErrNotCached with ReadOptions.NoFill.
func (c *Cache[V]) Read(ctx context.Context, key string, o ReadOptions) (Answer[V], error) {
	if !o.After.zero() {
		if err := c.after(key, o.After); err != nil {
			return Answer[V]{}, err
		}
	}
	flags := uint8(0)
	if o.NoFill {
		flags = codec.FlagNoFill
	}
	a, loaded, err := c.readAs(ctx, key, max(o.MaxAge, AnyAge), c.near.get(key), flags)
	if a.Source != 0 {
		a.Age = time.Duration(max(c.clock.now()-loaded, 0))
	}
	return a, err
}

func (c *Cache[V]) clone(v V) V {
	if c.cfg.Clone == nil {
		return v
	}
	return c.cfg.Clone(v)
}

// read answers a read for which the near tier has b, or nil. It leaves the answer's Age to
// the caller, who may not want it, and says when the load of the answer began.
func (c *Cache[V]) read(ctx context.Context, key string, maxAge time.Duration, b *box[V]) (out Answer[V], loaded int64, err error) {
	return c.readAs(ctx, key, maxAge, b, 0)
}

// readAs is read with flags for the owner.
func (c *Cache[V]) readAs(ctx context.Context, key string, maxAge time.Duration, b *box[V], flags uint8) (out Answer[V], loaded int64, err error) {
	if err := checkKey(key); err != nil {
		return out, 0, err
	}
	if err := ctx.Err(); err != nil {
		return out, 0, err
	}
	if c.life.isClosed() {
		return out, 0, ErrClosed
	}
	if c.isolation.cut.Load() {
		return c.readIsolated(ctx, key, maxAge, b, flags)
	}
	return c.readHere(ctx, key, maxAge, b, flags)
}

// readHere is readAs once it is known that there is nothing against it.
func (c *Cache[V]) readHere(ctx context.Context, key string, maxAge time.Duration, b *box[V], flags uint8) (out Answer[V], loaded int64, err error) {
	if b != nil {
		if now := c.clock.now(); maxAge != 0 && maxAge != refreshAge && now < b.until && (maxAge < 0 || now-b.loaded <= int64(maxAge)) && c.unfenced(key, b) {
			if x := mix(now, b.slot); x < c.watch.Load() {
				if d := c.noticed(key, b, now, x); d != nil && maxAge < 0 && flags == 0 {
					return c.rehearse(ctx, d, key, b)
				}
			}
			if b.notFound {
				return Answer[V]{Source: SourceNear}, b.loaded, ErrNotFound
			}
			return Answer[V]{Value: c.clone(b.value), Source: SourceNear, Stale: now >= b.soft}, b.loaded, nil
		}
		c.stats.nearUnused.Add(1)
	}
	var d *drill
	if maxAge < 0 && flags == 0 {
		d = c.picks()
	}
	return c.readOwner(ctx, key, maxAge, d, nil, b, flags)
}

// readOwner answers a read that the near tier does not; d, if not nil, makes it behave as a miss
// for the owner too. b, if not nil, is a near copy for want of any other answer; have one that may
// turn out to be still good.
func (c *Cache[V]) readOwner(ctx context.Context, key string, maxAge time.Duration, d *drill, b, have *box[V], flags uint8) (out Answer[V], loaded int64, err error) {
	hash := ring.Hash(key)
	stamp, wide, began := c.fences.stamp(hash), c.fences.wide.Load(), int64(0)
	if c.near != nil || d != nil {
		began = c.clock.now()
	}
	var a answer[V]
	err = c.find(ctx, key, hash, stamp, wide, maxAge, flags|flagOf(d), have, &a)
	c.demand.read(key, hash, a.size, a.cost, c.demand.now.Load())
	if d != nil {
		c.drilled(d, a.source, err, began)
	}
	if err != nil {
		if b != nil {
			if a, err, ok := c.fallBack(key, b); ok {
				return a, b.loaded, err
			}
		}
		c.stats.errors.Add(1)
		return out, 0, err
	}
	if !a.private && !a.passing && c.near != nil {
		if maxAge >= 0 { // or an older copy that ristretto is about to add would stay in its place
			c.near.del(key)
		}
		c.keepNear(key, hash, &a, stamp, wide, began)
	}
	c.answered(&a)
	out = Answer[V]{Source: a.source, Stale: a.stale}
	if a.notFound {
		return out, a.loaded, ErrNotFound
	}
	out.Value = c.clone(a.value)
	return out, a.loaded, nil
}

// unfenced reports whether no fence covers a near copy. Unlike the shortcut in Get it looks
// twice where another key of the slot was fenced.
func (c *Cache[V]) unfenced(key string, b *box[V]) bool {
	if c.fences.tagged(b.tags) {
		return false
	}
	if b.checked >= c.fences.slots[b.slot].Load() {
		return true
	}
	upTo, valid := c.fences.near(key, uint32(b.slot), b.checked)
	if valid {
		again := *b
		again.checked = upTo
		c.near.set(key, again, int64(b.size))
	}
	return valid
}

// keepNear stores a near copy of an answer to a read that began at began with the stamp and
// the tag clock wide.
func (c *Cache[V]) keepNear(key string, hash uint64, a *answer[V], stamp, wide uint64, began int64) {
	c.keepNearAt(key, hash, a, stamp, wide, began, c.clock.now())
}

// keepNearAt is keepNear for who knows the time.
func (c *Cache[V]) keepNearAt(key string, hash uint64, a *answer[V], stamp, wide uint64, began, now int64) {
	b := box[V]{
		checked: min(stamp, a.stamp), size: int32(a.size), value: a.value, notFound: a.notFound, slot: uint16(fenceSlot(hash)), loaded: a.loaded, soft: a.soft,
		until: min(a.until, began+c.fences.retention/2), tags: tagsAt(a.tags, min(wide, a.wide)), etag: a.etag, why: a.why,
	}
	if b.until <= now || c.leaving.Load() {
		return
	}
	c.near.set(key, b, int64(a.size))
}

// find asks the key's owner: here or there. stamp and wide are the clocks when the read began.
func (c *Cache[V]) find(ctx context.Context, key string, hash, stamp, wide uint64, maxAge time.Duration, more uint8, have *box[V], a *answer[V]) error {
	q := question[V]{key: key, have: have, hash: hash, stamp: stamp, wide: wide, maxAge: maxAge, chain: chainOf(ctx), flags: more}
	if c.cfg.Cluster == nil {
		return c.ownAnswer(ctx, key, hash, maxAge, q.chain, more, a)
	}
	view := c.cfg.Cluster.View()
	if q.to = view.Owner(key); q.to.Name == c.self {
		return c.ownAnswer(ctx, key, hash, maxAge, q.chain, more, a)
	}
	q.view = view.Fingerprint()
	out, err := c.askFresh(ctx, &q, a)
	if out.answered {
		return err
	}
	return c.findElsewhere(ctx, view, &q, out, err, a)
}

// findElsewhere puts a question again, once, which the key's owner by the view did not answer.
func (c *Cache[V]) findElsewhere(ctx context.Context, view *ring.View, q *question[V], out outcome, err error, a *answer[V]) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	own := q.flags
	if out.moved {
		c.stats.moved.Add(1)
		view = c.await(ctx, view, out.hint)
		q.to = view.Owner(q.key)
		if m, ok := view.Member(out.hint); ok {
			q.to = m
		}
	} else { // unreachable: all nodes turn to the same successor
		c.stats.unreachable.Add(1)
		c.cfg.Logger.Debug("owner did not answer", "namespace", c.cfg.Namespace, "owner", q.to.Name, "err", err)
		next, ok := view.Successor(q.key)
		if !ok {
			next.Name = c.self
		}
		q.to, q.flags, q.have = next, q.flags|codec.FlagSuccessor, nil
	}
	if q.to.Name == c.self {
		return c.ownAnswer(ctx, q.key, q.hash, q.maxAge, q.chain, q.flags, a)
	}
	q.view = view.Fingerprint()
	if out, err = c.askFresh(ctx, q, a); out.answered {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.stats.bypassed.Add(1) // rather load here than look further
	return c.ownAnswer(ctx, q.key, q.hash, q.maxAge, q.chain, codec.FlagSuccessor|own&codec.FlagNoFill, a)
}

// viewPatience is for how long a read waits for the view to change when the owner that it
// asked says that it is not.
const viewPatience = 150 * time.Millisecond

// await returns a view that has changed or has the member, or after viewPatience the newest there is.
func (c *Cache[V]) await(ctx context.Context, old *ring.View, member string) *ring.View {
	changed := c.cfg.Cluster.ViewChanged()
	view := c.cfg.Cluster.View()
	if view != old {
		return view
	}
	if _, ok := view.Member(member); ok && member != "" {
		return view
	}
	t := time.NewTimer(viewPatience)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return c.cfg.Cluster.View()
}

// found is what the owner has for a read.
type found[V any] struct {
	e      *entry
	value  V
	typed  bool // value holds e's
	filled bool // a fill was waited for
	late   bool // served although a refill failed or got no permit
	// private: only for who asked.
	private bool
	why     staleReason
}

// valid returns the owned tier's entry for key, if there is one that is valid and not past
// hard expiry.
func (c *Cache[V]) valid(key string, hash uint64, now int64) *entry {
	e, ok := c.owned.get(key)
	if !ok || now >= e.hard || !c.fences.owned(key, hash, e.stamp) || c.fences.tagged(e.tags) {
		return nil
	}
	return e
}

// peek answers from the owned tier without waiting, and starts the refresh that is due. nil:
// a fill is needed; e is then the copy that there is, if any.
func (c *Cache[V]) peek(key string, hash uint64, maxAge time.Duration, chain []uint64, short bool) (hit, e *entry, late bool) {
	return c.peekAt(c.clock.now(), key, hash, maxAge, chain, short)
}

// peekAt is peek for who knows the time.
func (c *Cache[V]) peekAt(now int64, key string, hash uint64, maxAge time.Duration, chain []uint64, short bool) (hit, e *entry, late bool) {
	if e = c.valid(key, hash, now); e == nil {
		return nil, nil, false
	}
	if short && e.replica && maxAge == 0 { // that wants the owner's word
		return nil, e, false
	}
	switch e.judge(now, maxAge) {
	case serve:
		if !(short && e.replica) && c.ahead(e, now) {
			_, _ = c.join(key, hash, classRefresh, causeRefreshAhead, e, chain, short, noWait)
		}
	case serveStale:
		_, _ = c.join(key, hash, classStale, causeExpired, e, chain, short, noWait) // ErrClosed: then nothing is refreshed
	case serveLate:
		late = true
	default:
		return nil, e, false
	}
	return e, e, late
}

// ahead decides whether a fresh entry is refreshed before its soft expiry: XFetch. The dearer
// the fill and the nearer the expiry, the likelier.
func (c *Cache[V]) ahead(e *entry, now int64) bool {
	beta := c.cfg.Freshness.RefreshAhead
	if beta <= 0 || e.flags != 0 {
		return false
	}
	gap, scale := float64(e.soft-now), float64(e.cost)*beta
	const least = 37 // -ln of the smallest number that the dice give but 0
	if gap > scale*least {
		return false
	}
	return scale*-math.Log(1-c.dice.float64()) >= gap
}

// lookout is when near copies of a fresh entry end although they might live on: while XFetch
// may want to refresh it, reads must come here, or a hot key would expire unseen.
func (c *Cache[V]) lookout(e *entry, now int64) int64 {
	beta := c.cfg.Freshness.RefreshAhead
	if beta <= 0 || e.flags != 0 || now >= e.soft {
		return math.MaxInt64
	}
	const early = 8 // a refresh is this many costs ahead once in 3000 reads
	return e.soft - int64(min(early*beta*float64(e.cost), float64(e.soft-e.loaded)/8))
}

// own answers a read on the member that owns the key, or stands in for its owner.
func (c *Cache[V]) own(ctx context.Context, key string, hash uint64, maxAge time.Duration, chain []uint64, short bool) (f found[V], err error) {
	id := c.chainID(hash)
	for _, x := range chain {
		if x == id {
			return f, ErrCycle
		}
	}
	if len(chain) >= codec.MaxChain {
		return f, ErrCycle
	}
	wide := c.fences.wide.Load()
	hit, e, late := c.peek(key, hash, maxAge, chain, short)
	c.reuse.read(key, hash, cmp.Or(hit, e))
	if hit != nil {
		if hit.err != nil {
			return f, hit.err
		}
		return found[V]{e: hit, late: late, why: hit.whyStale(late)}, nil
	}
	cl, why := classMiss, causeExpired
	switch {
	case e != nil:
		cl = classStale
	default:
		why = c.whyMissing(key, hash, short)
	}
	if c.isolation.cut.Load() {
		why = causeIsolated
	}
	return c.ride(ctx, key, hash, maxAge, chain, short, cl, why, e, wide, c.clock.now(), nil, false)
}

// ride waits for the key's flight: fl, which the caller has joined, or started, when the read began at began and the tag
// clock was wide, or if that is nil one that it joins.
func (c *Cache[V]) ride(ctx context.Context, key string, hash uint64, maxAge time.Duration, chain []uint64, short bool, cl class, why cause, e *entry, wide uint64, began int64, fl *flight[V], started bool) (f found[V], err error) {
	var r *result[V]
	for ; ; fl = nil {
		if fl == nil {
			if fl, started, err = c.joinOrStart(key, hash, cl, why, e, chain, short, c.patience(ctx)); err != nil {
				return f, err
			}
		}
		if s, ok := c.soften(ctx, fl, e, maxAge, began); ok {
			return s, nil
		}
		select {
		case <-fl.done:
		case <-ctx.Done():
			select {
			case <-fl.done: // while he waited for another of many keys
			default:
				c.stats.left.Add(1)
				c.flights.leave(fl)
				return f, ctx.Err()
			}
		}
		r = &fl.res
		if r.err == nil && c.retagged(r.e, wide) {
			cl, why, e = classMiss, causeFenced, nil
			continue
		}
		if r.private && !started {
			continue
		}
		if r.err == nil && r.e.handed && r.e.judge(c.clock.now(), maxAge) == mustFill {
			cl, why, e = classStale, causeExpired, r.e
			continue
		}
		if r.err != nil || maxAge <= 0 || r.e.loaded >= began || c.clock.now()-r.e.loaded <= int64(maxAge) {
			break
		}
		// The flight that was joined had begun to load too long ago. The next one has not.
		cl, why, e = classStale, causeExpired, r.e
	}
	f = found[V]{e: r.e, value: r.value, typed: r.typed, filled: true, private: r.private}
	if r.err != nil {
		if r.e == nil || maxAge == 0 || maxAge > 0 && c.clock.now()-r.e.loaded > int64(maxAge) || c.clock.now() >= r.e.hard {
			return f, r.err
		}
		c.stats.rescued.Add(1)
		f.late, f.why = true, whyOf(r.err)
	}
	return f, nil
}

// retagged reports whether a tag of what a flight brought was, or may have been, invalidated after
// its load began and before the read did that joined it when the tag clock was wide.
func (c *Cache[V]) retagged(e *entry, wide uint64) bool {
	return e.tags != nil && e.tags.wide < wide && c.fences.tagged(e.tags)
}

// ownAsked is own as the flags of a request have it.
func (c *Cache[V]) ownAsked(ctx context.Context, key string, hash uint64, maxAge time.Duration, chain []uint64, flags uint8) (found[V], error) {
	short := flags&codec.FlagSuccessor != 0
	if c.isolation.cut.Load() { // others may not know yet that this node is
		switch {
		case c.cfg.WhenIsolated == Fail:
			return found[V]{}, ErrIsolated
		case flags&codec.FlagNoFill != 0:
			return found[V]{}, ErrNotCached
		}
		return c.own(ctx, key, hash, refreshAge, chain, short)
	}
	if flags&codec.FlagNoFill != 0 {
		return c.cached(key, hash, maxAge, short)
	}
	if flags&codec.FlagDrill != 0 && maxAge < 0 {
		return c.refill(ctx, key, hash, chain, short)
	}
	return c.own(ctx, key, hash, maxAge, chain, short)
}

// cached answers a read that wants no fill.
func (c *Cache[V]) cached(key string, hash uint64, maxAge time.Duration, short bool) (f found[V], err error) {
	now := c.clock.now()
	e := c.valid(key, hash, now)
	if e == nil || e.flags&entryFailed != 0 || short && e.replica && maxAge == 0 {
		return f, ErrNotCached
	}
	v := e.judge(now, maxAge)
	if v == mustFill {
		return f, ErrNotCached
	}
	c.reuse.read(key, hash, e)
	return found[V]{e: e, late: v == serveLate, why: e.whyStale(v == serveLate)}, nil
}

// ownAnswer is own for a caller on this node.
func (c *Cache[V]) ownAnswer(ctx context.Context, key string, hash uint64, maxAge time.Duration, chain []uint64, flags uint8, a *answer[V]) error {
	from := c.clock.now()
	f, err := c.ownAsked(ctx, key, hash, maxAge, chain, flags)
	if *a = (answer[V]{}); err != nil {
		return err
	}
	err = c.answerOf(key, &f, from, a)
	if f.e.replica && flags&codec.FlagSuccessor != 0 {
		c.stats.replicasServed.Add(1)
		a.until = min(a.until, c.clock.now()+int64(successorTTL))
	}
	return err
}

// answerOf is what has been found, for a read that began at from, as an answer to a caller on this node.
func (c *Cache[V]) answerOf(key string, f *found[V], from int64, a *answer[V]) (err error) {
	return c.answerAt(c.clock.now(), key, f, from, a)
}

// answerAt is answerOf for who knows the time.
func (c *Cache[V]) answerAt(now int64, key string, f *found[V], from int64, a *answer[V]) (err error) {
	if f.filled { // the owner's word is no older than the load's end
		from = max(from, f.e.loaded+int64(f.e.cost))
	}
	*a = answer[V]{
		notFound: f.e.flags&entryNotFound != 0, loaded: f.e.loaded, soft: f.e.soft,
		source: SourceOwned, stale: now >= f.e.soft, stamp: math.MaxUint64, wide: math.MaxUint64, tags: f.e.tags.list(), cost: f.e.cost,
		etag: f.e.etag, passing: f.e.flags&entryPassing != 0, why: f.why, age: max(now-f.e.loaded, 0),
	}
	if f.filled { // the flight may have begun before a fence that is not yet done with detaching it
		a.stamp = f.e.stamp
		if f.e.tags != nil {
			a.wide = f.e.tags.wide
		}
	}
	a.until = min(c.lease(from, f.e.swr, f.e.hard, f.late), c.lookout(f.e, now))
	a.private = f.private
	if f.filled && !f.late && !f.e.handed {
		a.source = SourceFill
	}
	if a.notFound {
		a.stale = false
		return nil
	}
	a.size = len(f.e.value)
	if f.typed {
		a.value = f.value
		return nil
	}
	if a.value, err = c.decode(f.e.value); err != nil {
		return &FillError{Namespace: c.cfg.Namespace, Key: key, Owner: c.self, Err: err}
	}
	return nil
}

// lease is until when a copy that its owner gave out at from may be served from the near tier.
func (c *Cache[V]) lease(from, swr, hard int64, late bool) int64 {
	until := min(from+int64(c.cfg.Freshness.NearTTL), hard)
	if !late {
		until = min(until, max(swr, from))
	}
	return until
}
