package owner

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// When a partition has moved, a flight first asks the key's previous owner. The previous owner loads nothing for it:
// it gives its copy, fresh or stale, or the result of a fill that is in progress there.
//
// If the previous owner was lost, another member stood in for it until the view changed. With zones the stand-in
// owner need not be this node. So for a minute the flight asks it first, in the same way. The stand-in owner keeps
// what it filled for a short time only, but gives it away with its full lifetime.
//
// # Why the copy may be kept here
//
// The rule is that no invalidation that covers the copy was applied here after its load began. The fence clocks are
// read before the request is sent, and that moment counts as the start of the load.
//
//   - An invalidation applied here later is above those clocks: the copy is not committed, or not served.
//   - An invalidation applied here earlier must have been applied at the previous owner before it looked. As with any
//     other request (see debt in fence.go), that follows from what the owner is known to have applied, from the mark
//     that the request carries, or from an exchange.
//   - An invalidation that is never applied here was started by a member that does not know this node, and that knows
//     no member which does. A copy is kept only if there can be no such invalidation. Either the giver has the same
//     view as this node and is in that view, so every member that informs the giver learns of this node. Or every
//     member that this node sees has had the same view as this node at least once since this node started
//     (journal.IsAcquainted), or this node started long enough ago to rule it out (journal.IsNew). Otherwise only the caller that
//     started the flight gets the answer.
//
// A copy older than one that this node has loaded itself and lost since is rejected, because callers have seen the
// newer one.
//
// Other members that ask this node do not wait for a flight that is still asking. So two members that each believe
// that the other is the previous owner do not wait for each other.

// PreviousWait is how long a flight waits for a previous owner, except for a fill that runs there.
const PreviousWait = 150 * time.Millisecond

// getFromPrevious asks the key's previous owner on behalf of a flight that has not begun to load. It returns true if that
// ends the flight.
func (c *Owner) getFromPrevious(f *Flight) (over bool) {
	defer func() { f.loads.Store(!over) }()
	switch {
	case c.Config.Cluster == nil || f.prev != nil && f.prev.Handed:
		return false
	case f.cause == placement.RefreshAhead || f.cause == placement.Drill || f.cause == placement.CutOff:
		return false
	}
	c.views.Observe(c.Config.Cluster.View(), c.Clock.Now())
	p := c.views.Previous(f.Key, f.Hash, c.Clock.Now())
	if f.cause == placement.Cold { // as far as this node knows
		switch {
		case p.Lost || p.Found() && !p.InView:
			f.cause = placement.OwnerLost
		case p.Found():
			f.cause = placement.Moved
		}
	}
	if p.Found() && !p.InView && c.lost(p.To.Name) {
		// The stand-in owner, which with zones need not be this node, has loaded what was read since.
		if s := c.views.StandIn(f.Hash, c.Clock.Now()); s.Found() && !s.Pause {
			if over, _ := c.getFrom(f, s); over {
				return true
			}
		}
	}
	over, none := false, !p.Found() && !p.Lost
	if p.Found() && !p.Pause {
		over, none = c.getFrom(f, p)
	}
	if none { // that member may have started together with this node: the owner before it has the copy
		if o := c.views.Older(f.Hash, c.Clock.Now()); o.Found() && !o.Pause && o.To.Name != p.To.Name {
			if f.cause == placement.Cold {
				f.cause = placement.Moved
			}
			over, none = c.getFrom(f, o)
		}
	}
	if none && (f.cause == placement.Moved || f.cause == placement.OwnerLost && !f.short) {
		f.cause = placement.Cold // the previous owner had no copy either
	}
	return over
}

// lost reports whether a member that has gone from the view left without a drain.
func (c *Owner) lost(name string) bool {
	l, ok := c.Config.Cluster.(LossReporter)
	return !ok || l.Lost(name)
}

