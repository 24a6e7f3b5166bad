package tier

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// request is what a read asks of another member.
type request[V any] struct {
	owner.Lookup
	stamp uint64             // the fence clock when the read began
	wide  uint64             // the tag clock then
	known *journal.Watermark // what the member is known to have applied
	to    ring.Member
	have  *nearEntry[V] // a near copy that the member may confirm as still good, nil: none
	view  uint64
	debt  fence.Debt // what the member must be told; the request carries the mark
	alone bool       // later callers must not get the answer
	sent  int        // requests to the member for this read so far
	told  int        // of those, the ones that only told it of an invalidation
}

// outcome says how a request ended.
type outcome struct {
	answered bool   // the answer, or the error, is final
	moved    bool   // the member says that it is not the owner
	behind   bool   // the member may lack an invalidation of a tag of the value
	again    bool   // the member has applied the mark that the request carried, and must be told another one
	replaced bool   // another cache instance answered than the known one
	hint     string // with moved: the member that it names as the owner
}

// callTable holds the calls in flight, so that callers of one key on this node share one.
//
// An answer may be private: this node may never be told what invalidates the copy, because views differ, or because
// this node is new or leaving. Only reads that began before the request for the copy was sent may use a private answer.
// Callers that joined a call with a private answer continue with its next. All of them may use the answer of the next,
// because its request was sent after each of their reads began. So any number of callers that want a key at one moment
// cost two requests and wait for two, one after the other.
//
//	call                        event                          what follows
//	in m                        a caller wants the key         it joins, unless a fence or a tag has come since the call began
//	in m                        a fence of the key comes       the call leaves m; those that have joined go on waiting
//	ended with an answer        a caller that joined wakes     it has the answer
//	ended, private or given up  the first such caller wakes    it joins the call that is in m by now, or leads one with the
//	                                                           clocks of this moment; either is the call's next
//	ended, private or given up  another such caller wakes      it joins the next, even if that has ended
//	a next that has ended       a caller from before it wakes  it has the answer, private or not
//	a next that was given up    a caller from before it wakes  as above: it goes on to the next of the next
//
// A caller that waits on a call began its read before the call left m, or came from a call that ended before this one began. So its
// read began before whatever followed the call in m, and before the next.
type callTable[V any] struct {
	shards [64]callShard[V]
	unused sync.Pool // of *call[V] that nobody has joined
}

type callShard[V any] struct {
	mu sync.Mutex // guards m and its calls' joined, done, next and result
	m  map[string]*call[V]
}

// call is one request in flight. Its leader sends it; others wait for the answer.
type call[V any] struct {
	stamp uint64        // the fence clock when the leader's read began; for a next, when the call itself began
	wide  uint64        // the tag clock then
	done  chan struct{} // closed when the result is there; nil: nobody waits
	left  bool          // the leader gave up: the waiting callers must ask again
	next  *call[V]      // the call for callers that may not use the result; nil: none has woken yet
	kept  atomic.Bool   // a caller that shares the answer keeps it near
	a     answer[V]
	out   outcome
	err   error
}

func newCallTable[V any]() *callTable[V] {
	t := new(callTable[V])
	for i := range t.shards {
		t.shards[i].m = make(map[string]*call[V])
	}
	return t
}

// Detach makes later callers of key start a new call if the one in progress began before the fence with the given
// stamp.
func (t *callTable[V]) Detach(key string, hash, stamp uint64) {
	s := &t.shards[hash%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.m[key]; q != nil && q.stamp < stamp {
		delete(s.m, key)
	}
}

// DetachAll is Detach for all keys.
func (t *callTable[V]) DetachAll(fn *fence.Fences) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for key, q := range s.m {
			if fn.Covers(key, ring.Hash(key), q.stamp) {
				delete(s.m, key)
			}
		}
		s.mu.Unlock()
	}
}

// Requests and answers are large, so they are passed by pointer. Otherwise a new goroutine's first read would spend
// most of its time growing its stack.

