package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
)

const (
	// linkTick is how often a link with calls in flight is checked. A call ends at most two ticks after its Timeout.
	linkTick = 10 * time.Millisecond
	// A peer that owes an answer and sends no byte is pinged every pingEvery ticks. After silentAfter ticks the waiting
	// calls fail, so that they turn elsewhere; after deadAfter ticks the link is given up. A tick counts if this node was
	// able to listen and the peer's machine acknowledges nothing, see silence.go.
	pingEvery   = 10
	silentAfter = 50
	deadAfter   = 200
	// idleTicks is how many ticks without a call end the ticking. It is low, because otherwise an occasional call would
	// keep an idle node ticking.
	idleTicks = 3
	// maxCalls is how many calls may wait on one link.
	maxCalls = 1 << 16
)

// waiter is one call that waits for its answer.
type waiter struct {
	done   chan error  // one result per use
	sent   *codec.Call // used instead of done for a call that l.call does not wait for
	p      *peer       // set together with sent
	resp   *codec.Response
	expire int64 // link tick at which it times out, 0: never
	turn   int64 // link tick from which it no longer waits for a silent peer, 0: never
}

// end reports the outcome of the call. It does not block. Afterwards w belongs to its caller again.
func (w *waiter) end(err error) {
	if w.sent == nil {
		w.done <- err
		return
	}
	if err != nil {
		w.p.errors.Add(1)
		w.p.d.errors.Add(1)
	}
	w.sent.Err = err
	w.sent.Done <- w.sent
}

// A link is the calling side's end of a connection to a peer.
type link struct {
	d     *Plane
	p     *peer
	conn  net.Conn
	out   *outbox
	born  time.Time
	acks  acker       // nil: no source of acknowledgement times
	heard atomic.Bool // a byte has arrived since the last tick
	mute  atomic.Bool // no sign of life although one is due: not to be used. Set with out.mu held, or before the link runs

	// guarded by out.mu
	pending map[uint64]*waiter
	lastID  uint64
	tick    int64 // linkTicks since born, as of the last look while ticking
	soonest int64 // no call times out before this tick
	ticking bool
	err     error // why the link is closed

	alarm chan struct{} // starts the ticking
	gone  chan struct{} // closed with the link
}

func newLink(p *peer, conn net.Conn) *link {
	l := &link{
		d: p.d, p: p, conn: conn, acks: ackerOf(conn), born: time.Now(), pending: make(map[uint64]*waiter), soonest: math.MaxInt64,
		alarm: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	l.out = newOutbox(conn, outboxLimit, &p.bytesOut, &p.d.bytesOut, l.fail)
	l.out.store = &p.d.backlog
	return l
}

// call sends req and waits for the answer. A timeout above 0 bounds the wait.
func (l *link) call(ctx context.Context, timeout time.Duration, req *codec.Request, resp *codec.Response) error {
	w := l.d.waiters.Get().(*waiter)
	w.resp, w.expire, w.turn = resp, 0, 0
	err := l.send(w, timeout, req)
	if err != nil {
		l.d.waiters.Put(w)
		return err
	}
	if done := ctx.Done(); done == nil {
		err = <-w.done
	} else {
		select {
		case err = <-w.done:
		case <-done:
			if l.withdraw(req.ID) {
				err = ctx.Err()
			} else {
				err = <-w.done // the answer is being delivered right now
			}
		}
	}
	w.resp = nil
	l.d.waiters.Put(w)
	return err
}

// send sends req and registers w for the answer. A timeout above 0 bounds how long w waits. It does not block.
func (l *link) send(w *waiter, timeout time.Duration, req *codec.Request) error {
	size := req.Size()
	if size > l.d.limit {
		return fmt.Errorf("weir: a request of %d bytes, the limit is %d", size, l.d.limit)
	}
	o := l.out
	o.lock()
	if l.err != nil {
		err := l.err
		o.unlock()
		return err
	}
	if l.mute.Load() {
		o.unlock()
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, l.p.to.Name, errSilent)
	}
	if len(l.pending) >= maxCalls || o.room(size) != nil && len(o.buf) > 0 {
		o.unlock()
		return fmt.Errorf("%w: to %s", ErrBusy, l.p.to.Name)
	}
	l.lastID++
	req.ID = l.lastID
	start := !l.ticking
	if start {
		l.ticking = true
		l.tick = l.now()
	}
	if timeout > 0 {
		w.expire = l.tick + 2 + int64(timeout/linkTick)
		w.turn = l.tick + max(int64(timeout/2/linkTick), 1)
		l.soonest = min(l.soonest, w.expire)
	}
	others := len(l.pending) > 0
	l.pending[req.ID] = w
	whole := req.Timeout
	req.Timeout = timeout
	o.buf = codec.AppendRequest(o.buf, req)
	req.Timeout = whole
	mine := o.claim()
	o.unlock()
	if mine {
		o.flush(others)
	}
	if start { // after the request has been written or queued
		l.alarm <- struct{}{}
	}
	return nil
}

