package tier

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/store"
)

// Values leave a node only through this file: to a caller by handOut, to a member as an answer by fill and as a push
// by batch. Each of these tests, when the value leaves, whether the copy may still be handed out. The code that finds a
// copy tests its end as well, but only to save work: between finding and leaving, a read may wait for a load, for the
// slowest of many keys, for a network or for a suspended machine.
//
//	exit       end                                                 past the end
//	handOut    near copy: its lease, others: hard expiry           the key is read again, up to maxAgain times, then ErrExpired
//	fill       hard expiry                                         the owner answers again, or says that it has no copy
//	batch      hard expiry                                         the copy is left out
//
// One kind of copy has no end: the result of a load that was past its hard expiry when the load returned. It is in no
// tier, and belongs to the callers that waited for that load.

// ErrExpired says that every copy that a read found passed its hard expiry before it could be handed out: copies live
// for less time than an answer takes.
var ErrExpired = errors.New("weir: the copy passed its hard expiry before it could be handed out")

// never is the end of a copy that has none.
const never = math.MaxInt64

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

// end returns when what was found must no longer be handed out.
func (f *found) end() int64 {
	if f.filled && f.e.Outlived() {
		return never
	}
	return f.e.Hard
}

// endOf returns the end of a copy that another member answered with at the given time. A member sends an answer past
// its hard expiry only if it waited for a load that took longer than its result may live.
func endOf(r *codec.Response, at int64) int64 {
	if r.Flags&codec.FlagFilled != 0 && r.Hard <= 0 {
		return never
	}
	return at + int64(r.Hard)
}

// fill fills in the answer to a read that has the given flags and was held for the given time. It returns false if
// what was found must no longer be handed out; resp is then unchanged.
func (h handler) fill(now int64, flags uint8, have uint64, resp *codec.Response, f *found, held time.Duration) bool {
	if now >= f.end() {
		return false
	}
	resp.Status, resp.Held, resp.Incarnation = codec.StatusValue, held, h.c.journal.Incarnation()
	if f.e.Tags != nil {
		resp.Flags |= codec.FlagTagged
		resp.Tags = f.e.Tags.List()
	}
	resp.Age = time.Duration(max(now-f.e.Loaded, 0))
	resp.Soft, resp.Hard = time.Duration(f.e.Soft-now), time.Duration(f.e.Hard-now)
	if f.e.Replica && flags&codec.FlagSuccessor != 0 { // near copies live as long as those of what a stand-in owner fills
		h.c.stats.ReplicasServed.Add(1)
		resp.Soft, resp.Hard = min(resp.Soft, successorTTL), min(resp.Hard, successorTTL)
	}
	if f.e.Flags&store.Passing != 0 {
		resp.Flags |= codec.FlagPassing
	}
	if f.e.Flags&store.NotFound != 0 {
		resp.Status = codec.StatusNotFound
	} else {
		if flags&codec.FlagHave != 0 && have == f.e.Etag {
			resp.Status = codec.StatusSame
		} else {
			resp.Value, resp.Etag = f.e.Value, f.e.Etag
		}
		if now >= f.e.Soft {
			resp.Flags |= codec.FlagStale
			resp.Why = uint8(f.why)
		}
	}
	if f.filled && (!f.late && !f.e.Handed || f.e.Outlived()) {
		resp.Flags |= codec.FlagFilled
	}
	if f.private {
		resp.Flags &^= codec.FlagSameView
	}
	return true
}

// batch makes one push of the first of keys; taken is how many of them it covers. fresh: only fresh copies.
func (c *core) batch(keys []hotEntry, fresh bool) (list []codec.Pushed, taken int) {
	now, size := c.clock.Now(), 0
	for _, x := range keys {
		if len(list) == codec.MaxPushed {
			break
		}
		e := c.valid(x.key, ring.Hash(x.key), now) // nil past its hard expiry
		if e == nil || e.Flags&(store.Failed|store.Passing) != 0 || fresh && (e.Replica || now >= e.Soft) {
			taken++
			continue
		}
		bytes := len(x.key) + len(e.Value) + 4*len(e.Tags.List())
		if len(list) > 0 && size+bytes > handoffBatch {
			break
		}
		size += bytes
		taken++
		list = append(list, codec.Pushed{
			Key: bytesOf(x.key), Value: e.Value, NotFound: e.Flags&store.NotFound != 0, Heat: x.heat,
			Age: time.Duration(max(now-e.Loaded, 0)), Soft: time.Duration(e.Soft - now), Hard: time.Duration(e.Hard - now),
			Cost: e.Cost, Version: e.Version, Tags: e.Tags.List(),
		})
	}
	return list, taken
}

// undecodable is the error of a copy whose bytes the codec cannot decode. Such a copy is in the owned tier only if
// another member gave it: what is loaded or put here has been decoded once. It is dropped, counted and loaded again.
// The read that finds it tries once more, and only once, so that a codec that always fails does not ask the origin
// again and again.
type undecodable struct{ err error }

func (e *undecodable) Error() string { return fmt.Sprintf("decode: %v", e.err) }
func (e *undecodable) Unwrap() error { return e.err }

// isUndecodable reports whether err says that a copy cannot be decoded.
func isUndecodable(err error) bool {
	var u *undecodable
	return errors.As(err, &u)
}

// drop removes an entry that cannot be decoded from the owned tier.
func (c *core) drop(key string, hash uint64, e *store.Entry) {
	c.stats.Undecodable.Add(1)
	c.fences.Update(hash, func() {
		if now, ok := c.owned.Get(key); ok && now == e {
			c.owned.Delete(key)
		}
	})
}