// callShared sends q to its member, or joins the call of another caller of the key. If outcome says that it is answered,
// the error is final; otherwise the error says why q has no answer.
func (c *Cache[V]) callShared(ctx context.Context, q *request[V], a *answer[V]) (outcome, error) {
	if q.MaxAge >= 0 || q.Flags != 0 || len(q.Chain) > 0 {
		return c.sendGet(ctx, q, a) // a call of its own
	}
	s := &c.calls.shards[q.Hash%64]
	for before := (*call[V])(nil); ; {
		w, leads := c.joinCall(s, q, before)
		if leads {
			return c.leadCall(ctx, s, w, q, a, before != nil)
		}
		select {
		case <-w.done:
		case <-ctx.Done():
			return outcome{answered: true}, ctx.Err()
		}
		if w.serves(q.alone, before != nil) {
			*a = w.a
			a.private = a.private || q.alone
			return w.out, w.err
		}
		before = w
	}
}

// serves reports whether a caller that has joined may use the call's result. since: the call began after the caller's
// read. alone: no copy may be kept for later reads.
func (w *call[V]) serves(alone, since bool) bool {
	copied := w.err == nil && w.out.answered
	return !w.left && (since || !copied || !w.a.private && !alone)
}

// joinCall joins the call for q's key that is in progress. A caller that comes from an earlier call, before, joins its
// next if there is one. leads: q may share none, and the caller leads the call that is returned.
func (c *Cache[V]) joinCall(s *callShard[V], q *request[V], before *call[V]) (w *call[V], leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w = s.m[q.Key]; before != nil && before.next != nil {
		w = before.next
	}
	// A fence that came before the leader put its call into m did not detach the call. The tags of the coming answer are
	// not known.
	if w == nil || w.wide < q.wide || w.stamp < q.stamp && c.own.Fences.Covers(q.Key, q.Hash, w.stamp) {
		leads = true
		if w, _ = c.calls.unused.Get().(*call[V]); w == nil {
			w = new(call[V])
		}
		if before != nil { // every caller that ever waited on it must be able to share this one
			q.stamp, q.wide = c.own.Fences.Stamp(q.Hash), c.own.Fences.TagClock()
		}
		w.stamp, w.wide = q.stamp, q.wide
		s.m[q.Key] = w
	}
	if before != nil {
		before.next = w
	}
	if w.done == nil && (before != nil || !leads) {
		w.done = make(chan struct{})
	}
	return w, leads
}

// leadCall sends the request and publishes the result to all callers that have joined. renewed: the clocks of q are later
// than what q knows of the member.
func (c *Cache[V]) leadCall(ctx context.Context, s *callShard[V], w *call[V], q *request[V], a *answer[V], renewed bool) (out outcome, err error) {
	finished := false
	defer func() { // even if a user's codec panics
		s.mu.Lock()
		if s.m[q.Key] == w {
			delete(s.m, q.Key)
		}
		joined := w.done != nil
		if joined {
			a.kept = &w.kept
			w.a, w.out, w.err = *a, out, err
			w.left = !finished || err != nil && owner.Ended(ctx)
			close(w.done)
		}
		s.mu.Unlock()
		if !joined { // nobody else has seen it, or ever will: it has left m
			c.calls.unused.Put(w)
		}
	}()
	if renewed {
		m := c.own.Journal.Member(q.to.Name)
		if m == nil {
			err = journal.ErrGone
		} else {
			q.known, q.debt, err = c.own.Journal.Ready(ctx, m, journal.Need{Key: q.Key, Hash: q.Hash, Stamp: q.stamp})
		}
	}
	if err == nil {
		out, err = c.sendGet(ctx, q, a)
	}
	finished = true
	return out, err
}

// maxRequests is how many requests one read sends to one member. A read may be unable to use an answer: the copy
// expired in transit, the member lacks the invalidation of a tag, or another instance answered under the member's name.
// Each of these justifies another request, and one more allows for a copy that expires twice. A member that has given
// no usable answer by then counts as not answering. A request tells of one invalidation: if the member must be told of
// others, up to fence.Marks more requests come first. A read turns to two members at most, so it sends at most twice as
// many requests.
const maxRequests = 4

// mostRequests returns how many requests q may send, given how many so far only told of an invalidation.
func (q *request[V]) mostRequests() int { return maxRequests + min(q.told, fence.Marks) }

