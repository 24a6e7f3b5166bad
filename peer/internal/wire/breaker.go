package wire

import (
	"errors"
	"fmt"
	"time"
)

// While a member refuses connections or is silent, its breaker is open. Calls to the member then fail at once and turn to
// the key's successor, so no read waits for a connection attempt or for its own deadline. The breaker opens
//
//   - after breakerRow failed connection attempts in a row;
//   - when a connection attempt has had no result for silentAfter ticks;
//   - when the peer owes answers and has sent no byte for silentAfter ticks, although this node pinged it every pingEvery
//     ticks. Some ticks do not count: see silence.go.
//
// One working connection keeps the breaker closed. If only one of several connections hangs, calls just skip that one. An
// answer of any kind is a sign of life, even "busy". A caller whose time is up has learned nothing about the peer: the link
// keeps waiting, for the answer to its ping.
//
// While the breaker is open, one goroutine probes: it makes one connection attempt at a time, with pauses that grow up to
// backoffMax, or pings over a connection that is up. The first byte that comes back closes the breaker.

const (
	// breakerRow is how many connection attempts in a row must fail.
	breakerRow = 3
	// togetherFor is how far apart breakers may open for one common cause. Some members get requests only seldom.
	togetherFor = 3 * time.Second
)

// A breaker holds the health of a peer. Its methods are pure: they return the next state.
type breaker struct {
	open     bool
	row      int           // failed connection attempts in a row
	backoff  time.Duration // the last pause
	retry    time.Time     // no connection attempt before this
	openings int64
	since    time.Time // when it last opened
}

// failed returns the state after a connection attempt failed, or a connection did not last. jitter takes a random part off
// a pause. bypass is true if no connection works.
func (b breaker) failed(now time.Time, bypass bool, jitter func(time.Duration) time.Duration) breaker {
	b.row++
	b.backoff = min(max(2*b.backoff, backoffMin), backoffMax)
	b.retry = now.Add(jitter(b.backoff))
	if bypass && b.row >= breakerRow {
		b = b.tripped(now)
	}
	return b
}

// tripped returns the state with the breaker open.
func (b breaker) tripped(now time.Time) breaker {
	if !b.open {
		b.open, b.since = true, now
		b.openings++
	}
	return b
}

// answered returns the state after a sign of life. Earlier failures still lengthen the next pause, until a connection
// lasts.
func (b breaker) answered() breaker {
	b.open, b.row = false, 0
	return b
}

// renewed returns the state after a connection has lasted, or the member has restarted: the next connection attempt may be
// made at once. It leaves the breaker open, because only a sign of life closes it.
func (b breaker) renewed() breaker {
	b.backoff, b.retry = 0, time.Time{}
	return b
}

// errSilent is why a connection that is up does not count.
var errSilent = errors.New("no sign of life")

// bypassed returns the error that callers get while the breaker is open. The caller holds mu.
func (p *peer) bypassed() error {
	return fmt.Errorf("%w: %s at %s is bypassed: %v", ErrUnreachable, p.to.Name, p.to.Addr, p.last)
}

// change installs the next state of the breaker. It returns a function that logs the change, to be called without a lock.
// The caller holds mu.
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
			p.d.cfg.Logger.Warn("a peer is bypassed because it rejects requests or does not answer", "peer", p.to.Name, "addr", p.to.Addr, "err", why)
		}
	default:
		p.d.shut.Add(1)
		close(p.shut)
		return func() {
			p.d.cfg.Logger.Info("a peer answers again", "peer", p.to.Name, "addr", p.to.Addr)
		}
	}
}

// recordSilence records that a link has shown no sign of life although one is due.
func (p *peer) recordSilence(l *link, cause error) {
	p.mu.Lock()
	tell := func() {}
	if p.last = cause; l.up() && p.workingLink() == nil {
		tell = p.change(p.breaker.tripped(time.Now()))
	}
	p.mu.Unlock()
	tell()
}

// recordAnswer records that a link that was silent has shown a sign of life.
func (p *peer) recordAnswer() {
	p.mu.Lock()
	was := p.breaker
	tell := p.change(p.breaker.answered())
	p.mu.Unlock()
	tell()
	lasted := was.open && time.Since(was.since) >= deadAfter*linkTick // a shorter silence was a pause or a lost packet
	if lasted && p.d.cfg.Returned != nil && p.d.openedAlone(p, was.since) {
		p.d.cfg.Returned(p.to.Name)
	}
}

// openedAlone reports whether only the breaker of p opened at that time. If others opened too, this node may have been the
// one that was cut off.
func (d *Plane) openedAlone(p *peer, at time.Time) bool {
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

// recordOverdue records that a connection attempt has had no result for too long.
func (p *peer) recordOverdue() error {
	p.mu.Lock()
	tell := func() {}
	if p.workingLink() == nil && p.closed == nil {
		p.last = fmt.Errorf("no connection after %v", silentAfter*linkTick)
		tell = p.change(p.breaker.tripped(time.Now()))
	}
	err := p.bypassed()
	p.mu.Unlock()
	tell()
	return err
}

// probe tries to reach the peer until the breaker closes or the peer record is closed.
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
