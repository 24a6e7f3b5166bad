package tier

import (
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// Values leave a node only through this file and internal/owner/exit.go: to a caller by handOut, to a member as an answer
// by owner.Handler.Fill and as a push by owner.batch. Each of these tests, when the value leaves, whether the copy may still be handed out. The code that finds a
// copy tests its end as well, but only to save work: between finding and leaving, a read may wait for a load, for the
// slowest of many keys, for a network or for a suspended machine.
//
//	exit       end                                                 past the end
//	handOut    near copy: its lease, others: hard expiry           the key is read again, up to MaxAgain times, then ErrExpired
//	Fill       hard expiry                                         the owner answers again, or says that it has no copy
//	batch      hard expiry                                         the copy is left out
//
// One kind of copy has no end: the result of a load that was past its hard expiry when the load returned. It is in no
// tier, and belongs to the callers that waited for that load.

// ErrExpired says that every copy that a read found passed its hard expiry before it could be handed out: copies live
// for less time than an answer takes.
var ErrExpired = owner.ErrExpired

// finding is what a read has found, before it is handed out.
type finding[V any] struct {
	value    V
	loaded   int64 // start of the load, ns on the cache's clock
	end      int64 // it must not be handed out from then on
	source   Source
	stale    bool
	notFound bool
}

// handOut returns a finding as an answer to a caller. ok is false if the finding must not be handed out any more.
func (c *Cache[V]) handOut(x *finding[V], now int64) (out Answer[V], ok bool, err error) {
	if now >= x.end {
		return out, false, nil
	}
	out = Answer[V]{Age: time.Duration(max(now-x.loaded, 0)), Source: x.source, Stale: x.stale && !x.notFound}
	if x.notFound {
		return out, true, ErrNotFound
	}
	out.Value = c.clone(x.value)
	return out, true, nil
}

// takeNear fills x with the near copy b.
func (x *finding[V]) takeNear(b *nearEntry[V], now int64) {
	*x = finding[V]{value: b.value, loaded: b.loaded, end: b.until, source: SourceNear, stale: now >= b.soft, notFound: b.notFound}
}

func (c *Cache[V]) clone(v V) V {
	if c.cloneValue == nil {
		return v
	}
	return c.cloneValue(v)
}

// endOf returns the end of a copy that another member answered with at the given time. A member sends an answer past
// its hard expiry only if it waited for a load that took longer than its result may live.
func endOf(r *codec.Response, at int64) int64 {
	if r.Flags&codec.FlagFilled != 0 && r.Hard <= 0 {
		return owner.Never
	}
	return at + int64(r.Hard)
}

// drop removes an entry that cannot be decoded from the owned tier.
func (c *core) drop(key string, hash uint64, e *store.Entry) {
	c.own.Stats.Undecodable.Add(1)
	c.own.Fences.Update(hash, func() {
		if now, ok := c.own.Owned.Get(key); ok && now == e {
			c.own.Owned.Delete(key)
		}
	})
}
