package tier

import (
	"context"
	"math"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

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
	if a.value, err = c.decode(f.E.Value); err != nil {
		c.drop(key, ring.Hash(key), f.E)
		return &FillError{Namespace: c.cfg.Namespace, Key: key, Owner: c.own.Self, Err: err}
	}
	return nil
}
