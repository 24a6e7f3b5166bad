package tier

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

// ownedRead is one key of a multi-get that this node owns, and what this node has for it.
type ownedRead struct {
	key  string
	hash uint64

	f   found
	err error
	at  int64 // when the owner found the answer

	// of a key that has to be loaded
	fl  *flight
	cl  governor.Class
	why placement.Cause
	e   *store.Entry // the present copy, nil: none
	// started: fl was started for it.
	started bool
}

// lookUp answers w without waiting, and returns false if w has to be loaded. now may be a moment old.
func (c *core) lookUp(w *ownedRead, chain []uint64, now int64) bool {
	if len(chain) > 0 && (len(chain) >= codec.MaxChain || slices.Contains(chain, c.chainID(w.hash))) {
		w.err = ErrCycle
		return true
	}
	w.at = now
	hit, e, late := c.peek(now, &lookup{key: w.key, hash: w.hash, maxAge: AnyAge, chain: chain})
	if hit != nil {
		c.reuse.Read(w.key, w.hash, hit)
		if w.err = hit.Err(); w.err == nil {
			w.f = found{e: hit, late: late, why: hit.WhyStale(late)}
		}
		return true
	}
	w.e = e
	return false
}

// load loads what ws need and waits for each load until ctx ends.
func (c *core) load(ctx context.Context, ws []*ownedRead, chain []uint64) {
	if len(ws) == 0 {
		return
	}
	began, wide := c.clock.Now(), c.fences.TagClock()
	c.joinFlights(ctx, ws, chain)
	c.awaitFlights(ctx, ws, chain, wide, began)
}

// awaitFlights waits for the flights that ws have joined. The reads began at began, when the tag clock was wide.
func (c *core) awaitFlights(ctx context.Context, ws []*ownedRead, chain []uint64, wide uint64, began int64) {
	for _, w := range ws {
		if w.fl == nil {
			continue
		}
		r := joining{lookup: lookup{key: w.key, hash: w.hash, chain: chain, maxAge: AnyAge}, class: w.cl, cause: w.why, prev: w.e, wide: wide, began: began}
		w.f, w.err = c.awaitFlight(ctx, &r, w.fl, w.started)
		w.at, w.fl = c.clock.Now(), nil
		if w.err == nil && w.f.filled {
			w.at = min(max(began, w.f.e.Loaded+int64(w.f.e.Cost)), w.at)
		}
	}
}

// joinFlights joins the flights of ws and starts the missing ones together. It keeps the class w.cl of a caller if that is
// less urgent than the one of a miss or a stale copy.
func (c *core) joinFlights(ctx context.Context, ws []*ownedRead, chain []uint64) {
	var started [governor.Classes][]*flight
	until, from := c.patience(ctx), c.traceOf(ctx)
	for _, w := range ws {
		c.reuse.Read(w.key, w.hash, w.e)
		if w.cl = max(w.cl, governor.Miss); w.e != nil {
			w.cl = max(w.cl, governor.Stale)
		}
		if w.why = placement.Expired; w.e == nil {
			w.why = c.whyMissing(w.key, w.hash, false)
		}
		if !c.life.begin() {
			w.err = ErrClosed
			continue
		}
		fl, fresh := c.flights.join(w.hash, w.key, true, nil, func() *flight {
			return &flight{
				key: strings.Clone(w.key), hash: w.hash, cause: w.why, prev: w.e, from: from,
				chain: append(chain[:len(chain):len(chain)], c.chainID(w.hash)),
				done:  make(chan struct{}), ticket: governor.Ticket{Class: w.cl, Depth: depthOf(chain, until), Until: c.govTime(until)},
			}
		})
		if fresh {
			w.fl, w.started = fl, true
			started[w.cl] = append(started[w.cl], fl)
			continue
		}
		c.life.end()
		if w.err = c.countJoined(fl, w.cl, chain, until); w.err == nil {
			w.fl = fl
		}
	}
	for cl, flights := range started {
		if len(flights) > 0 {
			c.startFlights(flights, governor.Class(cl), chain)
		}
	}
}

// pendingReads is the reads of own keys that have to be loaded. Their loads have begun.
type pendingReads[V any] struct {
	ws    []*ownedRead
	reads []*keyRead[V]
	wide  uint64
	began int64
}

// seekOwn answers the reads of own keys that need no waiting. It returns the others, nil if there are none.
func (c *Cache[V]) seekOwn(ctx context.Context, m *multiGet[V], reads []*keyRead[V]) (rest *pendingReads[V]) {
	var now int64
	for i, r := range reads {
		if i%clockEvery == 0 {
			now = c.clock.Now()
		}
		w := ownedRead{key: r.key, hash: r.hash}
		if c.lookUp(&w, m.chain, now) {
			c.gotOwn(m, r, &w, now)
			continue
		}
		if rest == nil {
			rest = new(pendingReads[V])
		}
		own := w // only the ones that must wait move to the heap
		rest.ws, rest.reads = append(rest.ws, &own), append(rest.reads, r)
	}
	if rest != nil {
		rest.began, rest.wide = c.clock.Now(), c.fences.TagClock()
		c.joinFlights(ctx, rest.ws, m.chain)
	}
	return rest
}

// awaitOwn answers the reads that seekOwn returned.
func (c *Cache[V]) awaitOwn(ctx context.Context, m *multiGet[V], rest *pendingReads[V]) {
	over := governor.NestingOf(ctx).Around(func() error {
		c.awaitFlights(ctx, rest.ws, m.chain, rest.wide, rest.began)
		return nil
	})
	if over != nil {
		for _, w := range rest.ws {
			w.err = over
		}
	}
	for i, w := range rest.ws {
		c.gotOwn(m, rest.reads[i], w, c.clock.Now())
	}
}

