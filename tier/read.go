package tier

import (
	"context"
	"math"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// AnyAge as ReadOptions.MaxAge accepts whatever the contract allows, as Get does.
const AnyAge time.Duration = -1

// ReadOptions are one read's own demands on freshness. They only add to the contract. The zero ReadOptions are the
// strictest. To use NoFill or After alone, set MaxAge to AnyAge as well.
type ReadOptions struct {
	// MaxAge is the age of the oldest copy that this read accepts, counted from the start of its load. An older copy
	// is refreshed first. 0 demands the owner's word: no near copy, and no copy past its soft expiry. A negative
	// MaxAge, such as AnyAge, accepts what Get accepts.
	MaxAge time.Duration
	// NoFill answers only from what is cached, here or at the owner. Without a copy that the contract and MaxAge
	// allow, the read returns ErrNotCached. It neither asks the origin nor starts a refresh.
	NoFill bool
	// After, if not zero, names invalidations that the answer must not predate, wherever they were started: see
	// Token. Members forget an invalidation once no copy from before it can live any more, which the contract and a
	// margin of 30 seconds determine. A token kept longer than that costs a fill on each node that sees it: drop it
	// then.
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

// Answer is a value with its provenance.
type Answer[V any] struct {
	Value  V
	Age    time.Duration // since the start of the load, at the time of the answer; never underestimated
	Source Source
	Stale  bool // past soft expiry
}

// answer is what the tiers below the near one return: a future near copy, with its times on this node's clock.
type answer[V any] struct {
	finding[V]
	soft    int64
	until   int64         // end of a near copy's lease
	size    int           // bytes of the value's encoding
	stamp   uint64        // a near copy's stamp is at most this
	cost    time.Duration // of its load; 0: unknown
	tags    []uint32
	private bool // for the caller that asked only: neither kept nor given to later callers
	passing bool // not to be kept
	why     store.StaleReason
	age     int64 // when it was given
	etag    uint64
	kept    *atomic.Bool // whether one of the callers that share the answer keeps it near; nil: the answer is not shared
}

// first reports whether the caller is the first of those that share the answer: one near copy is enough.
func (a *answer[V]) first() bool { return a.kept == nil || !a.kept.Load() && !a.kept.Swap(true) }

// Get returns the value of key from the near tier, from the key's owner, or from a fill that all concurrent callers
// of the key share. The value is shared as well: do not change it, or set Config.Clone.
//
// Errors: ErrNotFound; a *FillError if the fill failed and no copy could be served; ErrOverloaded if the origin could
// not be asked; ErrIsolated with Config.WhenIsolated Fail; ErrExpired in a FillError if values live for less time
// than an answer takes; ErrClosed, ErrEmptyKey, ErrKeyTooLarge, ErrCycle; and ctx's error. Cancelling ctx ends this
// call and does not affect other callers.
func (c *Cache[V]) Get(ctx context.Context, key string) (V, error) {
	if c.near == nil {
		a, err := c.read(ctx, key, AnyAge, nil, 0)
		return a.Value, err
	}
	now := c.own.Clock.Now()
	b := c.near.Get(key)
	if b == nil {
		a, err := c.read(ctx, key, AnyAge, nil, 0)
		return a.Value, err
	}
	if now < b.until && b.checked >= c.own.Fences.SlotStamp(uint32(b.slot)) && (b.tags == nil || !c.own.Fences.Tagged(b.tags)) && ctx.Err() == nil {
		if x := mix(now, b.slot); x < c.own.Watch.Load() {
			if c.own.Isolation.Cut.Load() {
				a, err := c.read(ctx, key, AnyAge, b, 0)
				return a.Value, err
			}
			if d := c.sampleNearHit(key, b, now, x); d != nil {
				a, err := c.readDrilled(ctx, d, key, b)
				return a.Value, err
			}
		}
		if b.notFound {
			return b.value, ErrNotFound
		}
		return c.clone(b.value), nil
	}
	a, err := c.read(ctx, key, AnyAge, b, 0)
	return a.Value, err
}

// Read is Get with its own demands. It also reports the answer's source and age. The errors are those of Get, and
// ErrNotCached with ReadOptions.NoFill.
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
	return c.read(ctx, key, max(o.MaxAge, AnyAge), c.near.Get(key), flags)
}

// read answers a read for which the near tier has b, or nil. The flags are sent to the owner.
func (c *Cache[V]) read(ctx context.Context, key string, maxAge time.Duration, b *nearEntry[V], flags uint8) (Answer[V], error) {
	var a answer[V]
	for range owner.MaxAgain + 1 {
		if err := c.find(ctx, key, maxAge, b, flags, &a); err != nil {
			return Answer[V]{}, err
		}
		if out, ok, err := c.handOut(&a.finding, c.own.Clock.Now()); ok {
			return out, err
		}
		b = nil
	}
	return Answer[V]{}, c.expired(key)
}

// readDrilled is read for a near hit that d makes behave as a miss.
func (c *Cache[V]) readDrilled(ctx context.Context, d *owner.Drill, key string, b *nearEntry[V]) (Answer[V], error) {
	var a answer[V]
	if err := c.drillNearHit(ctx, d, key, b, &a); err != nil {
		return Answer[V]{}, err
	}
	if out, ok, err := c.handOut(&a.finding, c.own.Clock.Now()); ok {
		return out, err
	}
	return c.read(ctx, key, AnyAge, nil, 0)
}

func (c *core) expired(key string) error {
	return &FillError{Namespace: c.cfg.Namespace, Key: key, Owner: c.own.Self, Err: ErrExpired}
}

// find sets a to the answer of a read for which the near tier has b, or nil. Its error is never ErrNotFound.
func (c *Cache[V]) find(ctx context.Context, key string, maxAge time.Duration, b *nearEntry[V], flags uint8, a *answer[V]) error {
	if err := owner.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.own.Life.IsClosed() {
		return ErrClosed
	}
	if c.own.Isolation.Cut.Load() {
		return c.findIsolated(ctx, key, b, flags, a)
	}
	return c.findHere(ctx, key, maxAge, b, flags, a)
}

// findHere is find after the checks that can reject the read.
func (c *Cache[V]) findHere(ctx context.Context, key string, maxAge time.Duration, b *nearEntry[V], flags uint8, a *answer[V]) error {
	if b != nil {
		if now := c.own.Clock.Now(); maxAge != 0 && maxAge != store.RefreshAge && now < b.until && (maxAge < 0 || now-b.loaded <= int64(maxAge)) && c.unfenced(key, b) {
			if x := mix(now, b.slot); x < c.own.Watch.Load() {
				if d := c.sampleNearHit(key, b, now, x); d != nil && maxAge < 0 && flags == 0 {
					return c.drillNearHit(ctx, d, key, b, a)
				}
			}
			*a = answer[V]{}
			a.takeNear(b, now)
			return nil
		}
		c.own.Stats.NearUnused.Add(1)
	}
	var d *owner.Drill
	if maxAge < 0 && flags == 0 {
		d = c.own.PickDrill()
	}
	return c.findAtOwner(ctx, &request[V]{Lookup: owner.Lookup{Key: key, MaxAge: maxAge, Flags: flags}, have: b}, d, nil, a)
}

// findAtOwner sets a to the answer of q, which the near tier does not answer. The caller has set q's key, maxAge,
// have and flags. A non-nil d makes the read behave as a miss at the owner as well. A non-nil b is a near copy to
// fall back on.
func (c *Cache[V]) findAtOwner(ctx context.Context, q *request[V], d *owner.Drill, b *nearEntry[V], a *answer[V]) error {
	key, hash, maxAge, began := q.Key, ring.Hash(q.Key), q.MaxAge, int64(0)
	stamp, wide := c.own.Fences.Stamp(hash), c.own.Fences.TagClock()
	if d != nil {
		began = c.own.Clock.Now()
	}
	q.Hash, q.stamp, q.wide, q.Chain, q.Flags = hash, stamp, wide, governor.ChainOf(ctx), q.Flags|owner.FlagOf(d)
	err := c.getFromOwner(ctx, q, a)
	c.own.Demand.Read(key, hash, a.size, a.cost, c.own.Demand.Now.Load())
	if d != nil {
		c.own.CountDrilled(d, a.source == SourceFill, err, began)
	}
	if err != nil {
		if b != nil && c.fallBack(key, b, a) {
			return nil
		}
		c.own.Stats.Errors.Add(1)
		return err
	}
	switch {
	case a.private || a.passing || c.near == nil:
	case maxAge >= 0: // an older copy that ristretto is about to add would otherwise stay
		c.near.Del(key)
		c.keepNear(c.own.Clock.Now(), key, hash, a, stamp, wide)
	case a.first():
		c.keepNear(c.own.Clock.Now(), key, hash, a, stamp, wide)
	}
	c.countAnswer(a)
	return nil
}

// unfenced reports whether no fence covers a near copy. Unlike the shortcut in Get it looks a second time if another
// key of the slot was fenced.
func (c *Cache[V]) unfenced(key string, b *nearEntry[V]) bool {
	if c.own.Fences.Tagged(b.tags) {
		return false
	}
	if b.checked >= c.own.Fences.SlotStamp(uint32(b.slot)) {
		return true
	}
	upTo, valid := c.own.Fences.NearValid(key, uint32(b.slot), b.checked)
	if valid {
		again := *b
		again.checked = upTo
		c.near.Set(key, again, c.nearCost(&again))
	}
	return valid
}

// keepNear stores a near copy of the answer to a read that began at the stamp and at the tag clock wide. A fence
// between the load and the read needs no check here: a read that joined a load from before such a fence loads again
// (owner.awaitFlight).
func (c *Cache[V]) keepNear(now int64, key string, hash uint64, a *answer[V], stamp, wide uint64) {
	b := nearEntry[V]{
		checked: min(stamp, a.stamp), size: int32(a.size), value: a.value, notFound: a.notFound, slot: uint16(fence.Slot(hash)), loaded: a.loaded, soft: a.soft,
		until: a.until, tags: fence.TagsAt(a.tags, wide), etag: a.etag, why: a.why,
	}
	if b.until <= now || c.own.Leaving.Load() {
		return
	}
	c.near.Set(key, b, c.nearCost(&b))
}

// nearCost is what a near copy takes in addition to its nearEntry.
func (c *Cache[V]) nearCost(b *nearEntry[V]) int64 {
	cost := c.weigh(b.value)
	if b.tags != nil {
		cost += int64(unsafe.Sizeof(*b.tags)) + 4*int64(cap(b.tags.List()))
	}
	return cost
}

// getFromOwner asks the key's owner, which is this node or another member.
func (c *Cache[V]) getFromOwner(ctx context.Context, q *request[V], a *answer[V]) error {
	if c.cfg.Cluster == nil {
		return c.answerOwned(ctx, q, a)
	}
	view := c.cfg.Cluster.View()
	if q.to = view.Owner(q.Key); q.to.Name == c.own.Self {
		return c.answerOwned(ctx, q, a)
	}
	if len(q.Chain) > 0 {
		return governor.NestingOf(ctx).Around(func() error { return c.getFromMember(ctx, view, q, a) })
	}
	return c.getFromMember(ctx, view, q, a)
}

// getFromMember asks the key's owner by the view, which is another member.
func (c *Cache[V]) getFromMember(ctx context.Context, view *ring.View, q *request[V], a *answer[V]) error {
	q.view = view.Fingerprint()
	out, err := c.callMember(ctx, q, a)
	if out.answered {
		return err
	}
	return c.getElsewhere(ctx, view, q, out, err, a)
}

// getElsewhere repeats a request, after the key's owner by the view did not answer it.
func (c *Cache[V]) getElsewhere(ctx context.Context, view *ring.View, q *request[V], out outcome, err error, a *answer[V]) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	own := q.Flags
	if out.moved {
		c.own.Stats.Moved.Add(1)
		view = c.await(ctx, view, out.hint)
		q.to = view.Owner(q.Key)
		if m, ok := view.Member(out.hint); ok {
			q.to = m
		}
	} else { // unreachable: all nodes turn to the same successor
		c.own.Stats.Unreachable.Add(1)
		c.cfg.Logger.Debug("owner did not answer", "namespace", c.cfg.Namespace, "owner", q.to.Name, "err", err)
		next, ok := view.Successor(q.Key)
		if !ok {
			next.Name = c.own.Self
		}
		q.to, q.Flags, q.have = next, q.Flags|codec.FlagSuccessor, nil
	}
	if q.to.Name == c.own.Self {
		return c.answerOwned(ctx, q, a)
	}
	q.view = view.Fingerprint()
	if out, err = c.callMember(ctx, q, a); out.answered {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.own.Stats.Bypassed.Add(1) // load here instead of looking further
	q.Flags = codec.FlagSuccessor | own&codec.FlagNoFill
	return c.answerOwned(ctx, q, a)
}

// viewPatience is how long a read waits for the view to change after the owner that it asked denied owning the key.
const viewPatience = 150 * time.Millisecond

// await returns a view that differs from old or contains member. After viewPatience it returns the newest view.
func (c *core) await(ctx context.Context, old *ring.View, member string) *ring.View {
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
	case <-c.own.Ctx.Done():
	}
	return c.cfg.Cluster.View()
}