// callMember asks q's member, once that has applied everything that covers the key and was applied here before the read
// began.
func (c *Cache[V]) callMember(ctx context.Context, q *request[V], a *answer[V]) (out outcome, err error) {
	m := c.own.Journal.Member(q.to.Name)
	if m == nil {
		return out, journal.ErrGone
	}
	q.alone = !c.own.Journal.WaitOpen(ctx) || c.own.Leaving.Load()
	wide := uint64(0) // the tag clock up to which the member must have applied everything
	q.sent, q.told = 0, 0
	for round := 0; round < owner.MaxAgain+fence.Marks && q.sent < q.mostRequests(); round++ {
		if q.known, q.debt, err = c.own.Journal.Ready(ctx, m, journal.Need{Key: q.Key, Hash: q.Hash, Stamp: q.stamp, Tags: wide}); err != nil {
			return outcome{}, err
		}
		*a = answer[V]{}
		out, err = c.callShared(ctx, q, a)
		switch {
		case out.replaced:
			c.own.Journal.Forget(m, q.known)
		case out.behind:
			wide = q.wide
		case out.again:
			q.told++
		default:
			return out, err
		}
	}
	return outcome{}, err
}

// wire holds what one request needs. It is reused.
type wire struct {
	req  codec.Request
	resp codec.Response
}

var wires = sync.Pool{New: func() any { return new(wire) }}

// sendGet sends the request and interprets the answer.
func (c *Cache[V]) sendGet(ctx context.Context, q *request[V], a *answer[V]) (out outcome, err error) {
	w := wires.Get().(*wire)
	w.req = codec.Request{
		Kind: codec.KindGet, Flags: q.Flags, Namespace: c.own.NamespaceBytes, Schema: c.own.Config.Schema, View: q.view,
		Fence: q.debt.Mark, Chain: q.Chain, Key: owner.BytesOf(q.Key),
	}
	if q.MaxAge >= 0 {
		w.req.Flags |= codec.FlagMaxAge
		w.req.MaxAge = q.MaxAge
	}
	if q.have != nil && q.have.etag != 0 && !q.have.notFound {
		w.req.Flags |= codec.FlagHave
		w.req.Have = q.have.etag
	}
	if deadline, ok := ctx.Deadline(); ok {
		w.req.Timeout = max(time.Until(deadline), time.Microsecond)
	} else {
		w.req.Timeout = 2*c.cfg.Origin.Timeout + time.Second // a permit, a load, and the round trip
	}
	expired, reloads := true, false
	for expired && q.sent < q.mostRequests() {
		q.sent++
		began := c.own.Clock.Now()
		c.own.Stats.Asked.Add(1)
		if err = c.cfg.Cluster.Call(ctx, q.to, &w.req, &w.resp); err == nil {
			out, expired, err = c.understand(c.own.Clock.Now(), q, &w.resp, began, a)
			if isUndecodable(err) && !reloads && q.MaxAge != store.RefreshAge && q.Flags&codec.FlagNoFill == 0 {
				c.own.Stats.Undecodable.Add(1)
				reloads = true
				w.req.Flags, w.req.MaxAge, expired = w.req.Flags|codec.FlagMaxAge, store.RefreshAge, true // the owner loads it again
				w.resp.Release()
				continue
			}
			if expired && q.MaxAge != 0 { // do not get that copy again, which may have a little time left there
				older := max(w.resp.Age-1, 1)
				if w.req.Flags&codec.FlagMaxAge == 0 || older < w.req.MaxAge {
					w.req.Flags, w.req.MaxAge = w.req.Flags|codec.FlagMaxAge, older
				}
			}
			w.resp.Release()
			continue
		}
		out, expired = outcome{}, false // whatever an earlier request brought
		if ctx.Err() != nil {
			out.answered, err = true, ctx.Err()
		} else if errors.Is(err, context.DeadlineExceeded) {
			out.answered = true
			err = &FillError{Namespace: c.cfg.Namespace, Key: q.Key, Owner: q.to.Name, Err: ErrTimeout}
		}
	}
	if expired {
		out, err = outcome{}, ErrExpired
	}
	if err != nil && errors.Is(err, context.DeadlineExceeded) && owner.Ended(ctx) {
		out.answered, err = true, context.DeadlineExceeded // the caller's own, not the load's
	}
	*w = wire{}
	wires.Put(w)
	return out, err
}

