package tier

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
	"unsafe"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// question is what a read asks of another member.
type question struct {
	key    string
	hash   uint64
	stamp  uint64 // the fence clock when the read began
	to     ring.Member
	maxAge time.Duration
	chain  []uint64
	flags  uint8
	view   uint64
	fence  codec.Mark
	alone  bool // the answer must not be given to who comes later
}

// outcome says what became of a question that has no answer.
type outcome struct {
	answered bool   // the answer, or its error, is final
	moved    bool   // the member says that it is not the owner
	hint     string // and that this one is
}

// asks holds the questions in progress, so that callers of one key on this node share one.
type asks[V any] struct {
	shards [64]askShard[V]
	unused sync.Pool // of *ask[V] that nobody has joined
}

type askShard[V any] struct {
	mu sync.Mutex // guards m and its asks' joined, done and result
	m  map[string]*ask[V]
}

// ask is one question in progress. Its leader sends it; others wait for what he gets.
type ask[V any] struct {
	stamp uint64        // the fence clock when its leader's read began
	done  chan struct{} // closed when the result is there; nil: nobody waits
	left  bool          // the leader gave up: the others must see for themselves
	a     answer[V]
	out   outcome
	err   error
}

func newAsks[V any]() *asks[V] {
	t := new(asks[V])
	for i := range t.shards {
		t.shards[i].m = make(map[string]*ask[V])
	}
	return t
}

// detach lets later callers of key ask anew if the question in progress began before the
// fence with the given stamp.
func (t *asks[V]) detach(key string, hash, stamp uint64) {
	s := &t.shards[hash%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.m[key]; q != nil && q.stamp < stamp {
		delete(s.m, key)
	}
}

// ask puts q to its member, or joins the question of another caller of the key. The error
// is a final answer if outcome says so, else why there is none.
func (c *Cache[V]) ask(ctx context.Context, q question) (answer[V], outcome, error) {
	if q.maxAge >= 0 || q.flags != 0 || len(q.chain) > 0 || q.alone {
		return c.put(ctx, &q) // a question of its own
	}
	s := &c.asks.shards[q.hash%64]
	for {
		s.mu.Lock()
		w := s.m[q.key]
		// A leader who was overtaken by a fence before he put himself into m was not
		// detached by it.
		if w == nil || w.stamp < q.stamp && c.fences.covers(q.key, q.hash, w.stamp) {
			w, _ = c.asks.unused.Get().(*ask[V])
			if w == nil {
				w = new(ask[V])
			}
			w.stamp = q.stamp
			s.m[q.key] = w
			s.mu.Unlock()
			return c.lead(ctx, s, w, &q)
		}
		if w.done == nil {
			w.done = make(chan struct{})
		}
		done := w.done
		s.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return answer[V]{}, outcome{answered: true}, ctx.Err()
		}
		if !w.left {
			return w.a, w.out, w.err
		}
	}
}

// lead sends the question and tells everyone who has joined.
func (c *Cache[V]) lead(ctx context.Context, s *askShard[V], w *ask[V], q *question) (a answer[V], out outcome, err error) {
	finished := false
	defer func() { // also if a user's codec panics
		s.mu.Lock()
		if s.m[q.key] == w {
			delete(s.m, q.key)
		}
		joined := w.done != nil
		if joined {
			w.a, w.out, w.err = a, out, err
			w.left = !finished || err != nil && ended(ctx)
			close(w.done)
		}
		s.mu.Unlock()
		if !joined { // so nobody else has seen it, or ever will: it is out of m
			c.asks.unused.Put(w)
		}
	}()
	a, out, err = c.put(ctx, q)
	finished = true
	return a, out, err
}

// ended reports whether ctx has ended, also where its deadline has passed and its timer is late.
func ended(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(deadline) <= 0
}

// wire is what one request needs, kept for reuse.
type wire struct {
	req  codec.Request
	resp codec.Response
}

var wires = sync.Pool{New: func() any { return new(wire) }}

