package tier

import (
	"context"
	"errors"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// A get of many keys is a question as any other to the owner of each: he must have applied what covers the key and
// was applied here before the read began (see log.go), or is told so with the key; what he answers
// is understood key by key. What cannot be settled like this is left to be read as Get does: if he is not the
// owner or cannot be reached, another instance has answered, or a tag's invalidation came between.
//
// He is asked twice at most. First for what is there: he answers at once, in the loop that reads the connection. Then
// for what he has to load: so a slow load keeps no hit waiting. He starts the loads only when he is
// asked for them, since whoever starts one must wait for it: not everything that is loaded is kept.

const (
	// frameBytes is how many bytes of keys one frame asks for.
	frameBytes = 256 << 10
)

// frameful is how many of the reads one frame takes.
func frameful[V any](reads []*reading[V]) int {
	size := 0
	for i, r := range reads {
		if size += codec.ManySize(len(r.key)); i == codec.MaxKeysPerGet || i > 0 && size > frameBytes {
			return i
		}
	}
	return len(reads)
}

// askMany asks a member for what one frame takes.
func (c *Cache[V]) askMany(ctx context.Context, m *many[V], to ring.Member, reads []*reading[V]) {
	f := frame[V]{many: m, to: to, mate: c.mate(to.Name)}
	if f.mate == nil {
		m.single(reads...)
		return
	}
	f.alone = c.young.Load() && !c.calm(ctx) || c.leaving.Load()
	if reads = c.readyMany(ctx, &f, reads); len(m.chain) > 0 { // who finds out whether it is a cycle may have to wait
		c.askWaiting(ctx, &f, reads)
		return
	}
	var waiting []*reading[V]
	for len(reads) > 0 {
		pending, left := c.askFrame(ctx, &f, reads, codec.ModeLook)
		waiting = append(waiting, pending...)
		if len(left) == len(reads) {
			m.single(left...)
			break
		}
		reads = left
	}
	c.askWaiting(ctx, &f, waiting)
}

// askWaiting asks for reads that have to wait for loads.
func (c *Cache[V]) askWaiting(ctx context.Context, f *frame[V], reads []*reading[V]) {
	for len(reads) > 0 {
		pending, left := c.askFrame(ctx, f, reads, codec.ModeWait)
		if left = append(left, pending...); len(left) == len(reads) {
			f.many.single(left...)
			return
		}
		reads = left
	}
}

// frame is what the questions of one frame have in common.
type frame[V any] struct {
	many  *many[V]
	to    ring.Member
	mate  *mate
	known *known // what he has applied
	alone bool   // the answers must not be given to who comes later
}

// readyMany sees what the member is known to have applied and what he must be told of each key, after
// an exchange if need be. It returns the reads for which that is enough.
func (c *Cache[V]) readyMany(ctx context.Context, f *frame[V], reads []*reading[V]) []*reading[V] {
	for try := 0; ; try++ {
		var ready, behind []*reading[V]
		if f.known = f.mate.known.Load(); f.known != nil {
			ready = reads[:0:len(reads)]
			if try < maxAgain {
				ready = make([]*reading[V], 0, len(reads))
			}
			for _, r := range reads {
				mark, lacks := c.fences.carry(r.key, r.hash, r.stamp, f.known)
				if r.fence = mark; lacks {
					behind = append(behind, r)
				} else {
					ready = append(ready, r)
				}
			}
			if len(behind) == 0 {
				return ready
			}
		} else {
			behind = reads
		}
		if try == maxAgain || c.exchangeWith(ctx, f.mate) != nil {
			f.many.single(behind...)
			return ready
		}
	}
}

// askFrame puts the questions of one frame. It returns those that he has not answered: pending are to wait
// for loads, and for left there was no room.
func (c *Cache[V]) askFrame(ctx context.Context, f *frame[V], reads []*reading[V], mode codec.Mode) (pending, left []*reading[V]) {
	w := wires.Get().(*wire)
	defer func() {
		*w = wire{}
		wires.Put(w)
	}()
	m := f.many
	w.req = codec.Request{
		Kind: codec.KindGetMany, Mode: mode, Namespace: c.ns, Schema: c.schema, View: m.view.Fingerprint(),
		Timeout: c.frameTimeout(ctx), Chain: m.chain, Many: make([]codec.Wanted, len(reads)),
	}
	for i, r := range reads {
		want := &w.req.Many[i]
		want.Key, want.Fence = bytesOf(r.key), r.fence
		if r.have != nil && !r.have.notFound {
			want.Have = r.have.etag
		}
	}
	began := c.clock.now()
	err := c.cfg.Cluster.Call(ctx, f.to, &w.req, &w.resp)
	switch {
	case err == nil:
		defer w.resp.Release()
	case ctx.Err() != nil:
		c.failMany(m, reads, func(string) error { return ctx.Err() })
		return nil, nil
	case errors.Is(err, context.DeadlineExceeded):
		late := ended(ctx)
		c.failMany(m, reads, func(key string) error {
			if late {
				return context.DeadlineExceeded // the caller's own, not the load's
			}
			return &FillError{Namespace: c.cfg.Namespace, Key: key, Owner: f.to.Name, Err: ErrTimeout}
		})
		return nil, nil
	default:
		m.single(reads...)
		return nil, nil
	}
	switch w.resp.Status {
	case codec.StatusMany:
		return c.understandMany(ctx, f, reads, w.resp.Value, began)
	case codec.StatusBusy:
		c.failMany(m, reads, func(string) error {
			return &OverloadedError{Reason: "at " + f.to.Name, RetryAfter: w.resp.RetryAfter}
		})
	default:
		m.single(reads...)
	}
	return nil, nil
}

// frameTimeout is how long the member has for a frame.
func (c *Cache[V]) frameTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 2*c.cfg.Origin.Timeout + time.Second // a permit, a load, and the way
	}
	return max(time.Until(deadline), time.Microsecond)
}

