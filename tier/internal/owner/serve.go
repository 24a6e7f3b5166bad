package owner

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

// Handler answers other members' requests for a cache.
type Handler struct{ c *Owner }

// Handler returns the part of a codec.Handler that needs no public type.
func (c *Owner) Handler() Handler { return Handler{c} }

// fewKeys is the largest number of keys of an invalidation that the loop that reads the connection applies itself.
const fewKeys = 64

// TryServe implements codec.Handler: it answers from the owned tier without waiting.
func (h Handler) TryServe(req *codec.Request, resp *codec.Response) bool {
	c := h.c
	switch req.Kind {
	case codec.KindInvalidate:
		if req.Flags&codec.FlagRelay != 0 || !isSmall(req.News) {
			return false
		}
		h.c.Journal.ServeNews(req, resp)
		return true
	case codec.KindSync, codec.KindPush:
		return false
	case codec.KindGetMany:
		return h.tryMany(req, resp)
	case codec.KindPut:
		if c.Life.IsClosed() {
			resp.Status = codec.StatusClosed
		} else {
			h.put(req, resp)
		}
		return true
	}
	if c.Life.IsClosed() {
		resp.Status = codec.StatusClosed
		return true
	}
	key := stringOf(req.Key) // nothing below keeps it
	if err := CheckKey(key); err != nil {
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
	if h.note(req.Fence, key, hash) || c.Isolation.Cut.Load() || len(req.Chain) > 0 || req.Flags&codec.FlagDrill != 0 {
		return false
	}
	l := Lookup{Key: key, Hash: hash, MaxAge: maxAgeOf(req), Flags: req.Flags}
	if req.Flags&codec.FlagNoFill != 0 {
		f, err := c.getCached(&l)
		c.Stats.ServedPeers.Add(1)
		if err == nil && !h.Fill(c.Clock.Now(), req.Flags, req.Have, resp, &f, 0) {
			err = ErrNotCached
		}
		if err != nil {
			h.refuse(resp, err)
		}
		return true
	}
	now := c.Clock.Now() // once: reading the clock is among the most expensive parts of a hit
	hit, _, late := c.peek(now, &l)
	if hit == nil {
		return false
	}
	c.Stats.ServedPeers.Add(1)
	c.Reuse.Read(key, hash, hit)
	if err := hit.Err(); err != nil {
		h.refuse(resp, err)
		return true
	}
	return h.Fill(now, req.Flags, req.Have, resp, &Found{E: hit, Late: late, Why: hit.WhyStale(late)}, 0)
}

// Serve implements codec.Handler: it may wait for a fill.
func (h Handler) Serve(ctx context.Context, req *codec.Request, resp *codec.Response) {
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
		h.c.Journal.ServeNews(req, resp)
		return
	case req.Flags&codec.FlagPrevious != 0:
		h.servePrevious(ctx, req, resp)
		return
	}
	began := c.Clock.Now()
	key := strings.Clone(stringOf(req.Key))
	hash := ring.Hash(key)
	if !h.answersFor(req, hash, resp) {
		return
	}
	h.note(req.Fence, key, hash)
	ctx, end := c.serveTraced(ctx, req)
	defer func() { end(resp) }()
	c.Stats.ServedPeers.Add(1)
	l := Lookup{Key: key, Hash: hash, MaxAge: maxAgeOf(req), Chain: req.Chain, Flags: req.Flags}
	for range MaxAgain + 1 {
		f, err := c.GetOwnedFor(ctx, &l)
		if err != nil {
			h.refuse(resp, err)
			return
		}
		now := c.Clock.Now()
		if h.Fill(now, req.Flags, req.Have, resp, &f, time.Duration(now-began)) {
			return
		}
	}
	h.refuse(resp, c.fillError(key, ErrExpired))
}

// answersFor reports whether this node answers for the key. If not, resp names the owner.
func (h Handler) answersFor(req *codec.Request, hash uint64, resp *codec.Response) bool {
	view := h.c.Config.Cluster.View()
	same := req.View == view.Fingerprint()
	if same { // so the caller is in this view and is informed of later invalidations
		resp.Flags |= codec.FlagSameView
	}
	if req.Flags&codec.FlagSuccessor != 0 || same {
		return true // in the caller's view, which is this one, the key is this node's
	}
	owner := view.OwnerOf(view.PartitionOf(hash))
	if owner.Name == h.c.Self {
		return true
	}
	if h.c.Leaving.Load() || !contains(view, h.c.Self) { // this node leaves, and the new owner may not know yet that it owns the key
		now := h.c.Clock.Now()
		if e := h.c.Valid(stringOf(req.Key), hash, now); e != nil && now < e.Soft && e.Flags&store.Failed == 0 && !e.Replica {
			return true
		}
	}
	resp.Status, resp.View, resp.Owner = codec.StatusMoved, view.Fingerprint(), []byte(owner.Name)
	return false
}

// note applies the mark that a request for the key carries. It reports whether there was one that this node had not
// applied.
func (h Handler) note(mark codec.Mark, key string, hash uint64) (applied bool) {
	return mark.Seq != 0 && h.c.Note(key, hash, mark, 0)
}

func maxAgeOf(req *codec.Request) time.Duration {
	if req.Flags&codec.FlagMaxAge == 0 {
		return AnyAge
	}
	return req.MaxAge
}

// refuse answers a request without a value. The response says why, in a form that keeps the error's identity.
func (h Handler) refuse(resp *codec.Response, err error) {
	resp.Owner, resp.Text = []byte(h.c.Self), []byte(err.Error())
	owner, reason, failed := h.c.Config.Errors.AsFailed(err)
	over, refused := h.c.Config.Errors.AsRefused(err)
	switch {
	case refused:
		resp.Status, resp.RetryAfter, resp.Text = codec.StatusOverloaded, over.RetryAfter, []byte(over.Text)
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
			resp.Text, resp.Owner = []byte(reason.Error()), []byte(owner)
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
func (h Handler) relay(ctx context.Context, req *codec.Request, resp *codec.Response) {
	c := h.c
	own := *req
	own.Flags &^= codec.FlagRelay
	own.Target = nil
	to, ok := c.Config.Cluster.View().Member(string(req.Target))
	switch {
	case string(req.Target) == c.Self && req.Kind == codec.KindPush:
		h.push(&own, resp)
	case string(req.Target) == c.Self:
		c.Journal.ServeNews(&own, resp)
	case !ok:
		resp.Status, resp.Text = codec.StatusFailed, []byte("no such member in the view here")
		return
	default:
		var answer codec.Response
		if err := c.Config.Cluster.Call(ctx, to, &own, &answer); err != nil {
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
func (h Handler) sync(req *codec.Request, resp *codec.Response) {
	c := h.c
	if c.Life.IsClosed() {
		resp.Status = codec.StatusClosed
		return
	}
	if req.View == c.Config.Cluster.View().Fingerprint() {
		resp.Flags |= codec.FlagSameView | c.shareFlags()
	}
	c.Journal.ServePositions(req, resp)
}

// PositionsDue names the members with which a new cache has not exchanged positions yet, and none once the cache is no
// longer new. A peer.Node is not ready while there are any.
func (h Handler) PositionsDue() (names []string) {
	if h.c.Life.IsClosed() {
		return nil
	}
	return h.c.Journal.Pending()
}

// Loads implements codec.LoadCounter.
func (h Handler) Loads() (running int, longest time.Duration) {
	return h.c.Governor.Running(), h.c.Config.Origin.Timeout
}
