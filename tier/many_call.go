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
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
)

// A multi-get asks each owner as a get does. Before the read began, the owner must have applied whatever covers the key
// and was applied here (see package journal), or the request tells it so with the key. Each key's answer is interpreted on its
// own. Keys that cannot be settled in this way are left to be read as Get does: the member is not the owner or cannot
// be reached, another instance has answered, or a tag was invalidated in between.
//
// An owner is asked at most twice. The first request is for what it has: it answers at once, in the loop that reads the
// connection. The second one is for what it has to load, so that a slow load does not delay a hit. The owner starts the
// loads only with the second request, because the request that starts a load must wait for it: not everything that is
// loaded is kept.

const (
	// frameBytes is how many bytes of keys one frame asks for.
	frameBytes = 256 << 10
	// maxAlone is the most keys for which one goroutine interprets all answers. Up to this many, that is cheaper than
	// waking other goroutines.
	maxAlone = 512
)

// frameful is how many of the reads one frame takes.
func frameful[V any](reads []*keyRead[V]) int {
	size := 0
	for i, r := range reads {
		if size += codec.ManySize(len(r.key)); i == codec.MaxKeysPerGet || i > 0 && size > frameBytes {
			return i
		}
	}
	return len(reads)
}

// frame is the reads that one member is asked for in one request.
type frame[V any] struct {
	many   *multiGet[V]
	to     ring.Member
	reads  []*keyRead[V]
	member *journal.Member
	known  *journal.Watermark // what the member has applied
	alone  bool               // the answers must not be given to later callers

	// of a frame in flight
	w     *wire
	began int64
	call  codec.Call
}

// readOwners asks all the keys' owners at once. of returns each owner's reads; self is this node's index in the view.
// As long as the frames are few and there are only answers to wait for, this goroutine does everything.
func (m *multiGet[V]) readOwners(ctx context.Context, self int, of func(owner int) []*keyRead[V]) {
	var here []*keyRead[V]
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
		if f.call.Index = i; i < maxFrames && len(m.order) <= maxAlone && f.send(ctx) {
			sent++
		} else {
			slow = append(slow, f)
		}
	}
	if len(slow) == 1 && sent == 0 && len(here) == 0 {
		slow[0].callMany(ctx)
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
					f.callMany(ctx)
				}
			})
		}
	}
	own := m.seekOwn(ctx, here)
	m.collect(ctx, sent, &wg)
	if own != nil {
		m.awaitOwn(ctx, own)
	}
	wg.Wait()
}

// send asks the member for what it has of the frame's keys. It returns false if something that takes time has to be
// done first.
func (f *frame[V]) send(ctx context.Context) bool {
	c := f.many.c
	if c.sender == nil || len(f.many.chain) > 0 || c.own.Journal.IsOpening() {
		return false
	}
	if f.member = c.own.Journal.Member(f.to.Name); f.member == nil {
		return false
	}
	if f.known = f.member.Watermark(); f.known == nil {
		return false
	}
	if n, _ := f.carryAll(f.reads); n < len(f.reads) {
		return false
	}
	f.alone = c.own.Leaving.Load()
	f.w = wires.Get().(*wire)
	f.fillMultiGet(ctx, &f.w.req, f.reads, codec.ModeLook)
	f.call = codec.Call{Req: &f.w.req, Resp: &f.w.resp, Done: f.many.done, Index: f.call.Index}
	if f.began = c.own.Clock.Now(); c.sender.Send(ctx, f.to, &f.call) {
		return true
	}
	f.w.put()
	f.w = nil
	return false
}

// collect takes the answers to the frames that were sent, in the order in which they arrive. Reads that must wait for
// loads are asked for again in goroutines of wg.
func (m *multiGet[V]) collect(ctx context.Context, sent int, wg *sync.WaitGroup) {
	ended := ctx.Done()
	defer func() { // some are left only if a user's codec panics
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
			ended = nil // a call that cannot be withdrawn has ended
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
		pending, left := f.settleMany(ctx, f.reads, w, f.call.Err, f.began)
		w.put()
		if len(pending)+len(left) > 0 {
			wg.Go(func() { f.sendRest(ctx, f.reads, pending, left) })
		}
	}
}

