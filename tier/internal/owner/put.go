package owner

import (
	"context"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/store"
)

// Put is a value that is sent to its owner.
type Put struct {
	Key     string
	Hash    uint64
	Mark    codec.Mark // the invalidation of the same Put
	Version uint64
	TTL     time.Duration
	Tags    []uint32
	Value   []byte
	Began   int64 // the value was the origin's at or before this time on this cache's clock
}

// clockReading is a reading of another member's clock.
type clockReading struct {
	shown codec.Mark // the cache instance there, and the reading of its clock in ns
	heard int64      // when this member got the reading, ns on this cache's clock
}

// maxBefore bounds how long before the reading the value may have been the origin's.
const maxBefore = time.Hour

// readClock asks a member for a reading of its clock. It returns nil if the member does not give one.
func (c *Owner) readClock(ctx context.Context, to ring.Member, key string, wait time.Duration) *clockReading {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	req := codec.Request{Kind: codec.KindPut, Flags: codec.FlagClock, Namespace: c.NamespaceBytes, Schema: c.Config.Schema, Timeout: wait, Key: BytesOf(key)}
	var resp codec.Response
	if err := c.Config.Cluster.Call(ctx, to, &req, &resp); err != nil {
		return nil
	}
	defer resp.Release()
	if resp.Status != codec.StatusDone || resp.Seq == 0 {
		return nil
	}
	return &clockReading{codec.Mark{Incarnation: resp.Incarnation, Seq: resp.Seq}, c.Clock.Now()}
}

// ShowClock returns the reading of this cache's clock that members which put values get.
func (c *Owner) ShowClock(now int64) uint64 { return uint64(max(now, 0)) + 1 }

// BeganAt returns the time on this cache's clock at which the value of another member's put was the origin's. ok is
// false if the put names a reading that this clock never showed.
func (c *Owner) BeganAt(req *codec.Request, now int64) (began int64, ok bool) {
	if req.Flags&codec.FlagClock == 0 {
		return now - int64(min(req.Timeout, time.Hour)), true
	}
	if req.Clock.Incarnation != c.Journal.Incarnation() || req.Clock.Seq == 0 || req.Clock.Seq > c.ShowClock(now) {
		return 0, false
	}
	shown := int64(req.Clock.Seq - 1)
	if req.Since > 0 || req.Since < -maxBefore {
		return 0, false
	}
	return shown + int64(req.Since), true
}

// SendPut sends p to the key's owner and reports whether the owner keeps it.
func (c *Owner) SendPut(ctx context.Context, p *Put) bool {
	if c.Config.Cluster == nil {
		return c.keepPut(p)
	}
	view := c.Config.Cluster.View()
	to := view.Owner(p.Key)
	if to.Name == c.Self {
		return c.keepPut(p)
	}
	d := min(max(c.Config.InvalidateTimeout/4, 100*time.Millisecond), time.Second)
	clock := c.readClock(ctx, to, p.Key, d)
	if clock == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	req := codec.Request{
		Kind: codec.KindPut, Flags: codec.FlagClock, Namespace: c.NamespaceBytes, Schema: c.Config.Schema, View: view.Fingerprint(), Timeout: d,
		Fence: p.Mark, Version: p.Version, TTL: p.TTL, Tags: p.Tags, Key: BytesOf(p.Key), Value: p.Value,
		Clock: clock.shown, Since: time.Duration(p.Began - clock.heard),
	}
	var resp codec.Response
	if err := c.Config.Cluster.Call(ctx, to, &req, &resp); err != nil {
		c.Config.Logger.Debug("owner did not take a value", "namespace", c.Config.Namespace, "owner", to.Name, "err", err)
		return false
	}
	defer resp.Release()
	return resp.Status == codec.StatusDone
}

// put receives a value from another member.
func (h Handler) put(req *codec.Request, resp *codec.Response) {
	c := h.c
	now := c.Clock.Now()
	if req.Flags&codec.FlagClock != 0 && req.Clock.Seq == 0 {
		resp.Status, resp.Incarnation, resp.Seq = codec.StatusDone, c.Journal.Incarnation(), c.ShowClock(now)
		return
	}
	key := strings.Clone(stringOf(req.Key))
	if err := CheckKey(key); err != nil {
		h.refuse(resp, err)
		return
	}
	hash := ring.Hash(key)
	if !h.answersFor(req, hash, resp) {
		return
	}
	resp.Status, resp.Incarnation = codec.StatusNotCached, c.Journal.Incarnation()
	if len(req.Value) > c.Config.ValueLimit || req.Fence.Seq == 0 {
		return
	}
	began, ok := c.BeganAt(req, now)
	if !ok {
		c.Note(key, hash, req.Fence, req.Version)
		return
	}
	p := Put{
		Key: key, Hash: hash, Mark: req.Fence, Version: req.Version, TTL: req.TTL, Tags: append([]uint32(nil), req.Tags...),
		Value: append([]byte(nil), req.Value...), Began: began,
	}
	if c.keepPut(&p) {
		resp.Status = codec.StatusDone
	}
}

// keepPut keeps p in the owned tier if no newer value can exist.
func (c *Owner) keepPut(p *Put) (kept bool) {
	c.Note(p.Key, p.Hash, p.Mark, p.Version)
	e := &store.Entry{Version: p.Version, Loaded: p.Began, Value: p.Value, Tags: fence.TagsAt(p.Tags, c.Fences.TagClock())}
	now := c.Clock.Now()
	c.setExpiry(e, lifespan{ttl: p.TTL}, false, now)
	if now >= e.Soft || c.Config.Freshness.Allows(p.TTL) != nil || c.Fences.After(p.Tags, c.Fences.Earlier()) {
		return false
	}
	if p.TTL > 0 {
		c.Journal.StoredLife(e.Hard - e.Loaded)
	}
	e.Etag = c.etag(e)
	return c.Fences.Place(p.Key, p.Hash, p.Version, p.Began, func(stamp uint64) {
		if old, ok := c.Owned.Get(p.Key); ok && old.Version > p.Version {
			return
		}
		e.Stamp = stamp
		c.Owned.Set(p.Key, e)
		kept = true
	}) && kept
}