// withdraw cancels a call and tells the peer. It returns false if the call has been answered.
func (l *link) withdraw(id uint64) bool {
	o := l.out
	o.lock()
	if _, ok := l.pending[id]; !ok {
		o.unlock()
		return false
	}
	delete(l.pending, id)
	mine := false
	if l.err == nil && o.room(codec.FrameHeader+codec.FrameMin) == nil {
		start := len(o.buf)
		o.buf = codec.EndFrame(codec.BeginFrame(o.buf, codec.KindCancel, id), start)
		mine = o.claim()
	}
	o.unlock()
	if mine {
		o.flush(false)
	}
	return true
}

// take removes the call that an answer is for. It returns nil if the call was withdrawn, and an error if it was never made.
func (l *link) take(id uint64) (*waiter, error) {
	l.out.lock()
	defer l.out.unlock()
	if id == 0 || id > l.lastID {
		return nil, fmt.Errorf("%w: an answer to request %d, which was never made", codec.ErrFrame, id)
	}
	w := l.pending[id]
	delete(l.pending, id)
	return w, nil
}

// run serves the link until it is closed: it reads, while its helpers write and tick.
func (l *link) run() {
	var wg sync.WaitGroup
	wg.Go(l.out.run)
	wg.Go(l.tend)
	l.read()
	wg.Wait()
}