// getFrom is getFromPrevious for one member. none is true if that member answered that it has no copy.
func (c *Owner) getFrom(f *Flight, p placement.Candidate) (over, none bool) {
	c.Stats.PreviousAsked.Add(1)
	isOpen := c.Journal.WaitOpen(c.Ctx)
	e, keep, err := c.callPrevious(f, p.To, p.InView, isOpen, codec.FlagPrevious, PreviousWait)
	if err == errFilling {
		e, keep, err = c.callPrevious(f, p.To, p.InView, isOpen, codec.FlagPrevious|codec.FlagJoin, c.Config.Origin.Timeout)
	}
	switch {
	case errors.Is(err, errGiverUnsure):
		return false, false
	case err != nil && !errors.Is(err, ErrNotCached):
		c.Config.Logger.Debug("previous owner did not answer", "namespace", c.Config.Namespace, "member", p.To.Name, "err", err)
		c.views.Failed(p, c.Clock.Now())
		return false, false
	}
	c.views.Answered(p, e != nil)
	if e == nil {
		return false, true
	}
	if c.Loads.Newer(f.Hash, e.Loaded, int64(PreviousWait)) {
		return false, false
	}
	now := c.Clock.Now()
	if f.short {
		c.standIn(e, now)
	}
	if keep {
		if e = c.KeepGiven(f.Key, f.Hash, e, fence.Claim{Stamp: e.Stamp, Began: now, Handed: true}); e == nil {
			return false, false
		}
	}
	c.Stats.PreviousHits.Add(1)
	if f.prev != nil && e.Loaded <= f.prev.Loaded { // the flight needs a newer copy
		return false, false
	}
	if now >= e.SWR {
		if keep { // as a fallback
			f.prev = e
		}
		return false, false
	}
	f.Res.Private = !keep
	if c.Flights.Skip(f, e, c.StillValid(f)) {
		return true, false
	}
	f.Res.Private = false
	return false, false
}

// KeepGiven commits a copy that another member gave and returns it. If this node has a later copy, KeepGiven returns
// that one. It returns nil if the copy may not be kept.
func (c *Owner) KeepGiven(key string, hash uint64, e *store.Entry, by fence.Claim) (kept *store.Entry) {
	now := c.Clock.Now()
	if now >= e.Hard || len(e.Value) > c.Config.ValueLimit || c.Fences.Tagged(e.Tags) || e.Version != 0 && c.Fences.Behind(key, hash, e.Version) {
		return nil
	}
	if c.Loads.Newer(hash, e.Loaded, int64(PreviousWait)) {
		return nil
	}
	if old := c.Valid(key, hash, now); old != nil && old.Flags&store.Failed == 0 && old.Loaded >= e.Loaded {
		return old
	}
	c.Journal.StoredLife(e.Hard - e.Loaded)
	e.Etag = c.etag(e)
	if !c.Fences.Commit(key, hash, by, func() {
		if old, ok := c.Owned.Get(key); ok && old.Flags&store.Failed == 0 && old.Stamp >= e.Stamp && old.Loaded > e.Loaded {
			kept = old
			return
		}
		kept = e
		c.Owned.Set(key, e)
	}) {
		return nil
	}
	return kept
}

// errFilling says that the previous owner is filling the key.
var errFilling = errors.New("weir: a fill is in progress")

// errGiverUnsure says that some invalidations of the key cannot be passed on, which makes the previous owner's copy
// worthless.
var errGiverUnsure = errors.New("weir: the key was invalidated too often")

// callPrevious asks a member for its copy of f's key and waits at most wait. keep is true if the copy may be kept and
// given to later callers. The error is ErrNotCached if the member has no copy, errFilling if a fill of the key runs
// there, and errGiverUnsure if asking is pointless.
func (c *Owner) callPrevious(f *Flight, to ring.Member, inView, isOpen bool, flags uint8, wait time.Duration) (e *store.Entry, keep bool, err error) {
	m := c.memberOf(to, inView)
	if m == nil {
		return nil, false, journal.ErrGone
	}
	ctx, cancel := context.WithTimeout(c.Ctx, wait)
	defer cancel()
	q := codec.Request{Kind: codec.KindGet, Flags: flags, Namespace: c.NamespaceBytes, Schema: c.Config.Schema, Key: BytesOf(f.Key), Timeout: wait}
	applied := uint64(0) // the tag clock up to which the member must have applied everything
	for range 2 * MaxAgain {
		began, stamp, wide := c.Clock.Now(), c.Fences.Stamp(f.Hash), c.Fences.TagClock()
		var k *journal.Watermark
		var d fence.Debt
		if k, d, err = c.Journal.Ready(ctx, m, journal.Need{Key: f.Key, Hash: f.Hash, Stamp: math.MaxUint64, Tags: applied}); err != nil {
			if err == journal.ErrAnswer {
				err = errGiverUnsure
			}
			return nil, false, err
		}
		q.Fence = d.Mark
		var resp codec.Response
		q.View = c.Config.Cluster.View().Fingerprint()
		if err := c.Config.Cluster.Call(ctx, to, &q, &resp); err != nil {
			return nil, false, err
		}
		if resp.Flags&codec.FlagSameView != 0 {
			c.Journal.SameView(m)
		}
		switch resp.Status {
		case codec.StatusValue, codec.StatusNotFound:
			if resp.Incarnation != k.Incarnation {
				c.Journal.Forget(m, k)
				break
			}
			if q.Fence.Seq != 0 {
				c.Fences.MarkTold(f.Key, f.Hash, q.Fence, resp.Incarnation)
			}
			if d.Duty == fence.AskAgain {
				break
			}
			if resp.Flags&codec.FlagTagged != 0 && k.Tags < wide && c.Fences.After(resp.Tags, k.Tags) {
				applied = wide
				break
			}
			e = c.given(&resp, min(began+int64(resp.Held), c.Clock.Now()), stamp, wide)
			keep = isOpen && (c.Journal.IsAcquainted() || inView && resp.Flags&codec.FlagSameView != 0)
			resp.Release()
			return e, keep, nil
		case codec.StatusNotCached:
			filling := resp.Flags&codec.FlagFilled != 0
			resp.Release()
			if filling && flags&codec.FlagJoin == 0 {
				return nil, false, errFilling
			}
			return nil, false, ErrNotCached
		default:
			resp.Release()
			return nil, false, journal.ErrAnswer
		}
		resp.Release()
	}
	return nil, false, errGiverUnsure
}

