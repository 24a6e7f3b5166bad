package tier

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
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
	// maxAlone is for how many keys one goroutine makes sense of all answers. It takes less than to wake others; with
	// more keys it would be the longer way.
	maxAlone = 512
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

// frame is reads that one member is asked for at once.
type frame[V any] struct {
	many  *many[V]
	to    ring.Member
	reads []*reading[V]
	mate  *mate
	known *known // what he has applied
	alone bool   // the answers must not be given to who comes later

	// of one that is under way
	w     *wire
	began int64
	call  codec.Call
}

// readOwners asks the keys' owners, all at once: of gives each one's keys, this node is the one with the number self. As
// long as the frames are few and nothing has to be waited for but the answers, this goroutine does all.
func (c *Cache[V]) readOwners(ctx context.Context, m *many[V], self int, of func(owner int) []*reading[V]) {
	var here []*reading[V]
	if m.view == nil {
		here = of(0)
	} else {
		for i, to := range m.view.Members() {
			reads := of(i)
			if i == self {
				here, reads = reads, nil
			}
			for len(reads) > 0 {
				n := frameful(reads)
				m.frames = append(m.frames, frame[V]{many: m, to: to, reads: reads[:n:n]})
				reads = reads[n:]
			}
		}
	}
	if len(m.chain) > 0 && len(m.frames) > 0 {
		n := governor.NestingOf(ctx)
		n.Wait()
		defer func() {
			if over := n.Resume(); over != nil {
				m.failWaited(over)
			}
		}()
	}
	var slow []*frame[V]
	sent := 0
	for i := range m.frames {
		f := &m.frames[i]
		if f.call.Index = i; i < maxFrames && len(m.order) <= maxAlone && c.send(ctx, f) {
			sent++
		} else {
			slow = append(slow, f)
		}
	}
	if len(slow) == 1 && sent == 0 && len(here) == 0 {
		c.askMany(ctx, slow[0])
		return
	}
	var wg sync.WaitGroup
	if len(slow) > 0 {
		next := make(chan *frame[V], len(slow))
		for _, f := range slow {
			next <- f
		}
		close(next)
		for range min(len(slow), maxFrames) {
			wg.Go(func() {
				for f := range next {
					c.askMany(ctx, f)
				}
			})
		}
	}
	own := c.seekOwn(ctx, m, here)
	c.collect(ctx, m, sent, &wg)
	if own != nil {
		c.awaitOwn(ctx, m, own)
	}
	wg.Wait()
}

// send asks for what is there of a frame; false: something has to be done first that takes time.
func (c *Cache[V]) send(ctx context.Context, f *frame[V]) bool {
	if c.sender == nil || len(f.many.chain) > 0 || c.young.Load() && c.unsettled.Load() != 0 {
		return false
	}
	if f.mate = c.mate(f.to.Name); f.mate == nil {
		return false
	}
	if f.known = f.mate.known.Load(); f.known == nil {
		return false
	}
	if n, _ := c.carryAll(f, f.reads); n < len(f.reads) {
		return false
	}
	f.alone = c.leaving.Load()
	f.w = wires.Get().(*wire)
	c.question(ctx, f, &f.w.req, f.reads, codec.ModeLook)
	f.call = codec.Call{Req: &f.w.req, Resp: &f.w.resp, Done: f.many.done, Index: f.call.Index}
	if f.began = c.clock.Now(); c.sender.Send(ctx, f.to, &f.call) {
		return true
	}
	f.w.put()
	f.w = nil
	return false
}

// collect takes the answers to the frames that were sent, as they come. What has to wait for loads is asked for in
// goroutines of wg.
func (c *Cache[V]) collect(ctx context.Context, m *many[V], sent int, wg *sync.WaitGroup) {
	ended := ctx.Done()
	defer func() { // there are any left only if a user's codec panics
		for i := range m.frames {
			if f := &m.frames[i]; sent > 0 && f.w != nil && f.call.Withdraw() {
				sent--
			}
		}
		for ; sent > 0; sent-- {
			if call := <-m.done; call.Err == nil {
				call.Resp.Release()
			}
		}
	}()
	for sent > 0 {
		var f *frame[V]
		select {
		case call := <-m.done:
			f = &m.frames[call.Index]
		case <-ended:
			ended = nil // who cannot be withdrawn has ended
			for i := range m.frames {
				if f := &m.frames[i]; f.w != nil && f.call.Withdraw() {
					f.call.Err = ctx.Err()
					m.done <- &f.call
				}
			}
			continue
		}
		sent--
		w := f.w
		f.w = nil
		pending, left := c.settleMany(ctx, f, f.reads, w, f.call.Err, f.began)
		w.put()
		if len(pending)+len(left) > 0 {
			wg.Go(func() { c.askRest(ctx, f, f.reads, pending, left) })
		}
	}
}

