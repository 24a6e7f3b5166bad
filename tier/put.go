package tier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/store"
)

// PutOptions describes the value of a Put.
type PutOptions struct {
	// Version is the origin's version of the value, as a loader sets it with Fill.SetVersion. Required.
	Version uint64
	// TTL is the time until the value's soft expiry, as with Fill.SetTTL. 0 means Freshness.TTL. If TTL exceeds
	// Freshness.MaxTTL, where that is set, Put returns ErrTTLTooLong and does nothing.
	TTL time.Duration
	// Tags are the tags that a loader would give the value.
	Tags []string
}

// ErrNoVersion says that a Put has no version.
var ErrNoVersion = errors.New("weir: a Put needs the origin's version of the value: without one, use Invalidate")

// Put invalidates key and hands its new value to the owner. Call it after the write to the origin has committed.
// Every copy becomes unusable, as with Invalidate, and the owner takes the value, so that the next Get does not cost
// a load. The errors are those of Invalidate, and ErrNoVersion, ErrValueTooLarge, ErrBadTag and the codec's. Put is
// safe for concurrent use.
//
// The owner keeps the value only if no newer one can exist. It drops the value if it knows a higher version of the
// key, if the key, one of the tags or the namespace was invalidated without a version within about the last half
// minute, or if the value takes longer than that to arrive. The value is also lost if the owner cannot be reached. In
// doubt the next Get loads, and Put returns no error for that. Stats counts the values that were kept. If the owner
// is another member, it gets two requests in addition to the invalidation: one that reads its clock, and one with the
// value. Do not change value after the call.
func (c *Cache[V]) Put(ctx context.Context, key string, value V, o PutOptions) error {
	if err := errors.Join(checkKey(key), checkTags(o.Tags)); err != nil {
		return err
	}
	switch {
	case o.Version == 0:
		return ErrNoVersion
	case o.TTL < 0:
		return fmt.Errorf("weir: Put: TTL is %v: it must not be below 0", o.TTL)
	case len(o.Tags) > codec.MaxTags:
		return fmt.Errorf("%w: more than %d: give the value fewer, wider ones", ErrBadTag, codec.MaxTags)
	}
	if err := c.cfg.Freshness.allows(o.TTL); err != nil {
		return fmt.Errorf("weir: Put: %w", err)
	}
	b, err := (&Fill[V]{c: c, value: value}).pack()
	if err != nil {
		return fmt.Errorf("weir: put of %s %q: %w", c.cfg.Namespace, key, err)
	}
	p := put{key: strings.Clone(key), hash: ring.Hash(key), version: o.Version, ttl: o.TTL, value: b, began: c.clock.Now()}
	for _, tag := range o.Tags {
		p.tags = append(p.tags, fence.TagHash(tag))
	}
	_, err = c.spread(ctx, o.Version, func(ctx context.Context, t Token) {
		p.mark = t.mark
		if c.sendPut(ctx, &p) {
			c.stats.PutKept.Add(1)
		} else {
			c.stats.PutRefused.Add(1)
		}
	}, journal.Part{Scope: codec.ScopeKeys, Names: []string{key}})
	return err
}

// Refresh reloads key at its owner, whatever copies exist, and returns the loaded value. Callers share a load that
// begins after their calls. If the load fails, an existing copy stays. The errors are those of Get.
func (c *Cache[V]) Refresh(ctx context.Context, key string) (V, error) {
	a, err := c.Read(ctx, key, ReadOptions{MaxAge: store.RefreshAge})
	return a.Value, err
}

// put is a value that is sent to its owner.
type put struct {
	key     string
	hash    uint64
	mark    codec.Mark // the invalidation of the same Put
	version uint64
	ttl     time.Duration
	tags    []uint32
	value   []byte
	began   int64 // the value was the origin's at or before this time on this cache's clock
}

// A put travels to the owner for an unbounded time: a frame can wait in the sockets of a process that is stopped. The
// owner must not underestimate the value's age, and it must not keep a value older than what the fences remember. So
// the owner measures the age by its own clock. The putter first asks what that clock shows. With the value it sends
// that reading, and how long before the reading arrived the value was the origin's, by the putter's clock. The owner
// read its clock before the putter got the answer. So the resulting time is never too late, and it is too early by
// the time of one answer at most, however long the put takes. A reading serves for one put only: a reading from
// before the put would have to be carried forward on the putter's clock, which may have been set ahead since.
//
// A member of an earlier version sends neither. The owner assumes that its value is as old as the whole timeout of
// the call.

// clockReading is a reading of another member's clock.
type clockReading struct {
	shown codec.Mark // the cache instance there, and the reading of its clock in ns
	heard int64      // when this member got the reading, ns on this cache's clock
}

// maxBefore bounds how long before the reading the value may have been the origin's.
const maxBefore = time.Hour

