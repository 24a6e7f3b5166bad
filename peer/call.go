package peer

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
	// After a failed attempt to connect the next waits for backoffMin, then twice as
	// long each time up to backoffMax, less a random part. Calls fail at once meanwhile.
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
	// dialTimeout bounds one attempt, the handshake included.
	dialTimeout = helloTimeout
)

// A peer is a member as the data plane knows it: where it is, and the links to it.
type peer struct {
	d        *data
	to       ring.Member     // as first heard of; a later start at the same address shares the record
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
	backoff time.Duration
	retry   time.Time // no attempt before this
	last    error     // what the last attempt came to
}

// slot holds one link to the peer, or the attempt to make one.
type slot struct {
	link    atomic.Pointer[link]
	dialing chan struct{} // closed when the attempt in progress has ended; nil: none. Guarded by peer.mu
}

func newPeer(d *data, to ring.Member) *peer {
	p := &peer{d: d, to: to, slots: make([]slot, max(d.cfg.connections, 1))}
	p.giveBack = d.giveBack
	p.newest.Store(to.Incarnation)
	p.ctx, p.cancel = context.WithCancel(d.ctx)
	return p
}

// call sends req to a member. See Node.Call.
func (d *data) call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := d.peer(to)
	if err != nil {
		return err
	}
	p.calls.Add(1)
	d.calls.Add(1)
	if err = p.call(ctx, req, resp); err != nil {
		p.errors.Add(1)
		d.errors.Add(1)
	}
	return err
}

func (p *peer) call(ctx context.Context, req *codec.Request, resp *codec.Response) error {
	s := &p.slots[0]
	if len(p.slots) > 1 && (req.Kind == codec.KindGet || req.Kind == codec.KindGetMany) {
		s = &p.slots[p.turn.Add(1)%uint32(len(p.slots))]
	}
	timeout := req.Timeout
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		if left <= 0 {
			return context.DeadlineExceeded
		}
		if timeout <= 0 || left < timeout {
			timeout = left
		}
	}
	l := s.link.Load()
	if l == nil {
		began := time.Now()
		var err error
		if l, err = p.connect(ctx, s, timeout); err != nil {
			if l = p.anyLink(); l == nil || !errors.Is(err, ErrUnreachable) {
				return err
			}
		}
		if timeout > 0 {
			if timeout -= time.Since(began); timeout <= 0 {
				return context.DeadlineExceeded
			}
		}
	}
	return l.call(ctx, timeout, req, resp)
}

// anyLink returns a link that is up, nil if there is none.
func (p *peer) anyLink() *link {
	for i := range p.slots {
		if l := p.slots[i].link.Load(); l != nil {
			return l
		}
	}
	return nil
}

// connect waits for the slot's link, until ctx or timeout ends, if that is above 0.
func (p *peer) connect(ctx context.Context, s *slot, timeout time.Duration) (*link, error) {
	p.mu.Lock()
	if l := s.link.Load(); l != nil {
		p.mu.Unlock()
		return l, nil
	}
	if p.closed != nil {
		p.mu.Unlock()
		return nil, p.closed
	}
	if s.dialing == nil {
		if wait := time.Until(p.retry); wait > 0 {
			err := fmt.Errorf("%w: %s at %s: next attempt in %v: %v", ErrUnreachable, p.to.Name, p.to.Addr, wait.Round(time.Millisecond), p.last)
			p.mu.Unlock()
			return nil, err
		}
		s.dialing = make(chan struct{})
		if !p.d.start(func() { p.dial(s) }) {
			close(s.dialing)
			s.dialing = nil
			p.mu.Unlock()
			return nil, ErrClosed
		}
	}
	dialing := s.dialing
	p.mu.Unlock()

	var late <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-dialing:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-late:
		return nil, context.DeadlineExceeded
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

// dial makes one attempt to fill the slot.
func (p *peer) dial(s *slot) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	p.dials.Add(1)
	p.d.dials.Add(1)
	conn, err := p.d.cfg.dial(ctx, p.to.Addr)
	if err == nil {
		raw := conn
		if conn, err = p.d.connectTo(ctx, raw, p.to); err != nil {
			_ = raw.Close()
		}
	}
	if p.settle(s, conn, err) {
		p.d.cfg.logger.Warn("cannot connect to peer", "peer", p.to.Name, "addr", p.to.Addr, "err", err)
	}
}

// settle records what an attempt came to, and reports whether that is news.
func (p *peer) settle(s *slot, conn net.Conn, err error) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		news = p.closed == nil && (p.last == nil || p.last.Error() != err.Error())
		p.last = err
		p.pause()
	case p.closed != nil || !p.adopt(s, conn):
		p.last = ErrClosed
		_ = conn.Close()
	}
	close(s.dialing)
	s.dialing = nil
	return news
}

// pause puts the next attempt off, longer each time. The caller holds mu.
func (p *peer) pause() {
	p.backoff = min(max(2*p.backoff, backoffMin), backoffMax)
	p.retry = time.Now().Add(p.d.jitter(p.backoff))
}

// renew notes that the member has started again, at the same address: it is asked at once.
func (p *peer) renew(incarnation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if incarnation > p.newest.Load() {
		p.newest.Store(incarnation)
		p.backoff, p.retry = 0, time.Time{}
	}
}

// adopt makes a link of conn; false: the data plane is closing. The caller holds p.mu, which
// keeps a link that fails at once from being taken out of the slot before it is in.
func (p *peer) adopt(s *slot, conn net.Conn) bool {
	l := newLink(p, conn)
	if !p.d.start(l.run) {
		return false
	}
	s.link.Store(l)
	return true
}

// lost clears the slot of a link that has failed. One that has lasted is replaced at
// once, one that has not as if it had not come about.
func (p *peer) lost(l *link, cause error) {
	p.mu.Lock()
	p.last = cause
	if time.Since(l.born) >= backoffMax {
		p.backoff, p.retry = 0, time.Time{}
	} else {
		p.pause()
	}
	news := p.closed == nil && !errors.Is(cause, ErrClosed)
	for i := range p.slots {
		p.slots[i].link.CompareAndSwap(l, nil)
	}
	p.mu.Unlock()
	if news {
		p.d.cfg.logger.Warn("connection to peer lost", "peer", p.to.Name, "addr", p.to.Addr, "err", cause)
	}
}

// close closes the links, ends attempts to connect, and makes no more.
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
	return s
}
