package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

const (
	// After a failed connection attempt the next one waits for backoffMin, then twice as long each time up to backoffMax,
	// less a random part. Calls fail at once meanwhile. See breaker.go.
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
	// dialTimeout bounds one attempt, the handshake included.
	dialTimeout = HelloTimeout
)

// A peer is the data plane's record of a member: its address and the links to it.
type peer struct {
	d        *Plane
	to       ring.Member     // as first heard of; a later incarnation at the same address shares the record
	ctx      context.Context // ends when the peer is closed
	cancel   context.CancelFunc
	newest   atomic.Uint64 // incarnation
	slots    []slot
	turn     atomic.Uint32
	giveBack func([]byte)

	calls, errors, dials atomic.Int64
	bytesIn, bytesOut    atomic.Int64

	mu      sync.Mutex // guards the rest and the slots' dialling
	closed  error
	breaker breaker
	shut    chan struct{} // closed when an open breaker closes
	last    error         // outcome of the last attempt
}

// slot holds one link to the peer, or the attempt to open one.
type slot struct {
	link    atomic.Pointer[link]
	dialing chan struct{} // closed when the attempt in progress has ended; nil: none. Guarded by peer.mu
	began   time.Time     // when it began; guarded by peer.mu
}

func newPeer(d *Plane, to ring.Member) *peer {
	p := &peer{d: d, to: to, slots: make([]slot, max(d.cfg.Connections, 1))}
	p.giveBack = d.giveBack
	p.newest.Store(to.Incarnation)
	p.ctx, p.cancel = context.WithCancel(d.ctx)
	return p
}

// slot picks the slot for a request.
func (p *peer) slot(req *codec.Request) *slot {
	if len(p.slots) > 1 && (req.Kind == codec.KindGet || req.Kind == codec.KindGetMany) {
		return &p.slots[p.turn.Add(1)%uint32(len(p.slots))]
	}
	return &p.slots[0]
}

// timeLeft returns how long a request may take, where 0 means no limit. It returns false if the time is up.
func timeLeft(ctx context.Context, req *codec.Request) (time.Duration, bool) {
	timeout := req.Timeout
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		if left <= 0 {
			return 0, false
		}
		if timeout <= 0 || left < timeout {
			timeout = left
		}
	}
	return timeout, true
}

func (p *peer) call(ctx context.Context, req *codec.Request, resp *codec.Response) error {
	s := p.slot(req)
	timeout, ok := timeLeft(ctx, req)
	if !ok {
		return context.DeadlineExceeded
	}
	l := s.link.Load()
	if l == nil || l.mute.Load() {
		began := time.Now()
		var err error
		if l, err = p.connect(ctx, s, timeout); err != nil {
			return err
		}
		if timeout > 0 {
			if timeout -= time.Since(began); timeout <= 0 {
				return context.DeadlineExceeded
			}
		}
	}
	return l.call(ctx, timeout, req, resp)
}

// workingLink returns a working link, or nil if there is none.
func (p *peer) workingLink() *link {
	for i := range p.slots {
		if l := p.slots[i].link.Load(); l != nil && !l.mute.Load() {
			return l
		}
	}
	return nil
}