// readClock asks a member for a reading of its clock. It returns nil if the member does not give one.
func (c *core) readClock(ctx context.Context, to ring.Member, key string, wait time.Duration) *clockReading {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	req := codec.Request{Kind: codec.KindPut, Flags: codec.FlagClock, Namespace: c.ns, Schema: c.schema, Timeout: wait, Key: bytesOf(key)}
	var resp codec.Response
	if err := c.cfg.Cluster.Call(ctx, to, &req, &resp); err != nil {
		return nil
	}
	defer resp.Release()
	if resp.Status != codec.StatusDone || resp.Seq == 0 {
		return nil
	}
	return &clockReading{codec.Mark{Incarnation: resp.Incarnation, Seq: resp.Seq}, c.clock.Now()}
}

// showClock returns the reading of this cache's clock that members which put values get.
func (c *core) showClock(now int64) uint64 { return uint64(max(now, 0)) + 1 }

// beganAt returns the time on this cache's clock at which the value of another member's put was the origin's. ok is
// false if the put names a reading that this clock never showed.
func (c *core) beganAt(req *codec.Request, now int64) (began int64, ok bool) {
	if req.Flags&codec.FlagClock == 0 {
		return now - int64(min(req.Timeout, time.Hour)), true
	}
	if req.Clock.Incarnation != c.journal.Incarnation() || req.Clock.Seq == 0 || req.Clock.Seq > c.showClock(now) {
		return 0, false
	}
	shown := int64(req.Clock.Seq - 1)
	if req.Since > 0 || req.Since < -maxBefore {
		return 0, false
	}
	return shown + int64(req.Since), true
}

// sendPut sends p to the key's owner and reports whether the owner keeps it.
func (c *core) sendPut(ctx context.Context, p *put) bool {
	if c.cfg.Cluster == nil {
		return c.keepPut(p)
	}
	view := c.cfg.Cluster.View()
	to := view.Owner(p.key)
	if to.Name == c.self {
		return c.keepPut(p)
	}
	d := min(max(c.cfg.InvalidateTimeout/4, 100*time.Millisecond), time.Second)
	clock := c.readClock(ctx, to, p.key, d)
	if clock == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	req := codec.Request{
		Kind: codec.KindPut, Flags: codec.FlagClock, Namespace: c.ns, Schema: c.schema, View: view.Fingerprint(), Timeout: d,
		Fence: p.mark, Version: p.version, TTL: p.ttl, Tags: p.tags, Key: bytesOf(p.key), Value: p.value,
		Clock: clock.shown, Since: time.Duration(p.began - clock.heard),
	}
	var resp codec.Response
	if err := c.cfg.Cluster.Call(ctx, to, &req, &resp); err != nil {
		c.cfg.Logger.Debug("owner did not take a value", "namespace", c.cfg.Namespace, "owner", to.Name, "err", err)
		return false
	}
	defer resp.Release()
	return resp.Status == codec.StatusDone
}

// put receives a value from another member.
func (h handler) put(req *codec.Request, resp *codec.Response) {
	c := h.c
	now := c.clock.Now()
	if req.Flags&codec.FlagClock != 0 && req.Clock.Seq == 0 {
		resp.Status, resp.Incarnation, resp.Seq = codec.StatusDone, c.journal.Incarnation(), c.showClock(now)
		return
	}
	key := strings.Clone(stringOf(req.Key))
	if err := checkKey(key); err != nil {
		h.refuse(resp, err)
		return
	}
	hash := ring.Hash(key)
	if !h.answersFor(req, hash, resp) {
		return
	}
	resp.Status, resp.Incarnation = codec.StatusNotCached, c.journal.Incarnation()
	if len(req.Value) > c.cfg.ValueLimit || req.Fence.Seq == 0 {
		return
	}
	began, ok := c.beganAt(req, now)
	if !ok {
		c.note(key, hash, req.Fence, req.Version)
		return
	}
	p := put{
		key: key, hash: hash, mark: req.Fence, version: req.Version, ttl: req.TTL, tags: append([]uint32(nil), req.Tags...),
		value: append([]byte(nil), req.Value...), began: began,
	}
	if c.keepPut(&p) {
		resp.Status = codec.StatusDone
	}
}

// keepPut keeps p in the owned tier if no newer value can exist.
func (c *core) keepPut(p *put) (kept bool) {
	c.note(p.key, p.hash, p.mark, p.version)
	e := &store.Entry{Version: p.version, Loaded: p.began, Value: p.value, Tags: fence.TagsAt(p.tags, c.fences.TagClock())}
	now := c.clock.Now()
	c.setExpiry(e, lifespan{ttl: p.ttl}, false, now)
	if now >= e.Soft || c.cfg.Freshness.allows(p.ttl) != nil || c.fences.After(p.tags, c.fences.Earlier()) {
		return false
	}
	if p.ttl > 0 {
		c.journal.StoredLife(e.Hard - e.Loaded)
	}
	e.Etag = c.etag(e)
	return c.fences.Place(p.key, p.hash, p.version, p.began, func(stamp uint64) {
		if old, ok := c.owned.Get(p.key); ok && old.Version > p.version {
			return
		}
		e.Stamp = stamp
		c.owned.Set(p.key, e)
		kept = true
	}) && kept
}