// put sends the question and makes sense of the answer.
func (c *Cache[V]) put(ctx context.Context, q *question) (a answer[V], out outcome, err error) {
	w := wires.Get().(*wire)
	w.req = codec.Request{
		Kind: codec.KindGet, Flags: q.flags, Namespace: c.ns, Schema: c.schema, View: q.view,
		Fence: q.fence, Chain: q.chain, Key: bytesOf(q.key),
	}
	if q.maxAge >= 0 {
		w.req.Flags |= codec.FlagMaxAge
		w.req.MaxAge = q.maxAge
	}
	if deadline, ok := ctx.Deadline(); ok {
		w.req.Timeout = max(time.Until(deadline), time.Microsecond)
	} else {
		w.req.Timeout = 2*c.cfg.Origin.Timeout + time.Second // a permit, a load, and the way
	}
	expired := true
	for try := 0; expired && try < 2; try++ {
		began := c.clock.now()
		c.stats.asked.Add(1)
		if err = c.cfg.Cluster.Call(ctx, q.to, &w.req, &w.resp); err == nil {
			a, out, expired, err = c.understand(q, &w.resp, began)
			w.resp.Release()
			continue
		}
		expired = false
		if ctx.Err() != nil {
			out.answered, err = true, ctx.Err()
		} else if errors.Is(err, context.DeadlineExceeded) {
			out.answered = true
			err = &FillError{Namespace: c.cfg.Namespace, Key: q.key, Owner: q.to.Name, Err: ErrTimeout}
		}
	}
	if expired {
		out, err = outcome{}, errExpired
	}
	if err != nil && errors.Is(err, context.DeadlineExceeded) && ended(ctx) {
		out.answered, err = true, context.DeadlineExceeded // the caller's own, not the load's
	}
	*w = wire{}
	wires.Put(w)
	return a, out, err
}

// errExpired is why an answer does not count that took longer than what was left of its copy.
var errExpired = errors.New("weir: the copy passed its hard expiry on the way")

// understand turns a member's answer to a question put at began into this node's terms.
// Times count from the latest moment before which the member cannot have answered: when
// it was asked, and for how long it says that it held the request. expired: it is a copy past
// its hard expiry, so the member has another answer by now.
func (c *Cache[V]) understand(q *question, r *codec.Response, began int64) (a answer[V], out outcome, expired bool, err error) {
	now := c.clock.now()
	at := min(began+int64(r.Held), now)
	out.answered = true
	fail := func(err error) error {
		return &FillError{Namespace: c.cfg.Namespace, Key: q.key, Owner: q.to.Name, Err: err}
	}
	switch r.Status {
	case codec.StatusValue, codec.StatusNotFound:
		a = answer[V]{
			notFound: r.Status == codec.StatusNotFound, loaded: at - int64(r.Age), soft: at + int64(r.Soft),
			source: SourceOwned, stale: r.Flags&codec.FlagStale != 0, stamp: math.MaxUint64,
		}
		if q.fence.Seq != 0 {
			c.fences.told(q.key, q.hash, q.fence, memberID(q.to.Name))
		}
		if r.Flags&codec.FlagFilled != 0 {
			a.source = SourceFill
		} else if now >= at+int64(r.Hard) {
			return a, out, true, nil
		}
		late := a.stale && r.Soft <= -c.cfg.Freshness.StaleWhileRevalidate
		a.until = c.lease(at, a.soft+int64(c.cfg.Freshness.StaleWhileRevalidate), at+int64(r.Hard), late)
		if !a.notFound {
			a.size = len(r.Value)
			if a.value, err = c.decode(r.Value); err != nil {
				err = fail(err)
			}
		}
	case codec.StatusMoved:
		out = outcome{moved: true, hint: string(r.Owner)}
	case codec.StatusFailed:
		err = fail(remoteError(r.Text))
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
	default: // no such namespace there, another contract, or closing: it cannot stand for the key
		out.answered = false
		err = remoteError("status " + string(r.Text))
	}
	return a, out, expired, err
}

// bytesOf returns the bytes of s without copying. They must only be read.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// stringOf returns b as a string without copying: valid only as long as b is not changed.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