// memberOf returns a member of the view, or nil, or the start of a node that has left it.
func (c *Owner) memberOf(node ring.Member, inView bool) *journal.Member {
	if inView {
		return c.Journal.Member(node.Name)
	}
	return c.Journal.Departed(node)
}

// given makes an entry of the copy that another member had at time at. That member and this node agree on the
// contract.
func (c *Owner) given(r *codec.Response, at int64, stamp, wide uint64) *store.Entry {
	e := &store.Entry{
		Stamp: stamp, Version: r.Version, Handed: true,
		Loaded: at - int64(r.Age), Soft: at + int64(r.Soft), Hard: at + int64(r.Hard),
	}
	if r.Status == codec.StatusNotFound {
		e.Flags, e.SWR = store.NotFound, e.Soft
	} else {
		e.Value = append([]byte(nil), r.Value...)
		e.SWR = min(e.Soft+int64(c.Config.Freshness.StaleWhileRevalidate), e.Hard)
	}
	if r.Flags&codec.FlagTagged != 0 {
		e.Tags = fence.TagsAt(append([]uint32(nil), r.Tags...), wide)
	}
	return e
}

// loading returns the key's live flight if it no longer asks other members.
func (t *flights) loading(hash uint64, key string) *Flight {
	s := t.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot := s.m[key]; slot != nil && slot.live != nil && slot.live.loads.Load() {
		return slot.live
	}
	return nil
}

// previous answers the new owner of a key, or a member that believes it is the new owner. It returns false if only
// Serve can answer.
func (h Handler) previous(req *codec.Request, key string, hash uint64, resp *codec.Response) bool {
	c := h.c
	if req.View == c.Config.Cluster.View().Fingerprint() {
		resp.Flags |= codec.FlagSameView
	}
	h.note(req.Fence, key, hash)
	if e := c.owning(key, hash, c.Clock.Now()); e != nil && e.Flags&store.Failed == 0 {
		if h.Fill(c.Clock.Now(), req.Flags, req.Have, resp, &Found{E: e}, 0) {
			c.Stats.Given.Add(1)
			return true
		}
	}
	if c.Flights.loading(hash, key) != nil {
		if req.Flags&codec.FlagJoin != 0 {
			return false
		}
		resp.Flags |= codec.FlagFilled
	}
	resp.Status, resp.Incarnation = codec.StatusNotCached, c.Journal.Incarnation()
	return true
}

// owning returns this node's valid copy of a key in the form that the next owner may have. What this node filled as a
// stand-in owner it keeps for a short time only, but the next owner gets it with its full lifetime.
func (c *Owner) owning(key string, hash uint64, now int64) *store.Entry {
	e, ok := c.Owned.Get(key)
	if !ok || !c.Fences.OwnedValid(key, hash, e.Stamp, e.Handed) || c.Fences.Tagged(e.Tags) {
		return nil
	}
	return e.AsOwned(now)
}

// servePrevious is previous, except that it waits for a fill in progress.
func (h Handler) servePrevious(ctx context.Context, req *codec.Request, resp *codec.Response) {
	c := h.c
	began, wide := c.Clock.Now(), c.Fences.TagClock()
	key := strings.Clone(stringOf(req.Key))
	hash := ring.Hash(key)
	if h.previous(req, key, hash, resp) {
		return
	}
	if f := c.Flights.loading(hash, key); f != nil {
		select {
		case <-f.Done:
			r := &f.Res
			if r.Err != nil || r.Private || r.E.Flags&store.Passing != 0 || c.retagged(r.E, wide) {
				break
			}
			now := c.Clock.Now()
			if e := r.E.AsOwned(now); e != nil && h.Fill(now, req.Flags, req.Have, resp, &Found{E: e}, time.Duration(now-began)) {
				c.Stats.Given.Add(1)
				return
			}
		case <-ctx.Done():
		}
	}
	resp.Status, resp.Incarnation = codec.StatusNotCached, c.Journal.Incarnation()
}