// failMany settles reads that have all failed alike.
func (c *Cache[V]) failMany(m *many[V], reads []*reading[V], why func(key string) error) {
	for _, r := range reads {
		c.stats.asked.Add(1)
		c.got(m, r, &answer[V]{}, why(r.key))
	}
}

// understandMany settles the reads of a frame by the parts of the answer to it.
func (c *Cache[V]) understandMany(ctx context.Context, f *frame[V], reads []*reading[V], parts []byte, began int64) (pending, left []*reading[V]) {
	m := f.many
	q := question[V]{wide: m.wide, known: f.known, to: f.to, maxAge: AnyAge, alone: f.alone}
	var part codec.Response
	for i, r := range reads {
		var err error
		if parts, err = codec.NextAnswer(&part, parts); err != nil {
			m.single(reads[i:]...)
			return pending, left
		}
		switch part.Status {
		case codec.StatusPending:
			pending = append(pending, r)
			continue
		case codec.StatusLeftOut:
			left = append(left, r)
			continue
		case codec.StatusSame:
			if m.warming {
				a := answer[V]{source: SourceOwned}
				if part.Flags&codec.FlagFilled != 0 {
					a.source = SourceFill
				}
				c.got(m, r, &a, nil)
				continue
			}
		}
		q.key, q.hash, q.stamp, q.have, q.fence = r.key, r.hash, r.stamp, r.have, r.fence
		var a answer[V]
		out, expired, err := c.understand(&q, &part, began, &a)
		if out.replaced {
			c.forget(f.mate, f.known)
		}
		if expired || !out.answered {
			m.single(r)
			continue
		}
		if err != nil && errors.Is(err, context.DeadlineExceeded) && ended(ctx) {
			err = context.DeadlineExceeded // the caller's own, not the load's
		}
		c.stats.asked.Add(1)
		c.got(m, r, &a, err)
	}
	return pending, left
}