// understand translates a member's answer, to a request sent at began, into this node's terms. Times count from the
// latest moment before which the member cannot have answered: when the request was sent, plus the time for which the
// member says that it held the request. expired: the answer is a copy past its hard expiry, so the member has another
// answer by now.
func (c *Cache[V]) understand(now int64, q *request[V], r *codec.Response, began int64, a *answer[V]) (out outcome, expired bool, err error) {
	at := min(began+int64(r.Held), now)
	out.answered = true
	fail := func(err error) error {
		return &FillError{Namespace: c.cfg.Namespace, Key: q.Key, Owner: q.to.Name, Err: err}
	}
	switch r.Status {
	case codec.StatusValue, codec.StatusNotFound, codec.StatusSame:
		*a = answer[V]{
			finding: finding[V]{
				loaded: at - int64(r.Age), end: endOf(r, at), source: SourceOwned, stale: r.Flags&codec.FlagStale != 0,
				notFound: r.Status == codec.StatusNotFound,
			},
			soft: at + int64(r.Soft), stamp: math.MaxUint64,
			private: r.Flags&codec.FlagSameView == 0 || q.alone,
			passing: r.Flags&codec.FlagPassing != 0, etag: r.Etag,
		}
		if a.age = max(now-a.loaded, 0); a.stale && r.Why < uint8(store.StaleReasons) { // another version may know more reasons
			a.why = store.StaleReason(r.Why)
		}
		if r.Status == codec.StatusSame && (q.have == nil || q.have.notFound) {
			return outcome{}, false, journal.ErrAnswer
		}
		if r.Incarnation != q.known.Incarnation {
			return outcome{replaced: true}, false, journal.ErrAnswer
		}
		if q.debt.Mark.Seq != 0 {
			c.own.Fences.MarkTold(q.Key, q.Hash, q.debt.Mark, r.Incarnation)
		}
		if q.debt.Duty == fence.AskAgain {
			return outcome{again: true}, false, journal.ErrAnswer
		}
		if r.Flags&codec.FlagTagged != 0 {
			a.tags = append(a.tags, r.Tags...)
			if q.known.Tags < q.wide && c.own.Fences.After(a.tags, q.known.Tags) {
				return outcome{behind: true}, false, journal.ErrAnswer
			}
		}
		if r.Flags&codec.FlagFilled != 0 {
			a.source = SourceFill
		}
		if now >= a.end {
			return out, true, nil
		}
		late := a.stale && r.Soft <= -c.cfg.Freshness.StaleWhileRevalidate
		a.until = c.own.Lease(at, a.soft+int64(c.cfg.Freshness.StaleWhileRevalidate), at+int64(r.Hard), late)
		switch {
		case r.Status == codec.StatusSame:
			a.value, a.size, a.etag = q.have.value, int(q.have.size), q.have.etag
			c.own.Stats.Revalidated.Add(1)
		case !a.notFound:
			a.size = len(r.Value)
			if a.value, err = c.values.decode(r.Value); err != nil {
				err = fail(err)
			}
		}
	case codec.StatusMoved:
		out = outcome{moved: true, hint: string(r.Owner)}
	case codec.StatusFailed:
		err = fail(owner.ErrorOf(r))
		if len(r.Owner) > 0 && string(r.Owner) != q.to.Name {
			err.(*FillError).Owner = string(r.Owner)
		}
	case codec.StatusOverloaded, codec.StatusBusy:
		err = &OverloadedError{Reason: "at " + q.to.Name + ": " + string(r.Text), RetryAfter: r.RetryAfter}
	case codec.StatusTimeout:
		err = fail(ErrTimeout)
	case codec.StatusCycle:
		err = ErrCycle
	case codec.StatusTooLarge:
		err = fail(ErrValueTooLarge)
	case codec.StatusNotCached:
		err = ErrNotCached
	default: // unknown namespace, another contract, or closing: the member cannot speak for the key
		out.answered = false
		err = owner.RemoteError("status " + string(r.Text))
	}
	return out, expired, err
}
