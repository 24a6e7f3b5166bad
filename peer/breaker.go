package peer

import (
	"errors"
	"fmt"
	"time"
)

// While a member refuses or is silent, whoever asks it is told so at once, and turns to the key's
// successor: no read waits for an attempt to connect, or for its own deadline. That is what the
// breaker of a peer is for. It opens
//
//   - after breakerRow failed attempts to connect in a row;
//   - when an attempt to connect has not come to anything for silentAfter ticks;
//   - when the peer owes answers and has sent no byte for silentAfter ticks, although it was asked every
//     pingEvery of them whether it is there. Some ticks do not count: see hearing.go.
//
// A connection that works keeps it closed, so that one of several that hangs is passed over only. Answers
// of any kind are a sign of life, also "busy"; and a caller whose time is up has learned nothing:
// it is the link that waits on, for the answer to its ping.
//
// While it is open one goroutine probes: one attempt to connect at a time, with pauses that grow
// up to backoffMax, or pings on a connection that is up. The first byte that comes back closes it.

const (
	// breakerRow is how many attempts to connect must fail in a row.
	breakerRow = 3
	// togetherFor is how far apart breakers may open for one reason: requests are seldom to some members.
	togetherFor = 3 * time.Second
)

// Breaker states, as in PeerStats.
const (
	breakerClosed   = "closed"
	breakerOpen     = "open"
	breakerHalfOpen = "half_open"
)

// A breaker is what is known of a peer's health. Its methods are pure: they return what it becomes.
type breaker struct {
	open     bool
	row      int           // failed attempts to connect, in a row
	backoff  time.Duration // the last pause
	retry    time.Time     // no attempt to connect before this
	openings int64
	since    time.Time // when it opened last
}

// failed is after an attempt to connect that failed, or a connection that did not last. jitter takes a random
// part off a pause. bypass: no connection works.
func (b breaker) failed(now time.Time, bypass bool, jitter func(time.Duration) time.Duration) breaker {
	b.row++
	b.backoff = min(max(2*b.backoff, backoffMin), backoffMax)
	b.retry = now.Add(jitter(b.backoff))
	if bypass && b.row >= breakerRow {
		b = b.tripped(now)
	}
	return b
}

// tripped is after it has opened.
func (b breaker) tripped(now time.Time) breaker {
	if !b.open {
		b.open, b.since = true, now
		b.openings++
	}
	return b
}

// answered is after a sign of life. What failed before still makes the next pause longer, until
// a connection lasts.
func (b breaker) answered() breaker {
	b.open, b.row = false, 0
	return b
}

// renewed is after a connection that has lasted, or a new start of the member: an attempt may be made at once.
// It leaves the breaker open: only a sign of life closes it.
func (b breaker) renewed() breaker {
	b.backoff, b.retry = 0, time.Time{}
	return b
}

// errSilent is why a connection does not count that is up.
var errSilent = errors.New("no sign of life")

// bypassed is what callers are told while the breaker is open. The caller holds mu.
func (p *peer) bypassed() error {
	return fmt.Errorf("%w: %s at %s is bypassed: %v", ErrUnreachable, p.to.Name, p.to.Addr, p.last)
}

// change puts the next state of the breaker in force, and returns a function that tells of it, to be called
// without a lock. The caller holds mu.
func (p *peer) change(next breaker) (tell func()) {
	was := p.breaker.open
	p.breaker = next
	switch {
	case next.open == was || p.closed != nil:
		return func() {}
	case next.open:
		p.d.opened.Add(1)
		p.shut = make(chan struct{})
		shut := p.shut
		if !p.d.start(func() { p.probe(shut) }) {
			return func() {}
		}
		why := p.last
		return func() {
			p.d.cfg.logger.Warn("a peer is bypassed, it refuses or is silent", "peer", p.to.Name, "addr", p.to.Addr, "err", why)
		}
	default:
		p.d.shut.Add(1)
		close(p.shut)
		return func() {
			p.d.cfg.logger.Info("a peer answers again", "peer", p.to.Name, "addr", p.to.Addr)
		}
	}
}

// silent notes that a link has shown no sign of life although one is due.
func (p *peer) silent(l *link, cause error) {
	p.mu.Lock()
	tell := func() {}
	if p.last = cause; l.up() && p.fit() == nil {
		tell = p.change(p.breaker.tripped(time.Now()))
	}
	p.mu.Unlock()
	tell()
}

// alive notes that a link that was silent is not.
func (p *peer) alive() {
	p.mu.Lock()
	was := p.breaker
	tell := p.change(p.breaker.answered())
	p.mu.Unlock()
	tell()
	lasted := was.open && time.Since(was.since) >= deadAfter*linkTick // else it was a pause, or a packet
	if lasted && p.d.cfg.returned != nil && p.d.alone(p, was.since) {
		p.d.cfg.returned(p.to.Name)
	}
}

// alone reports whether only the breaker of p opened at that time. If others did too it may as well have been
// this node that was cut off.
func (d *data) alone(p *peer, at time.Time) bool {
	for _, o := range *d.peers.Load() {
		o.mu.Lock()
		apart := at.Sub(o.breaker.since).Abs()
		o.mu.Unlock()
		if o != p && apart < togetherFor {
			return false
		}
	}
	return true
}

// overdue notes that an attempt to connect has come to nothing for too long.
func (p *peer) overdue() error {
	p.mu.Lock()
	tell := func() {}
	if p.fit() == nil && p.closed == nil {
		p.last = fmt.Errorf("no connection after %v", silentAfter*linkTick)
		tell = p.change(p.breaker.tripped(time.Now()))
	}
	err := p.bypassed()
	p.mu.Unlock()
	tell()
	return err
}

// probe tries to reach the peer until the breaker is shut, or the peer closed.
func (p *peer) probe(shut <-chan struct{}) {
	s := &p.slots[0]
	for {
		p.mu.Lock()
		var await <-chan struct{}
		var wait time.Duration
		for i := range p.slots {
			switch l := p.slots[i].link.Load(); {
			case l != nil:
				await = l.gone
			case p.slots[i].dialing != nil && await == nil:
				await = p.slots[i].dialing
			}
		}
		if await == nil {
			wait = time.Until(p.breaker.retry)
			if wait <= 0 {
				await = p.attempt(s)
			}
		}
		p.mu.Unlock()
		if await == nil && wait <= 0 {
			return // the data plane is closing
		}
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-await:
		case <-due:
		case <-shut:
			return
		case <-p.ctx.Done():
			return
		}
	}
}