func (c *Cache[V]) gotOwn(m *multiGet[V], r *keyRead[V], w *ownedRead, now int64) {
	var a answer[V]
	err := w.err
	if m.warming && err == nil {
		a.source, a.notFound = SourceOwned, w.f.e.Flags&store.NotFound != 0
		if w.f.filled {
			a.source = SourceFill
		}
	} else if err == nil {
		if err = c.answerTo(now, w.key, &w.f, m.began, &a); isUndecodable(err) {
			m.single(r) // a single read loads it again
			return
		}
	}
	c.got(m, r, &a, err, now)
}

// tryMany answers a multi-get of a member without waiting, or returns false.
func (h handler) tryMany(req *codec.Request, resp *codec.Response) bool {
	if h.c.life.isClosed() {
		resp.Status = codec.StatusClosed
		return true
	}
	if req.Mode != codec.ModeLook || len(req.Many) > manyAtOnce || len(req.Chain) > 0 || h.c.isolation.Cut.Load() {
		return false
	}
	h.lookMany(req, resp)
	return true
}

// lookMany answers what this node has, and reports the keys that it would have to load as pending.
func (h handler) lookMany(req *codec.Request, resp *codec.Response) {
	v := h.viewOf(req)
	parts := codec.NewAnswers(len(req.Many))
	var part codec.Response
	now, served := v.began, 0
	for i := range req.Many {
		if i%clockEvery == clockEvery-1 {
			now = h.c.clock.Now()
		}
		want := &req.Many[i]
		part = codec.Response{}
		key := stringOf(want.Key) // nothing below keeps it
		hash := ring.Hash(key)
		if h.accepts(v, want, key, hash, &part) {
			w := ownedRead{key: key, hash: hash}
			if h.c.lookUp(&w, nil, now) {
				h.part(want, &w, v, req.Mode, &part, now)
				served++
			} else {
				part.Status = codec.StatusPending
			}
		}
		parts.Add(&part)
	}
	addTo(&h.c.stats.ServedPeers, int64(served))
	resp.Status, resp.Many = codec.StatusMany, parts
}

// serveMany answers a multi-get of a member and may wait.
func (h handler) serveMany(ctx context.Context, req *codec.Request, resp *codec.Response) {
	c := h.c
	if c.isolation.Cut.Load() {
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
	all := make([]*ownedRead, len(req.Many)) // nil: refused
	refused := make(map[int]codec.Response)
	var missing []*ownedRead
	for i := range req.Many {
		want := &req.Many[i]
		key := strings.Clone(stringOf(want.Key))
		hash := ring.Hash(key)
		var part codec.Response
		if !h.accepts(v, want, key, hash, &part) {
			refused[i] = part
			continue
		}
		all[i] = &ownedRead{key: key, hash: hash}
		if !c.lookUp(all[i], req.Chain, c.clock.Now()) {
			missing = append(missing, all[i])
		}
	}
	if req.Mode == codec.ModeWarm {
		c.warmOwn(ctx, missing, req.Chain)
	} else {
		c.load(ctx, missing, req.Chain)
	}
	parts := codec.NewAnswers(len(all))
	served := 0
	for i, w := range all {
		part := refused[i]
		if w != nil && w.err == ErrNotWarmed {
			part.Status = codec.StatusPending
		} else if w != nil {
			h.part(&req.Many[i], w, v, req.Mode, &part, c.clock.Now())
			served++
		}
		parts.Add(&part)
	}
	addTo(&c.stats.ServedPeers, int64(served))
	resp.Status, resp.Many = codec.StatusMany, parts
}

// multiGetState is the state when a multi-get of a member arrived.
type multiGetState struct {
	view  *ring.View
	same  bool // the asking member had the same view
	began int64
}

func (h handler) viewOf(req *codec.Request) multiGetState {
	view := h.c.cfg.Cluster.View()
	return multiGetState{view, req.View == view.Fingerprint(), h.c.clock.Now()}
}

// accepts reports whether this node answers for the key; it has then applied the fence that came with the key.
// Otherwise part says why not.
func (h handler) accepts(v multiGetState, want *codec.Wanted, key string, hash uint64, part *codec.Response) bool {
	if err := checkKey(key); err != nil {
		h.refuse(part, err)
		return false
	}
	if !v.same {
		if owner := v.view.OwnerOf(v.view.PartitionOf(hash)); owner.Name != h.c.self {
			part.Status, part.View, part.Owner = codec.StatusMoved, v.view.Fingerprint(), []byte(owner.Name)
			return false
		}
	}
	h.note(want.Fence, key, hash)
	return true
}

// part fills in the part for w, with its times as they were when the answer was found. now may be a moment old.
func (h handler) part(want *codec.Wanted, w *ownedRead, v multiGetState, mode codec.Mode, part *codec.Response, now int64) {
	if v.same {
		part.Flags |= codec.FlagSameView
	}
	if w.err != nil {
		h.refuse(part, w.err)
		return
	}
	flags, have := uint8(0), want.Have
	if mode == codec.ModeWarm {
		have = w.f.e.Etag
	}
	if have != 0 || mode == codec.ModeWarm {
		flags = codec.FlagHave
	}
	at := max(w.at, v.began)
	since := time.Duration(max(now-at, 0))
	if !h.fill(now, flags, have, part, &w.f, time.Duration(at-v.began)) {
		part.Status = codec.StatusPending // the member asks again, for this key alone if needed
		return
	}
	part.Age, part.Soft, part.Hard = max(part.Age-since, 0), part.Soft+since, part.Hard+since
}