// callMany reads the keys of one frame from its member.
func (f *frame[V]) callMany(ctx context.Context) {
	c := f.many.c
	if f.member = c.own.Journal.Member(f.to.Name); f.member == nil {
		f.many.single(f.reads...)
		return
	}
	f.alone = !c.own.Journal.WaitOpen(ctx) || c.own.Leaving.Load()
	reads := f.readyMany(ctx, f.reads)
	if len(f.many.chain) > 0 { // the member that detects a cycle may have to wait
		f.sendWaiting(ctx, reads)
		return
	}
	if len(reads) > 0 {
		pending, left := f.sendFrame(ctx, reads, codec.ModeLook)
		f.sendRest(ctx, reads, pending, left)
	}
}

// sendRest asks for the reads that are not answered yet: the member has not looked for left, and has to load pending.
func (f *frame[V]) sendRest(ctx context.Context, reads, pending, left []*keyRead[V]) {
	for len(left) > 0 {
		if len(left) == len(reads) {
			f.many.single(left...)
			break
		}
		reads = left
		var more []*keyRead[V]
		more, left = f.sendFrame(ctx, reads, codec.ModeLook)
		pending = append(pending, more...)
	}
	f.sendWaiting(ctx, pending)
}

// sendWaiting asks for reads that have to wait for loads.
func (f *frame[V]) sendWaiting(ctx context.Context, reads []*keyRead[V]) {
	for len(reads) > 0 {
		pending, left := f.sendFrame(ctx, reads, codec.ModeWait)
		if left = append(left, pending...); len(left) == len(reads) {
			f.many.single(left...)
			return
		}
		reads = left
	}
}

// readyMany finds what the member is known to have applied and what it must be told with each key. It has an exchange
// first if that is needed. It returns the reads for which one request is then enough.
func (f *frame[V]) readyMany(ctx context.Context, reads []*keyRead[V]) []*keyRead[V] {
	c := f.many.c
	for try := 0; ; try++ {
		ready, behind, exchange := reads[:0:0], reads, true
		if f.known = f.member.Watermark(); f.known != nil {
			var n int
			reads = slices.Clone(reads) // carryAll reorders them
			n, exchange = f.carryAll(reads)
			if ready, behind = reads[:n:n], reads[n:]; len(behind) == 0 {
				return ready
			}
		}
		if try == owner.MaxAgain || !exchange || c.own.Journal.Exchange(ctx, f.member) != nil {
			f.many.single(behind...)
			return ready
		}
	}
}

