package owner

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"github.com/weircache/weir/tier/internal/store"
)

// etag identifies the content of e: different contents have different etags, except with probability 1 in 2^64.
func (c *Owner) etag(e *store.Entry) uint64 {
	if e.Flags != 0 {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(c.seed)
	for _, tag := range e.Tags.List() {
		_ = binary.Write(&h, binary.LittleEndian, tag)
	}
	_ = h.WriteByte(byte(len(e.Tags.List())))
	_, _ = h.Write(e.Value)
	return max(h.Sum64(), 1)
}

// owns reports whether this node owns a key in the present view.
func (c *Owner) owns(hash uint64) bool {
	if c.Config.Cluster == nil {
		return true
	}
	view := c.Config.Cluster.View()
	return view.OwnerOf(view.PartitionOf(hash)).Name == c.Self
}

// setExpiry sets e's soft and hard expiry from the contract and from the value's own lifespan.
func (c *Owner) setExpiry(e *store.Entry, own lifespan, short bool, now int64) {
	f, ttl, stale := &c.Config.Freshness, own.ttl, own.windows(&c.Config.Freshness)
	if e.Flags&store.NotFound != 0 {
		e.Soft = e.Loaded + int64(f.NegativeTTL)
		e.SWR, e.Hard = e.Soft, e.Soft
	} else {
		if ttl == 0 {
			ttl = f.TTL - time.Duration(f.Jitter*c.Random.Float64()*float64(f.TTL))
		}
		e.Soft = e.Loaded + int64(ttl)
		e.SWR = e.Soft + int64(stale.WhileRevalidate)
		e.Hard = e.Soft + int64(max(stale.WhileRevalidate, stale.IfError))
	}
	if short {
		c.standIn(e, now)
	}
}

// standIn gives e, which no other goroutine has yet, the times of a copy that a stand-in owner keeps.
func (c *Owner) standIn(e *store.Entry, now int64) {
	full := &store.Expiry{Soft: e.Soft, SWR: e.SWR, Hard: e.Hard}
	e.Change(func(r *store.Rare) { r.Full = full })
	c.stoodIn.Store(true)
	end := now + int64(SuccessorTTL)
	e.Soft, e.SWR, e.Hard = min(e.Soft, end), min(e.SWR, end), min(e.Hard, end)
}
