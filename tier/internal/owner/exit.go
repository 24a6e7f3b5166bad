package owner

import (
	"math"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/store"
)

// Never is the end of a copy that has none.
const Never = math.MaxInt64

// End returns when what was found must no longer be handed out.
func (f *Found) End() int64 {
	if f.Filled && f.E.Outlived() {
		return Never
	}
	return f.E.Hard
}

// Fill fills in the answer to a read that has the given flags and was held for the given time. It returns false if
// what was found must no longer be handed out; resp is then unchanged.
func (h Handler) Fill(now int64, flags uint8, have uint64, resp *codec.Response, f *Found, held time.Duration) bool {
	if now >= f.End() {
		return false
	}
	resp.Status, resp.Held, resp.Incarnation, resp.Version = codec.StatusValue, held, h.c.Journal.Incarnation(), f.E.Version
	if f.E.Tags != nil {
		resp.Flags |= codec.FlagTagged
		resp.Tags = f.E.Tags.List()
	}
	resp.Age = time.Duration(max(now-f.E.Loaded, 0))
	resp.Soft, resp.Hard = time.Duration(f.E.Soft-now), time.Duration(f.E.Hard-now)
	if f.E.Replica && flags&codec.FlagSuccessor != 0 { // near copies live as long as those of what a stand-in owner fills
		h.c.Stats.ReplicasServed.Add(1)
		resp.Soft, resp.Hard = min(resp.Soft, SuccessorTTL), min(resp.Hard, SuccessorTTL)
	}
	if f.E.Flags&store.Passing != 0 {
		resp.Flags |= codec.FlagPassing
	}
	if f.E.Flags&store.NotFound != 0 {
		resp.Status = codec.StatusNotFound
	} else {
		if flags&codec.FlagHave != 0 && have == f.E.Etag {
			resp.Status = codec.StatusSame
		} else {
			resp.Value, resp.Etag = f.E.Value, f.E.Etag
		}
		if now >= f.E.Soft {
			resp.Flags |= codec.FlagStale
			resp.Why = uint8(f.Why)
		}
	}
	if f.Filled && (!f.Late && !f.E.Handed || f.E.Outlived()) {
		resp.Flags |= codec.FlagFilled
	}
	if f.Private {
		resp.Flags &^= codec.FlagSameView
	}
	return true
}

// batch makes one push of the first of keys; taken is how many of them it covers. fresh: only fresh copies.
func (c *Owner) batch(keys []hotEntry, fresh bool) (list []codec.Pushed, taken int) {
	now, size := c.Clock.Now(), 0
	for _, x := range keys {
		if len(list) == codec.MaxPushed {
			break
		}
		e := c.Valid(x.Key, ring.Hash(x.Key), now) // nil past its hard expiry
		if e == nil || e.Flags&(store.Failed|store.Passing) != 0 || fresh && (e.Replica || now >= e.Soft) {
			taken++
			continue
		}
		bytes := len(x.Key) + len(e.Value) + 4*len(e.Tags.List())
		if len(list) > 0 && size+bytes > handoffBatch {
			break
		}
		size += bytes
		taken++
		list = append(list, codec.Pushed{
			Key: BytesOf(x.Key), Value: e.Value, NotFound: e.Flags&store.NotFound != 0, Heat: x.heat,
			Age: time.Duration(max(now-e.Loaded, 0)), Soft: time.Duration(e.Soft - now), Hard: time.Duration(e.Hard - now),
			Cost: e.Cost, Version: e.Version, Tags: e.Tags.List(),
		})
	}
	return list, taken
}