// connect returns the slot's link, or another one that works. If there is none, it waits for the slot's link until ctx
// ends, or until timeout has passed if that is above 0. It does not wait while the breaker is open, and it opens the
// breaker if the attempt takes too long.
func (p *peer) connect(ctx context.Context, s *slot, timeout time.Duration) (*link, error) {
	p.mu.Lock()
	if l := s.link.Load(); l != nil && !l.mute.Load() {
		p.mu.Unlock()
		return l, nil
	}
	if p.closed != nil {
		p.mu.Unlock()
		return nil, p.closed
	}
	if p.breaker.open {
		defer p.mu.Unlock()
		return nil, p.bypassed()
	}
	other := p.workingLink()
	if s.dialing == nil && s.link.Load() == nil {
		wait := time.Until(p.breaker.retry)
		if wait > 0 && other == nil {
			err := fmt.Errorf("%w: %s at %s: next attempt in %v: %v", ErrUnreachable, p.to.Name, p.to.Addr, wait.Round(time.Millisecond), p.last)
			p.mu.Unlock()
			return nil, err
		}
		if wait <= 0 && p.attempt(s) == nil {
			p.mu.Unlock()
			return nil, ErrClosed
		}
	}
	if other != nil || s.dialing == nil { // it has just gone silent or been lost
		defer p.mu.Unlock()
		if other == nil {
			return nil, p.bypassed()
		}
		return other, nil
	}
	dialing, began := s.dialing, s.began
	p.mu.Unlock()

	var end time.Time // the call's own deadline; zero: none
	due := began.Add(silentAfter * linkTick)
	if timeout > 0 {
		end = time.Now().Add(timeout)
	}
	t := time.NewTimer(time.Until(sooner(due, end)))
	defer t.Stop()
	for waits := true; waits; {
		select {
		case <-dialing:
			waits = false
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.C:
			now := time.Now()
			if !end.IsZero() && !now.Before(end) {
				return nil, context.DeadlineExceeded
			}
			p.d.cfg.Hearing.Fired(due, now)
			if p.d.cfg.Hearing.Able(now) || now.Sub(began) >= deafMost {
				return nil, p.recordOverdue()
			}
			due = now.Add(linkTick) // this node may merely not have heard the answer
			t.Reset(time.Until(sooner(due, end)))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := s.link.Load(); l != nil {
		return l, nil
	}
	if p.closed != nil {
		return nil, p.closed
	}
	return nil, fmt.Errorf("%w: %s at %s: %v", ErrUnreachable, p.to.Name, p.to.Addr, p.last)
}

// sooner returns the earlier of two times, where the zero time means none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// attempt starts a goroutine that fills a slot, and returns a channel that is closed when the attempt has ended. It returns
// nil if the data plane is closing. The caller holds mu.
func (p *peer) attempt(s *slot) <-chan struct{} {
	s.dialing, s.began = make(chan struct{}), time.Now()
	dialing := s.dialing
	if !p.d.start(func() { p.dial(s) }) {
		close(s.dialing)
		s.dialing = nil
		return nil
	}
	return dialing
}

// dial makes one attempt to fill the slot.
func (p *peer) dial(s *slot) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	p.dials.Add(1)
	p.d.dials.Add(1)
	conn, err := p.d.cfg.Dial(ctx, p.to.Addr)
	if err == nil {
		raw := conn
		if conn, err = p.d.Handshake(ctx, raw, p.to); err != nil {
			_ = raw.Close()
		}
	}
	if p.d.cfg.Ended != nil && ProvesEnd(err) {
		p.d.cfg.Ended(ring.Member{Name: p.to.Name, Addr: p.to.Addr, Incarnation: p.newest.Load()})
	}
	news, tell := p.recordOutcome(s, conn, err)
	if news {
		p.d.cfg.Logger.Warn("cannot connect to peer", "peer", p.to.Name, "addr", p.to.Addr, "err", err)
	}
	tell()
}

// recordOutcome records the outcome of an attempt. It reports whether the outcome is new, and returns a function that logs a
// change of the breaker.
func (p *peer) recordOutcome(s *slot, conn net.Conn, err error) (news bool, tell func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tell = func() {}
	switch {
	case err != nil:
		news = p.closed == nil && (p.last == nil || p.last.Error() != err.Error())
		p.last = err
		tell = p.pause()
	case p.closed != nil || !p.adopt(s, conn):
		p.last = ErrClosed
		_ = conn.Close()
	}
	close(s.dialing)
	s.dialing = nil
	return news, tell
}

// pause delays the next attempt, longer each time. It returns a function that logs a change of the breaker. The caller
// holds mu.
func (p *peer) pause() (tell func()) {
	return p.change(p.breaker.failed(time.Now(), p.workingLink() == nil, p.d.jitter))
}

// renew records that the member has restarted at the same address: the next connection attempt may be made at once.
func (p *peer) renew(incarnation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if incarnation > p.newest.Load() {
		p.newest.Store(incarnation)
		p.breaker = p.breaker.renewed()
	}
}

// adopt makes a link of conn. It returns false if the data plane is closing. The caller holds p.mu, so that a link that
// fails at once is not taken out of the slot before it is in it. While the breaker is open, a link must show a sign of life
// before it is used.
func (p *peer) adopt(s *slot, conn net.Conn) bool {
	l := newLink(p, conn)
	l.ticking = p.breaker.open
	l.mute.Store(p.breaker.open)
	p.breaker.row = 0
	if !p.d.start(l.run) {
		return false
	}
	s.link.Store(l)
	return true
}

// dropLink clears the slot of a failed link. A link that had lasted may be replaced at once. One that had not counts as a
// failed connection attempt.
func (p *peer) dropLink(l *link, cause error) {
	p.mu.Lock()
	p.last = cause
	for i := range p.slots {
		p.slots[i].link.CompareAndSwap(l, nil)
	}
	tell := func() {}
	if time.Since(l.born) >= backoffMax && !l.mute.Load() {
		p.breaker = p.breaker.renewed()
	} else {
		tell = p.pause()
	}
	news := p.closed == nil && !errors.Is(cause, ErrClosed)
	p.mu.Unlock()
	if news {
		p.d.cfg.Logger.Warn("connection to peer lost", "peer", p.to.Name, "addr", p.to.Addr, "err", cause)
	}
	tell()
}

// close closes the links, ends connection attempts in progress, and prevents new ones.
func (p *peer) close(why error) {
	p.mu.Lock()
	if p.closed == nil {
		p.closed = why
	}
	links := make([]*link, 0, len(p.slots))
	for i := range p.slots {
		if l := p.slots[i].link.Load(); l != nil {
			links = append(links, l)
		}
	}
	p.mu.Unlock()
	p.cancel()
	for _, l := range links {
		l.fail(why)
	}
}

func (p *peer) stats() PeerStats {
	p.mu.Lock()
	b, dialing := p.breaker, false
	for i := range p.slots {
		dialing = dialing || p.slots[i].dialing != nil
	}
	p.mu.Unlock()
	s := PeerStats{
		Name: p.to.Name, Addr: p.to.Addr, Calls: p.calls.Load(), Errors: p.errors.Load(),
		BytesIn: p.bytesIn.Load(), BytesOut: p.bytesOut.Load(), Dials: p.dials.Load(),
	}
	for i := range p.slots {
		if l := p.slots[i].link.Load(); l != nil {
			s.Connected++
			l.out.lock()
			s.InFlight += len(l.pending)
			s.Queued += len(l.out.buf) + len(l.out.rest)
			l.out.unlock()
		}
	}
	switch s.Breaker, s.Openings = BreakerClosed, b.openings; {
	case b.open && (dialing || s.Connected > 0):
		s.Breaker = BreakerHalfOpen
	case b.open:
		s.Breaker = BreakerOpen
	}
	return s
}
