package owner

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

const (
	// manyAtOnce is how many keys of a multi-get are looked up in the loop that reads the connection.
	manyAtOnce = 256
	// A multi-get that waits for loads is answered early, by this share of its time and by earlyMost at most, so that
	// the deadline does not lose what has been loaded together with the rest.
	earlyShare = 8
	earlyMost  = 50 * time.Millisecond
)

// OwnedRead is one key of a multi-get that this node owns, and what this node has for it.
type OwnedRead struct {
	Key  string
	Hash uint64

	F   Found
	Err error
	At  int64 // when the owner found the answer

	// of a key that has to be loaded
	fl  *Flight
	cl  governor.Class
	why placement.Cause
	e   *store.Entry // the present copy, nil: none
	// started: fl was started for it.
	started bool
}

// LookUp answers w without waiting, and returns false if w has to be loaded. now may be a moment old.
func (c *Owner) LookUp(w *OwnedRead, chain []uint64, now int64) bool {
	if len(chain) > 0 && (len(chain) >= codec.MaxChain || slices.Contains(chain, c.chainID(w.Hash))) {
		w.Err = ErrCycle
		return true
	}
	w.At = now
	hit, e, late := c.peek(now, &Lookup{Key: w.Key, Hash: w.Hash, MaxAge: AnyAge, Chain: chain})
	if hit != nil {
		c.Reuse.Read(w.Key, w.Hash, hit)
		if w.Err = hit.Err(); w.Err == nil {
			w.F = Found{E: hit, Late: late, Why: hit.WhyStale(late)}
		}
		return true
	}
	w.e = e
	return false
}

// load loads what ws need and waits for each load until ctx ends.
func (c *Owner) load(ctx context.Context, ws []*OwnedRead, chain []uint64) {
	if len(ws) == 0 {
		return
	}
	began, wide := c.Clock.Now(), c.Fences.TagClock()
	c.JoinFlights(ctx, ws, chain)
	c.AwaitFlights(ctx, ws, chain, wide, began)
}

// AwaitFlights waits for the flights that ws have joined. The reads began at began, when the tag clock was wide.
func (c *Owner) AwaitFlights(ctx context.Context, ws []*OwnedRead, chain []uint64, wide uint64, began int64) {
	for _, w := range ws {
		if w.fl == nil {
			continue
		}
		r := Joining{Lookup: Lookup{Key: w.Key, Hash: w.Hash, Chain: chain, MaxAge: AnyAge}, Class: w.cl, Cause: w.why, prev: w.e, wide: wide, began: began}
		w.F, w.Err = c.awaitFlight(ctx, &r, w.fl, w.started)
		w.At, w.fl = c.Clock.Now(), nil
		if w.Err == nil && w.F.Filled {
			w.At = min(max(began, w.F.E.Loaded+int64(w.F.E.Cost)), w.At)
		}
	}
}

// JoinFlights joins the flights of ws and starts the missing ones together. It keeps the class w.cl of a caller if that is
// less urgent than the one of a miss or a stale copy.
func (c *Owner) JoinFlights(ctx context.Context, ws []*OwnedRead, chain []uint64) {
	var started [governor.Classes][]*Flight
	until, from := c.patience(ctx), c.traceOf(ctx)
	for _, w := range ws {
		c.Reuse.Read(w.Key, w.Hash, w.e)
		if w.cl = max(w.cl, governor.Miss); w.e != nil {
			w.cl = max(w.cl, governor.Stale)
		}
		if w.why = placement.Expired; w.e == nil {
			w.why = c.whyMissing(w.Key, w.Hash, false)
		}
		if !c.Life.Begin() {
			w.Err = ErrClosed
			continue
		}
		fl, fresh := c.Flights.Join(w.Hash, w.Key, true, nil, func() *Flight {
			return &Flight{
				Key: strings.Clone(w.Key), Hash: w.Hash, cause: w.why, prev: w.e, from: from,
				chain: append(chain[:len(chain):len(chain)], c.chainID(w.Hash)),
				Done:  make(chan struct{}), ticket: governor.Ticket{Class: w.cl, Depth: depthOf(chain, until), Until: c.govTime(until)},
			}
		})
		if fresh {
			w.fl, w.started = fl, true
			started[w.cl] = append(started[w.cl], fl)
			continue
		}
		c.Life.End()
		if w.Err = c.countJoined(fl, w.cl, chain, until); w.Err == nil {
			w.fl = fl
		}
	}
	for cl, flights := range started {
		if len(flights) > 0 {
			c.startFlights(flights, governor.Class(cl), chain)
		}
	}
}

// tryMany answers a multi-get of a member without waiting, or returns false.
func (h Handler) tryMany(req *codec.Request, resp *codec.Response) bool {
	if h.c.Life.IsClosed() {
		resp.Status = codec.StatusClosed
		return true
	}
	if req.Mode != codec.ModeLook || len(req.Many) > manyAtOnce || len(req.Chain) > 0 || h.c.Isolation.Cut.Load() {
		return false
	}
	h.lookMany(req, resp)
	return true
}