// carryAll notes for each read what the member must be told, and moves the reads for which one request is not enough to
// the end. It returns the number of the other reads, and whether an exchange would help the moved ones.
func (f *frame[V]) carryAll(reads []*keyRead[V]) (n int, exchange bool) {
	c := f.many.c
	n = len(reads)
	for i := 0; i < n; {
		r := reads[i]
		d := c.own.Fences.Debt(r.key, r.hash, r.stamp, f.known.Fences())
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

// fillMultiGet fills req with the request for reads.
func (f *frame[V]) fillMultiGet(ctx context.Context, req *codec.Request, reads []*keyRead[V], mode codec.Mode) {
	c := f.many.c
	m := f.many
	*req = codec.Request{
		Kind: codec.KindGetMany, Mode: mode, Namespace: c.own.NamespaceBytes, Schema: c.own.Config.Schema, View: m.view.Fingerprint(),
		Timeout: c.frameTimeout(ctx), Chain: m.chain, Many: slices.Grow(req.Many[:0], len(reads))[:len(reads)],
	}
	for i, r := range reads {
		want := &req.Many[i]
		want.Key, want.Fence, want.Have = owner.BytesOf(r.key), r.debt.Mark, 0
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

// empty clears a wire but for its memory: it keeps nothing that its request pointed to.
func (w *wire) empty() {
	many := w.req.Many
	if cap(many) > codec.MaxKeysPerGet {
		many = nil
	}
	clear(many)
	*w = wire{req: codec.Request{Many: many[:0]}}
}

// sendFrame sends one request for reads. It returns the reads that the member has not answered: pending must wait for
// loads, and left did not fit into the answer.
func (f *frame[V]) sendFrame(ctx context.Context, reads []*keyRead[V], mode codec.Mode) (pending, left []*keyRead[V]) {
	c := f.many.c
	w := wires.Get().(*wire)
	f.fillMultiGet(ctx, &w.req, reads, mode)
	began := c.own.Clock.Now()
	err := c.cfg.Cluster.Call(ctx, f.to, &w.req, &w.resp)
	pending, left = f.settleMany(ctx, reads, w, err, began)
	w.put()
	return pending, left
}

// settleMany settles reads by the outcome of the request for them, which was sent at began.
func (f *frame[V]) settleMany(ctx context.Context, reads []*keyRead[V], w *wire, err error, began int64) (pending, left []*keyRead[V]) {
	c := f.many.c
	switch {
	case err == nil:
		defer w.resp.Release()
	case ctx.Err() != nil:
		f.failMany(reads, func(string) error { return ctx.Err() })
		return nil, nil
	case errors.Is(err, context.DeadlineExceeded):
		late := owner.Ended(ctx)
		f.failMany(reads, func(key string) error {
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
		return f.understandMany(ctx, reads, w.resp.Value, began)
	case codec.StatusBusy:
		f.failMany(reads, func(string) error {
			return &OverloadedError{Reason: "at " + f.to.Name, RetryAfter: w.resp.RetryAfter}
		})
	default:
		f.many.single(reads...)
	}
	return nil, nil
}

// frameTimeout returns how long the member may take for a frame.
func (c *core) frameTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 2*c.cfg.Origin.Timeout + time.Second // a permit, a load, and the network
	}
	return max(time.Until(deadline), time.Microsecond)
}

// failMany settles reads that have all failed in the same way.
func (f *frame[V]) failMany(reads []*keyRead[V], why func(key string) error) {
	c := f.many.c
	c.own.Stats.Asked.Add(int64(len(reads)))
	for _, r := range reads {
		f.many.got(r, &answer[V]{}, why(r.key), 0)
	}
}

// understandMany settles the reads of a frame by the parts of the answer.
func (f *frame[V]) understandMany(ctx context.Context, reads []*keyRead[V], parts []byte, began int64) (pending, left []*keyRead[V]) {
	c := f.many.c
	m := f.many
	q := request[V]{Lookup: owner.Lookup{MaxAge: AnyAge}, wide: m.wide, known: f.known, to: f.to, alone: f.alone}
	var part codec.Response
	var a answer[V]
	var now, asked int64
	for i, r := range reads {
		if i%owner.ClockEvery == 0 {
			now = c.own.Clock.Now()
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
				m.got(r, &a, nil, now)
				continue
			}
		}
		q.Key, q.Hash, q.stamp, q.have, q.debt = r.key, r.hash, r.stamp, r.have, r.debt
		if part.Status != codec.StatusValue { // StatusValue overwrites all of a
			a = answer[V]{}
		}
		out, expired, err := c.understand(now, &q, &part, began, &a)
		if out.replaced {
			c.own.Journal.Forget(f.member, f.known)
		}
		if expired || !out.answered || isUndecodable(err) {
			m.single(r)
			continue
		}
		if err != nil && errors.Is(err, context.DeadlineExceeded) && owner.Ended(ctx) {
			err = context.DeadlineExceeded // the caller's own, not the load's
		}
		asked++
		m.got(r, &a, err, now)
	}
	c.own.Stats.Asked.Add(asked)
	return pending, left
}