// answerOwned answers a request on this node, as its flags demand.
func (c *Cache[V]) answerOwned(ctx context.Context, q *request[V], a *answer[V]) error {
	from := c.own.Clock.Now()
	f, err := c.own.GetOwnedFor(ctx, &q.Lookup)
	if *a = (answer[V]{}); err != nil {
		return err
	}
	if err = c.answerTo(c.own.Clock.Now(), q.Key, &f, from, a); isUndecodable(err) { // that entry has been dropped: a second attempt finds another
		if f, err = c.own.GetOwnedFor(ctx, &q.Lookup); err != nil {
			return err
		}
		err = c.answerTo(c.own.Clock.Now(), q.Key, &f, from, a)
	}
	if f.E.Replica && q.StandsIn() {
		c.own.Stats.ReplicasServed.Add(1)
		a.until = min(a.until, c.own.Clock.Now()+int64(owner.SuccessorTTL))
	}
	return err
}

// answerTo turns what was found, for a read that began at from, into an answer to a caller on this node.
func (c *Cache[V]) answerTo(now int64, key string, f *owner.Found, from int64, a *answer[V]) (err error) {
	if f.Filled { // the lease starts at the end of the load at the earliest
		from = max(from, f.E.Loaded+int64(f.E.Cost))
	}
	*a = answer[V]{
		finding: finding[V]{loaded: f.E.Loaded, end: f.End(), source: SourceOwned, stale: now >= f.E.Soft, notFound: f.E.Flags&store.NotFound != 0},
		soft:    f.E.Soft, stamp: math.MaxUint64, tags: f.E.Tags.List(), cost: f.E.Cost,
		etag: f.E.Etag, passing: f.E.Flags&store.Passing != 0, why: f.Why, age: max(now-f.E.Loaded, 0),
	}
	if f.Filled { // the flight may have begun before a fence that has not detached it yet
		a.stamp = f.E.Stamp
	}
	a.until = min(c.own.Lease(from, f.E.SWR, f.E.Hard, f.Late), c.own.NearLimit(f.E, now))
	a.private = f.Private
	if f.Flight != nil {
		a.kept = &f.Flight.Kept
	}
	if f.Filled && !f.Late && !f.E.Handed {
		a.source = SourceFill
	}
	if a.notFound {
		a.stale = false
		return nil
	}
	a.size = len(f.E.Value)
	if f.Fill != nil {
		a.value = f.Fill.(filling[V]).f.shared
		return nil
	}
	if a.value, err = c.values.decode(f.E.Value); err != nil {
		c.drop(key, ring.Hash(key), f.E)
		return &FillError{Namespace: c.cfg.Namespace, Key: key, Owner: c.own.Self, Err: err}
	}
	return nil
}

// findIsolated is find while the node is isolated and the cache must not serve as usual.
func (c *Cache[V]) findIsolated(ctx context.Context, key string, b *nearEntry[V], flags uint8, a *answer[V]) error {
	if b != nil {
		c.own.Stats.NearUnused.Add(1)
	}
	switch {
	case c.cfg.WhenIsolated == Fail:
		c.own.Stats.Errors.Add(1)
		return ErrIsolated
	case flags&codec.FlagNoFill != 0:
		return ErrNotCached
	}
	q := request[V]{Lookup: owner.Lookup{Key: key, Hash: ring.Hash(key), MaxAge: store.RefreshAge, Chain: governor.ChainOf(ctx)}}
	if err := c.answerOwned(ctx, &q, a); err != nil {
		c.own.Stats.Errors.Add(1)
		return err
	}
	c.countAnswer(a)
	return nil
}