// read delivers the answers until the connection ends.
func (l *link) read() {
	f := newFrameReader(l.conn, l.d.limit)
	for {
		frame, err := f.buffered()
		if frame == nil && err == nil {
			err = f.fill()
			l.heard.Store(true)
			if err == nil {
				l.p.bytesIn.Add(f.bytes)
				l.d.bytesIn.Add(f.bytes)
				f.bytes = 0
				continue
			}
		}
		if err == nil {
			err = l.handle(frame)
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

func (l *link) handle(frame []byte) error {
	kind, id, body, err := codec.FrameKind(frame)
	if err != nil {
		return err
	}
	switch kind {
	case codec.KindAnswer:
	case codec.KindPong:
		return nil
	case codec.KindGoodbye:
		return fmt.Errorf("the peer closed: %q", body[:min(len(body), maxReason)])
	default:
		return fmt.Errorf("%w: kind %d where an answer was due", codec.ErrFrame, kind)
	}
	w, err := l.take(id)
	if w == nil {
		return err
	}
	if !l.d.reserve(len(body)) {
		w.end(fmt.Errorf("%w: no room for an answer of %d bytes from %s", ErrBusy, len(body), l.p.to.Name))
		return nil
	}
	buf := l.d.bufs.get(len(body))
	copy(buf, body)
	if err := codec.DecodeResponse(w.resp, id, buf); err != nil {
		l.d.giveBack(buf)
		w.end(fmt.Errorf("%w: %s: %w", ErrUnreachable, l.p.to.Name, err))
		return err
	}
	w.resp.Own(buf, l.p.giveBack)
	w.end(nil)
	return nil
}

// giveBack takes back the buffer of an answer when its Response is released.
func (d *Plane) giveBack(buf []byte) {
	d.unreserve(len(buf))
	d.bufs.put(buf)
}

// tend ticks while there are calls, to enforce deadlines and to check whether the peer is alive.
func (l *link) tend() {
	if l.mute.Load() { // the breaker is open: this link has to show that the peer is alive
		l.ping()
		if !l.tickUntilIdle(silentAfter) {
			return
		}
	}
	for {
		select {
		case <-l.gone:
			return
		case <-l.alarm:
		}
		if !l.tickUntilIdle(0) {
			return
		}
	}
}

// tickUntilIdle returns true after a while without calls, and false when the link is gone. ticks is for how many ticks the
// peer has been silent already.
func (l *link) tickUntilIdle(ticks int) bool {
	t := time.NewTicker(linkTick)
	defer t.Stop()
	last, quiet := time.Now(), silence{ticks: ticks}
	var pinged time.Time // time of the last ping sent although a tick did not count
	for idle := 0; ; {
		select {
		case <-l.gone:
			return false
		case <-t.C:
		}
		now, counted := time.Now(), false
		l.d.cfg.Hearing.Fired(last.Add(linkTick), now)
		last = now
		calls := l.expire()
		switch {
		case l.heard.Swap(false):
			quiet = silence{}
			if l.mute.CompareAndSwap(true, false) {
				l.p.recordAnswer()
			}
		case calls > 0 || quiet != silence{}: // even if no call waits any more, the answer to a ping is due
			able := l.d.cfg.Hearing.Able(now)
			acked := quiet.needsAck(now, able) && l.acknowledged() // the peer is slow, not dead
			if acked && now.Sub(pinged) >= pingEvery*linkTick {
				pinged = now
				l.ping()
				if able {
					l.turnAway()
				}
			}
			quiet, counted = quiet.afterTick(now, able, acked)
		}
		if idle++; calls > 0 || quiet != (silence{}) {
			idle = 0
		}
		switch {
		case !counted && idle >= idleTicks && l.stopTicking():
			return true
		case !counted:
		case quiet.ticks >= deadAfter:
			l.fail(fmt.Errorf("%w for %v", errSilent, deadAfter*linkTick))
			return false
		case quiet.ticks == silentAfter:
			l.ping()
			l.fallSilent()
		case quiet.ticks%pingEvery == 0:
			l.ping()
		}
	}
}

// ping asks the peer for a sign of life.
func (l *link) ping() {
	_ = l.out.add(codec.EndFrame(codec.BeginFrame(nil, codec.KindPing, 0), 0), false)
}

// fallSilent fails every call that waits on the link, and keeps new calls off it until there is a sign of life.
func (l *link) fallSilent() {
	cause := fmt.Errorf("%w for %v", errSilent, silentAfter*linkTick)
	l.out.lock()
	if l.err != nil {
		l.out.unlock()
		return
	}
	l.mute.Store(true)
	pending := l.pending
	l.pending = make(map[uint64]*waiter)
	l.soonest = math.MaxInt64
	l.out.unlock()
	err := fmt.Errorf("%w: %s: %w", ErrUnreachable, l.p.to.Name, cause)
	for _, w := range pending {
		w.end(err)
	}
	l.p.recordSilence(l, cause)
}

// turnAway fails the calls that have waited for a silent peer for half of their time. The other half is for the member that
// is called instead, which may have to load.
func (l *link) turnAway() {
	var list []*waiter
	l.out.lock()
	for id, w := range l.pending {
		if w.turn != 0 && w.turn <= l.tick {
			delete(l.pending, id)
			list = append(list, w)
		}
	}
	l.out.unlock()
	err := fmt.Errorf("%w: %s: %w for half of the time of a call", ErrUnreachable, l.p.to.Name, errSilent)
	for _, w := range list {
		w.end(err)
	}
}

// up reports whether the link has not failed.
func (l *link) up() bool {
	l.out.lock()
	defer l.out.unlock()
	return l.err == nil
}

// stopTicking stops the ticking unless a call has arrived meanwhile.
func (l *link) stopTicking() bool {
	l.out.lock()
	defer l.out.unlock()
	if len(l.pending) > 0 {
		return false
	}
	l.ticking = false
	return true
}

// now returns the age of the link in ticks.
func (l *link) now() int64 { return int64(time.Since(l.born) / linkTick) }

// expire advances the tick, fails the calls whose time is up, and returns how many are left.
func (l *link) expire() int {
	l.out.lock()
	defer l.out.unlock()
	if l.tick = l.now(); l.tick < l.soonest {
		return len(l.pending)
	}
	l.soonest = math.MaxInt64
	for id, w := range l.pending {
		switch {
		case w.expire == 0:
		case w.expire <= l.tick:
			delete(l.pending, id)
			w.end(context.DeadlineExceeded)
		default:
			l.soonest = min(l.soonest, w.expire)
		}
	}
	return len(l.pending)
}

// fail closes the link and fails every call that waits on it.
func (l *link) fail(cause error) {
	err := cause
	if !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrClosed) {
		err = fmt.Errorf("%w: %s: %w", ErrUnreachable, l.p.to.Name, cause)
	}
	o := l.out
	o.lock()
	if l.err != nil {
		o.unlock()
		return
	}
	l.err = err
	pending := l.pending
	l.pending = nil
	o.unlock()
	o.close()
	close(l.gone)
	_ = l.conn.Close()
	for _, w := range pending {
		w.end(err)
	}
	l.p.dropLink(l, cause)
}
