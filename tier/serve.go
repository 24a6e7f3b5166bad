package tier

import (
	"context"
	"errors"
	"strings"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"time"
)

// handler answers other members' requests for a cache.
type handler[V any] struct{ c *Cache[V] }

var _ codec.Handler = handler[int]{}

// fewKeys is how many keys of an invalidation are applied in the loop that reads the connection.
const fewKeys = 64

// TryServe implements codec.Handler: it answers what is in the owned tier.
func (h handler[V]) TryServe(req *codec.Request, resp *codec.Response) bool {
	c := h.c
	if req.Kind == codec.KindInvalidate {
		if len(req.Keys) > fewKeys {
			return false
		}
		h.invalidate(req, resp)
		return true
	}
	if c.life.isClosed() {
		resp.Status = codec.StatusClosed
		return true
	}
	key := stringOf(req.Key) // nothing below keeps it
	if err := checkKey(key); err != nil {
		h.refuse(resp, err)
		return true
	}
	hash := ring.Hash(key)
	if !h.mine(req, hash, resp) {
		return true
	}
	if h.fence(req, key, hash) || len(req.Chain) > 0 || req.Flags&codec.FlagDrill != 0 {
		return false
	}
	hit, _, late := c.peek(key, hash, maxAgeOf(req), nil, req.Flags&codec.FlagSuccessor != 0)
	if hit == nil {
		return false
	}
	c.stats.servedPeers.Add(1)
	c.reuse.read(key, hash, hit)
	h.fill(resp, found[V]{e: hit, late: late}, hit.err, 0)
	return true
}

// Serve implements codec.Handler: it may wait for a fill.
func (h handler[V]) Serve(ctx context.Context, req *codec.Request, resp *codec.Response) {
	c := h.c
	if req.Kind == codec.KindInvalidate {
		h.invalidate(req, resp)
		return
	}
	began := c.clock.now()
	key := strings.Clone(stringOf(req.Key))
	hash := ring.Hash(key)
	if !h.mine(req, hash, resp) {
		return
	}
	h.fence(req, key, hash)
	f, err := c.ownAsked(ctx, key, hash, maxAgeOf(req), req.Chain, req.Flags)
	c.stats.servedPeers.Add(1)
	h.fill(resp, f, err, time.Duration(c.clock.now()-began))
}

// mine reports whether this node answers for the key; otherwise resp says who does.
func (h handler[V]) mine(req *codec.Request, hash uint64, resp *codec.Response) bool {
	view := h.c.cfg.Cluster.View()
	if req.Flags&codec.FlagSuccessor != 0 || req.View == view.Fingerprint() {
		return true // in the asker's view, which is this one, the key is this node's
	}
	owner := view.OwnerOf(view.PartitionOf(hash))
	if owner.Name == h.c.self {
		return true
	}
	resp.Status, resp.View, resp.Owner = codec.StatusMoved, view.Fingerprint(), []byte(owner.Name)
	return false
}

// fence applies the invalidation that the asker has seen, if this node has not.
func (h handler[V]) fence(req *codec.Request, key string, hash uint64) (applied bool) {
	if req.Fence.Seq == 0 {
		return false
	}
	return h.c.applyOne(strings.Clone(key), hash, req.Fence) // the fence keeps the key
}

func maxAgeOf(req *codec.Request) time.Duration {
	if req.Flags&codec.FlagMaxAge == 0 {
		return AnyAge
	}
	return req.MaxAge
}

// fill fills in the answer of a read that was held for so long.
func (h handler[V]) fill(resp *codec.Response, f found[V], err error, held time.Duration) {
	if err != nil {
		h.refuse(resp, err)
		return
	}
	now := h.c.clock.now()
	resp.Status, resp.Held = codec.StatusValue, held
	resp.Age = time.Duration(max(now-f.e.loaded, 0))
	resp.Soft, resp.Hard = time.Duration(f.e.soft-now), time.Duration(f.e.hard-now)
	if f.e.flags&entryNotFound != 0 {
		resp.Status = codec.StatusNotFound
	} else {
		resp.Value = f.e.value
		if now >= f.e.soft {
			resp.Flags |= codec.FlagStale
		}
	}
	if f.filled && !f.late {
		resp.Flags |= codec.FlagFilled
	}
}

// refuse says why there is no value, in terms that keep the error's identity.
func (h handler[V]) refuse(resp *codec.Response, err error) {
	resp.Owner, resp.Text = []byte(h.c.self), []byte(err.Error())
	var over *OverloadedError
	var fill *FillError
	switch {
	case errors.As(err, &over):
		resp.Status, resp.RetryAfter, resp.Text = codec.StatusOverloaded, over.RetryAfter, []byte(over.Reason)
	case errors.Is(err, ErrCycle):
		resp.Status = codec.StatusCycle
	case errors.Is(err, ErrClosed):
		resp.Status = codec.StatusClosed
	case errors.Is(err, ErrValueTooLarge):
		resp.Status = codec.StatusTooLarge
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		resp.Status = codec.StatusTimeout
	default:
		resp.Status = codec.StatusFailed
		if errors.As(err, &fill) {
			resp.Text, resp.Owner = []byte(fill.Err.Error()), []byte(fill.Owner)
		}
	}
}

// invalidate applies what another member has started.
func (h handler[V]) invalidate(req *codec.Request, resp *codec.Response) {
	for _, k := range req.Keys {
		key := strings.Clone(stringOf(k))
		h.c.applyOne(key, ring.Hash(key), req.Mark)
	}
	resp.Status = codec.StatusDone
}

// Stats implements codec.Handler.
func (h handler[V]) Stats() any { return h.c.Stats() }