// askMany asks a member for what one frame takes.
func (c *Cache[V]) askMany(ctx context.Context, f *frame[V]) {
	if f.mate = c.mate(f.to.Name); f.mate == nil {
		f.many.single(f.reads...)
		return
	}
	f.alone = c.young.Load() && !c.calm(ctx) || c.leaving.Load()
	reads := c.readyMany(ctx, f, f.reads)
	if len(f.many.chain) > 0 { // who finds out whether it is a cycle may have to wait
		c.askWaiting(ctx, f, reads)
		return
	}
	if len(reads) > 0 {
		pending, left := c.askFrame(ctx, f, reads, codec.ModeLook)
		c.askRest(ctx, f, reads, pending, left)
	}
}

// askRest asks for what has not been answered of the reads: left have not been looked for, pending are to be waited for.
func (c *Cache[V]) askRest(ctx context.Context, f *frame[V], reads, pending, left []*reading[V]) {
	for len(left) > 0 {
		if len(left) == len(reads) {
			f.many.single(left...)
			break
		}
		reads = left
		var more []*reading[V]
		more, left = c.askFrame(ctx, f, reads, codec.ModeLook)
		pending = append(pending, more...)
	}
	c.askWaiting(ctx, f, pending)
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

// readyMany sees what the member is known to have applied and what it must be told of each key, after
// an exchange if need be. It returns the reads for which that is enough.
func (c *Cache[V]) readyMany(ctx context.Context, f *frame[V], reads []*reading[V]) []*reading[V] {
	for try := 0; ; try++ {
		ready, behind, exchange := reads[:0:0], reads, true
		if f.known = f.mate.known.Load(); f.known != nil {
			var n int
			reads = slices.Clone(reads) // carryAll puts them in another order
			n, exchange = c.carryAll(f, reads)
			if ready, behind = reads[:n:n], reads[n:]; len(behind) == 0 {
				return ready
			}
		}
		if try == maxAgain || !exchange || c.exchangeWith(ctx, f.mate) != nil {
			f.many.single(behind...)
			return ready
		}
	}
}

// carryAll notes for each of the reads what the member must be told, and moves those to the end for which one request is not
// enough. It returns how many the others are, and whether an exchange would help those.
func (c *Cache[V]) carryAll(f *frame[V], reads []*reading[V]) (n int, exchange bool) {
	n = len(reads)
	for i := 0; i < n; {
		r := reads[i]
		d := c.fences.Debt(r.key, r.hash, r.stamp, f.known.watermark())
		if r.debt = d; d.Duty != fence.NoDuty {
			exchange = exchange || d.Duty == fence.Exchange
			n--
			reads[i], reads[n] = reads[n], r
			continue
		}
		i++
	}
	return n, exchange
}

// question makes the request for reads.
func (c *Cache[V]) question(ctx context.Context, f *frame[V], req *codec.Request, reads []*reading[V], mode codec.Mode) {
	m := f.many
	*req = codec.Request{
		Kind: codec.KindGetMany, Mode: mode, Namespace: c.ns, Schema: c.schema, View: m.view.Fingerprint(),
		Timeout: c.frameTimeout(ctx), Chain: m.chain, Many: slices.Grow(req.Many[:0], len(reads))[:len(reads)],
	}
	for i, r := range reads {
		want := &req.Many[i]
		want.Key, want.Fence, want.Have = bytesOf(r.key), r.debt.Mark, 0
		if r.have != nil && !r.have.notFound {
			want.Have = r.have.etag
		}
	}
}

// put gives a wire back for reuse.
func (w *wire) put() {
	w.empty()
	wires.Put(w)
}

// empty keeps nothing of a wire but memory, and nothing that its request pointed to.
func (w *wire) empty() {
	many := w.req.Many
	if cap(many) > codec.MaxKeysPerGet {
		many = nil
	}
	clear(many)
	*w = wire{req: codec.Request{Many: many[:0]}}
}

// askFrame puts the questions of one frame. It returns those that he has not answered: pending are to wait
// for loads, and for left there was no room.
func (c *Cache[V]) askFrame(ctx context.Context, f *frame[V], reads []*reading[V], mode codec.Mode) (pending, left []*reading[V]) {
	w := wires.Get().(*wire)
	c.question(ctx, f, &w.req, reads, mode)
	began := c.clock.Now()
	err := c.cfg.Cluster.Call(ctx, f.to, &w.req, &w.resp)
	pending, left = c.settleMany(ctx, f, reads, w, err, began)
	w.put()
	return pending, left
}

// settleMany settles reads by what became of the request for them, put at began.
func (c *Cache[V]) settleMany(ctx context.Context, f *frame[V], reads []*reading[V], w *wire, err error, began int64) (pending, left []*reading[V]) {
	switch {
	case err == nil:
		defer w.resp.Release()
	case ctx.Err() != nil:
		c.failMany(f, reads, func(string) error { return ctx.Err() })
		return nil, nil
	case errors.Is(err, context.DeadlineExceeded):
		late := ended(ctx)
		c.failMany(f, reads, func(key string) error {
			if late {
				return context.DeadlineExceeded // the caller's own, not the load's
			}
			return &FillError{Namespace: c.cfg.Namespace, Key: key, Owner: f.to.Name, Err: ErrTimeout}
		})
		return nil, nil
	default:
		f.many.single(reads...)
		return nil, nil
	}
	switch w.resp.Status {
	case codec.StatusMany:
		return c.understandMany(ctx, f, reads, w.resp.Value, began)
	case codec.StatusBusy:
		c.failMany(f, reads, func(string) error {
			return &OverloadedError{Reason: "at " + f.to.Name, RetryAfter: w.resp.RetryAfter}
		})
	default:
		f.many.single(reads...)
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
func (c *Cache[V]) failMany(f *frame[V], reads []*reading[V], why func(key string) error) {
	c.stats.asked.Add(int64(len(reads)))
	for _, r := range reads {
		c.got(f.many, r, &answer[V]{}, why(r.key), 0)
	}
}

// clockEvery is for how many keys of a frame, none of which has to be waited for, the clock is read once. What it says is
// too early for the later ones, by some microseconds: they seem older, and past their times sooner, to who asked.
const clockEvery = 32

// understandMany settles the reads of a frame by the parts of the answer to it.
func (c *Cache[V]) understandMany(ctx context.Context, f *frame[V], reads []*reading[V], parts []byte, began int64) (pending, left []*reading[V]) {
	m := f.many
	q := question[V]{wide: m.wide, known: f.known, to: f.to, maxAge: AnyAge, alone: f.alone}
	var part codec.Response
	var a answer[V]
	var now, asked int64
	for i, r := range reads {
		if i%clockEvery == 0 {
			now = c.clock.Now()
		}
		var err error
		if parts, err = codec.NextAnswer(&part, parts); err != nil {
			m.single(reads[i:]...)
			break
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
				a = answer[V]{finding: finding[V]{source: SourceOwned}}
				if part.Flags&codec.FlagFilled != 0 {
					a.source = SourceFill
				}
				c.got(m, r, &a, nil, now)
				continue
			}
		}
		q.key, q.hash, q.stamp, q.have, q.debt = r.key, r.hash, r.stamp, r.have, r.debt
		if part.Status != codec.StatusValue { // that leaves nothing of a as it was
			a = answer[V]{}
		}
		out, expired, err := c.understandAt(now, &q, &part, began, &a)
		if out.replaced {
			c.forget(f.mate, f.known)
		}
		if expired || !out.answered || isUndecodable(err) {
			m.single(r)
			continue
		}
		if err != nil && errors.Is(err, context.DeadlineExceeded) && ended(ctx) {
			err = context.DeadlineExceeded // the caller's own, not the load's
		}
		asked++
		c.got(m, r, &a, err, now)
	}
	c.stats.asked.Add(asked)
	return pending, left
}
