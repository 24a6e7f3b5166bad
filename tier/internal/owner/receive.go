package owner

import (
	"math/rand/v2"
	"sync"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/store"
)

// The receiving half of handoff.go.

// tokens are the tokens that a receiver has issued.
type tokens struct {
	mu    sync.Mutex // guards the rest
	given map[uint64]issued
	order []uint64
}

// issued is what a token stands for.
type issued struct {
	applied *journal.Watermark // by this node, when it issued the token
	at      int64              // ns on the cache's clock
}

// issue returns a token for a pusher that has applied what w says.
func (t *tokens) issue(w *journal.Watermark, now int64) (token uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.given == nil {
		t.given = make(map[uint64]issued)
	}
	if len(t.order) == maxTokens {
		delete(t.given, t.order[0])
		t.order = t.order[1:]
	}
	token = rand.Uint64() | 1
	t.given[token] = issued{w, now}
	t.order = append(t.order, token)
	return token
}

func (t *tokens) find(token uint64) (issued, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.given[token]
	return k, ok
}

// push receives another member's copies.
func (h Handler) push(req *codec.Request, resp *codec.Response) {
	c := h.c
	resp.Incarnation = c.Journal.Incarnation()
	switch {
	case c.Life.IsClosed(), c.Leaving.Load(): // nobody would get what it took now
		resp.Status = codec.StatusClosed
		return
	case c.Config.Schema != req.Schema:
		resp.Status = codec.StatusMismatch
		return
	}
	if k, ok := c.tokens.find(req.Token); ok {
		for i := range req.Pushed {
			c.receiveCopy(&req.Pushed[i], k, req.Flags&codec.FlagSuccessor != 0)
		}
	}
	resp.Status = codec.StatusDone
	if c.Journal.IsOpening() || !c.Journal.IsAcquainted() || req.News == nil {
		return
	}
	now := c.Clock.Now()
	lacks, applied := c.Journal.Missing(req.News)
	if lacks != nil {
		resp.Status, resp.Value = codec.StatusSynced, codec.AppendNews(nil, lacks)
		return
	}
	resp.Seq = c.tokens.issue(applied, now)
}

// receiveCopy keeps a copy that came with a token, if it may. spare: the copy is a replica, for use if its owner is
// lost.
func (c *Owner) receiveCopy(p *codec.Pushed, token issued, spare bool) {
	key := string(p.Key)
	if CheckKey(key) != nil {
		return
	}
	hash, k := ring.Hash(key), token.applied
	e := &store.Entry{
		Stamp: k.StampOf(hash), Version: p.Version, Handed: true, Cost: p.Cost,
		Loaded: token.at - int64(p.Age), Soft: token.at + int64(p.Soft), Hard: token.at + int64(p.Hard),
		Tags: fence.TagsAt(append([]uint32(nil), p.Tags...), k.Tags),
	}
	if p.NotFound {
		e.Flags, e.SWR = store.NotFound, e.Soft
	} else {
		e.Value = append([]byte(nil), p.Value...)
		e.SWR = min(e.Soft+int64(c.Config.Freshness.StaleWhileRevalidate), e.Hard)
	}
	kept, refused := &c.Stats.PushesKept, &c.Stats.PushesRefused
	if spare {
		kept, refused = &c.Stats.ReplicasKept, &c.Stats.ReplicasRefused
		e.Replica = c.Config.Cluster.View().Owner(key).Name != c.Self
		if e.Replica && !c.roomFor(key, e) {
			refused.Add(1)
			return
		}
	}
	if c.KeepGiven(key, hash, e, fence.Claim{Stamp: e.Stamp, Began: token.at, Handed: true, Pushed: k.Fences()}) != e {
		refused.Add(1)
		return
	}
	for range p.Heat { // so that later pushes do not evict it
		c.Owned.Get(key)
	}
	kept.Add(1)
}
