package tier

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/store"
)

// handler answers other members' requests for a cache.
type handler struct{ c *core }

var _ codec.Handler = handler{}

// fewKeys is the largest number of keys of an invalidation that the loop that reads the connection applies itself.
const fewKeys = 64

// TryServe implements codec.Handler: it answers from the owned tier without waiting.
func (h handler) TryServe(req *codec.Request, resp *codec.Response) bool {
	c := h.c
	switch req.Kind {
	case codec.KindInvalidate:
		if req.Flags&codec.FlagRelay != 0 || !isSmall(req.News) {
			return false
		}
		h.c.journal.ServeNews(req, resp)
		return true
	case codec.KindSync, codec.KindPush:
		return false
	case codec.KindGetMany:
		return h.tryMany(req, resp)
	case codec.KindPut:
		if c.life.isClosed() {
			resp.Status = codec.StatusClosed
		} else {
			h.put(req, resp)
		}
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
	if req.Flags&codec.FlagPrevious != 0 {
		return h.previous(req, key, hash, resp)
	}
	if !h.answersFor(req, hash, resp) {
		return true
	}
	if h.note(req.Fence, key, hash) || c.isolation.Cut.Load() || len(req.Chain) > 0 || req.Flags&codec.FlagDrill != 0 {
		return false
	}
	l := lookup{key: key, hash: hash, maxAge: maxAgeOf(req), flags: req.Flags}
	if req.Flags&codec.FlagNoFill != 0 {
		f, err := c.getCached(&l)
		c.stats.ServedPeers.Add(1)
		if err == nil && !h.fill(c.clock.Now(), req.Flags, req.Have, resp, &f, 0) {
			err = ErrNotCached
		}
		if err != nil {
			h.refuse(resp, err)
		}
		return true
	}
	now := c.clock.Now() // once: reading the clock is among the most expensive parts of a hit
	hit, _, late := c.peek(now, &l)
	if hit == nil {
		return false
	}
	c.stats.ServedPeers.Add(1)
	c.reuse.Read(key, hash, hit)
	if err := hit.Err(); err != nil {
		h.refuse(resp, err)
		return true
	}
	return h.fill(now, req.Flags, req.Have, resp, &found{e: hit, late: late, why: hit.WhyStale(late)}, 0)
}

// Serve implements codec.Handler: it may wait for a fill.
func (h handler) Serve(ctx context.Context, req *codec.Request, resp *codec.Response) {
	c := h.c
	switch {
	case req.Kind == codec.KindSync:
		h.sync(req, resp)
		return
	case req.Kind == codec.KindGetMany:
		h.serveMany(ctx, req, resp)
		return
	case (req.Kind == codec.KindInvalidate || req.Kind == codec.KindPush) && req.Flags&codec.FlagRelay != 0:
		h.relay(ctx, req, resp)
		return
	case req.Kind == codec.KindPush:
		h.push(req, resp)
		return
	case req.Kind == codec.KindInvalidate:
		h.c.journal.ServeNews(req, resp)
		return
	case req.Flags&codec.FlagPrevious != 0:
		h.servePrevious(ctx, req, resp)
		return
	}
	began := c.clock.Now()
	key := strings.Clone(stringOf(req.Key))
	hash := ring.Hash(key)
	if !h.answersFor(req, hash, resp) {
		return
	}
	h.note(req.Fence, key, hash)
	ctx, end := c.serveTraced(ctx, req)
	defer func() { end(resp) }()
	c.stats.ServedPeers.Add(1)
	l := lookup{key: key, hash: hash, maxAge: maxAgeOf(req), chain: req.Chain, flags: req.Flags}
	for range maxAgain + 1 {
		f, err := c.getOwnedFor(ctx, &l)
		if err != nil {
			h.refuse(resp, err)
			return
		}
		now := c.clock.Now()
		if h.fill(now, req.Flags, req.Have, resp, &f, time.Duration(now-began)) {
			return
		}
	}
	h.refuse(resp, &FillError{Namespace: c.cfg.Namespace, Key: key, Owner: c.self, Err: ErrExpired})
}

// answersFor reports whether this node answers for the key. If not, resp names the owner.
func (h handler) answersFor(req *codec.Request, hash uint64, resp *codec.Response) bool {
	view := h.c.cfg.Cluster.View()
	same := req.View == view.Fingerprint()
	if same { // so the caller is in this view and is informed of later invalidations
		resp.Flags |= codec.FlagSameView
	}
	if req.Flags&codec.FlagSuccessor != 0 || same {
		return true // in the caller's view, which is this one, the key is this node's
	}
	owner := view.OwnerOf(view.PartitionOf(hash))
	if owner.Name == h.c.self {
		return true
	}
	if h.c.leaving.Load() || !contains(view, h.c.self) { // this node leaves, and the new owner may not know yet that it owns the key
		now := h.c.clock.Now()
		if e := h.c.valid(stringOf(req.Key), hash, now); e != nil && now < e.Soft && e.Flags&store.Failed == 0 && !e.Replica {
			return true
		}
	}
	resp.Status, resp.View, resp.Owner = codec.StatusMoved, view.Fingerprint(), []byte(owner.Name)
	return false
}

// note applies the mark that a request for the key carries. It reports whether there was one that this node had not
// applied.
func (h handler) note(mark codec.Mark, key string, hash uint64) (applied bool) {
	return mark.Seq != 0 && h.c.note(key, hash, mark, 0)
}

func maxAgeOf(req *codec.Request) time.Duration {
	if req.Flags&codec.FlagMaxAge == 0 {
		return AnyAge
	}
	return req.MaxAge
}

// refuse answers a request without a value. The response says why, in a form that keeps the error's identity.
func (h handler) refuse(resp *codec.Response, err error) {
	resp.Owner, resp.Text = []byte(h.c.self), []byte(err.Error())
	var over *OverloadedError
	var fill *FillError
	failed := errors.As(err, &fill)
	switch {
	case errors.As(err, &over):
		resp.Status, resp.RetryAfter, resp.Text = codec.StatusOverloaded, over.RetryAfter, []byte(over.Reason)
	// An error that a loader got from another cache says nothing about this one.
	case !failed && errors.Is(err, ErrNotCached):
		resp.Status = codec.StatusNotCached
	case !failed && errors.Is(err, ErrIsolated):
		resp.Status = codec.StatusIsolated
	case errors.Is(err, ErrCycle):
		resp.Status = codec.StatusCycle
	case !failed && errors.Is(err, ErrClosed):
		resp.Status = codec.StatusClosed
	case errors.Is(err, ErrValueTooLarge):
		resp.Status = codec.StatusTooLarge
	case errors.Is(err, ErrTimeout), !failed && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
		resp.Status = codec.StatusTimeout
	default:
		resp.Status, resp.Incarnation = codec.StatusFailed, numbersOf(err)
		if failed {
			resp.Text, resp.Owner = []byte(fill.Err.Error()), []byte(fill.Owner)
		}
	}
}

// isSmall reports whether news can be applied in the loop that reads the connection.
func isSmall(n *codec.News) bool {
	if n == nil || len(n.Bases) > 0 || len(n.Invalidations) > fewKeys {
		return n == nil
	}
	names := 0
	for i := range n.Invalidations {
		if names += len(n.Invalidations[i].Names); n.Invalidations[i].Scope == codec.ScopeAll {
			return false
		}
	}
	return names <= fewKeys
}

// relay passes an invalidation or a push on to a member that the sender cannot reach, and returns that member's
// answer.
func (h handler) relay(ctx context.Context, req *codec.Request, resp *codec.Response) {
	c := h.c
	own := *req
	own.Flags &^= codec.FlagRelay
	own.Target = nil
	to, ok := c.cfg.Cluster.View().Member(string(req.Target))
	switch {
	case string(req.Target) == c.self && req.Kind == codec.KindPush:
		h.push(&own, resp)
	case string(req.Target) == c.self:
		c.journal.ServeNews(&own, resp)
	case !ok:
		resp.Status, resp.Text = codec.StatusFailed, []byte("no such member in the view here")
		return
	default:
		var answer codec.Response
		if err := c.cfg.Cluster.Call(ctx, to, &own, &answer); err != nil {
			resp.Status, resp.Text = codec.StatusFailed, []byte(err.Error())
			return
		}
		*resp = codec.Response{Status: answer.Status, Incarnation: answer.Incarnation, Seq: answer.Seq, Text: slices.Clone(answer.Text), Value: slices.Clone(answer.Value)}
		for _, name := range answer.Members {
			resp.Members = append(resp.Members, slices.Clone(name))
		}
		answer.Release()
	}
	resp.Flags |= codec.FlagRelayed
}

// sync tells another member this node's positions and what that member lacks.
func (h handler) sync(req *codec.Request, resp *codec.Response) {
	c := h.c
	if c.life.isClosed() {
		resp.Status = codec.StatusClosed
		return
	}
	if req.View == c.cfg.Cluster.View().Fingerprint() {
		resp.Flags |= codec.FlagSameView | c.shareFlags()
	}
	c.journal.ServePositions(req, resp)
}

// PositionsDue names the members with which a new cache has not exchanged positions yet, and none once the cache is no
// longer new. A peer.Node is not ready while there are any.
func (h handler) PositionsDue() (names []string) {
	if h.c.life.isClosed() {
		return nil
	}
	return h.c.journal.Pending()
}

// Loads implements codec.LoadCounter.
func (h handler) Loads() (running int, longest time.Duration) {
	return h.c.gov.Running(), h.c.origin.o.Timeout
}

// Stats implements codec.Handler.
func (h handler) Stats() any { return h.c.allStats() }