// lookMany answers what this node has, and reports the keys that it would have to load as pending.
func (h Handler) lookMany(req *codec.Request, resp *codec.Response) {
	v := h.viewOf(req)
	parts := codec.NewAnswers(len(req.Many))
	var part codec.Response
	now, served := v.Began, 0
	for i := range req.Many {
		if i%ClockEvery == ClockEvery-1 {
			now = h.c.Clock.Now()
		}
		want := &req.Many[i]
		part = codec.Response{}
		key := stringOf(want.Key) // nothing below keeps it
		hash := ring.Hash(key)
		if h.accepts(v, want, key, hash, &part) {
			w := OwnedRead{Key: key, Hash: hash}
			if h.c.LookUp(&w, nil, now) {
				h.Part(want, &w, v, req.Mode, &part, now)
				served++
			} else {
				part.Status = codec.StatusPending
			}
		}
		parts.Add(&part)
	}
	AddTo(&h.c.Stats.ServedPeers, int64(served))
	resp.Status, resp.Many = codec.StatusMany, parts
}

// serveMany answers a multi-get of a member and may wait.
func (h Handler) serveMany(ctx context.Context, req *codec.Request, resp *codec.Response) {
	c := h.c
	if c.Isolation.Cut.Load() {
		resp.Status = codec.StatusIsolated // the member then reads each key on its own, if at all
		return
	}
	if req.Mode == codec.ModeLook && len(req.Chain) == 0 {
		h.lookMany(req, resp)
		return
	}
	if deadline, ok := ctx.Deadline(); ok {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/earlyShare, earlyMost)))
		defer stop()
	}
	v := h.viewOf(req)
	all := make([]*OwnedRead, len(req.Many)) // nil: refused
	refused := make(map[int]codec.Response)
	var missing []*OwnedRead
	for i := range req.Many {
		want := &req.Many[i]
		key := strings.Clone(stringOf(want.Key))
		hash := ring.Hash(key)
		var part codec.Response
		if !h.accepts(v, want, key, hash, &part) {
			refused[i] = part
			continue
		}
		all[i] = &OwnedRead{Key: key, Hash: hash}
		if !c.LookUp(all[i], req.Chain, c.Clock.Now()) {
			missing = append(missing, all[i])
		}
	}
	if req.Mode == codec.ModeWarm {
		c.WarmOwn(ctx, missing, req.Chain)
	} else {
		c.load(ctx, missing, req.Chain)
	}
	parts := codec.NewAnswers(len(all))
	served := 0
	for i, w := range all {
		part := refused[i]
		if w != nil && w.Err == ErrNotWarmed {
			part.Status = codec.StatusPending
		} else if w != nil {
			h.Part(&req.Many[i], w, v, req.Mode, &part, c.Clock.Now())
			served++
		}
		parts.Add(&part)
	}
	AddTo(&c.Stats.ServedPeers, int64(served))
	resp.Status, resp.Many = codec.StatusMany, parts
}

// MultiGetState is the state when a multi-get of a member arrived.
type MultiGetState struct {
	view  *ring.View
	same  bool // the asking member had the same view
	Began int64
}

func (h Handler) viewOf(req *codec.Request) MultiGetState {
	view := h.c.Config.Cluster.View()
	return MultiGetState{view, req.View == view.Fingerprint(), h.c.Clock.Now()}
}

// accepts reports whether this node answers for the key; it has then applied the fence that came with the key.
// Otherwise part says why not.
func (h Handler) accepts(v MultiGetState, want *codec.Wanted, key string, hash uint64, part *codec.Response) bool {
	if err := CheckKey(key); err != nil {
		h.refuse(part, err)
		return false
	}
	if !v.same {
		if owner := v.view.OwnerOf(v.view.PartitionOf(hash)); owner.Name != h.c.Self {
			part.Status, part.View, part.Owner = codec.StatusMoved, v.view.Fingerprint(), []byte(owner.Name)
			return false
		}
	}
	h.note(want.Fence, key, hash)
	return true
}

// Part fills in the part for w, with its times as they were when the answer was found. now may be a moment old.
func (h Handler) Part(want *codec.Wanted, w *OwnedRead, v MultiGetState, mode codec.Mode, part *codec.Response, now int64) {
	if v.same {
		part.Flags |= codec.FlagSameView
	}
	if w.Err != nil {
		h.refuse(part, w.Err)
		return
	}
	flags, have := uint8(0), want.Have
	if mode == codec.ModeWarm {
		have = w.F.E.Etag
	}
	if have != 0 || mode == codec.ModeWarm {
		flags = codec.FlagHave
	}
	at := max(w.At, v.Began)
	since := time.Duration(max(now-at, 0))
	if !h.Fill(now, flags, have, part, &w.F, time.Duration(at-v.Began)) {
		part.Status = codec.StatusPending // the member asks again, for this key alone if needed
		return
	}
	part.Age, part.Soft, part.Hard = max(part.Age-since, 0), part.Soft+since, part.Hard+since
}
