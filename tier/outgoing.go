package tier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weircache/weir/codec"
)

const (
	// invalidateBatch is how many bytes of names go into one frame.
	invalidateBatch = 256 << 10
	// After a failed attempt to reach a member the next one waits for retryMin, then twice as long each time: up to
	// retryMax, or up to retryIdle if nobody waits.
	retryMin  = 20 * time.Millisecond
	retryMax  = 500 * time.Millisecond
	retryIdle = 5 * time.Second
	// mostRelays is how many members are asked, one after the other, to relay to a member that cannot be reached.
	mostRelays = 3
)

// Each mate has a pump, a goroutine that runs as long as there is something to do for the mate. The pump
//
//   - sends what this cache has started and the member has not confirmed, one frame at a time, so that everything
//     started meanwhile shares the next frame;
//   - has an exchange if there was a gap, or if there never was an exchange;
//   - relays through another member if this member cannot be reached and an Invalidate waits for it.
//
// It continues after an Invalidate has given up, until the member has confirmed or has left the view. A member that
// comes back into the view has an exchange first.

// A waiter is an Invalidate that waits for all members. logbook.mu guards it until done is closed.
type waiter struct {
	waits  span             // the numbers that it waits for; while open, the ones started so far
	open   bool             // not all of it is started, so no member can have confirmed it
	failed map[string]error // members that are gone
	done   chan struct{}    // closed when all others have confirmed
}

// by reports whether a member has confirmed all that w waits for.
func (w *waiter) by(m *mate) bool { return !w.open && m.confirmed.has(w.waits) }

func (w *waiter) fail(name string, err error) {
	if w.failed == nil {
		w.failed = make(map[string]error)
	}
	w.failed[name] = err
}

// resolve ends the wait of each waiter that all members have confirmed. The caller holds log.mu.
func (c *Cache[V]) resolve() {
	l := c.log
	if len(l.waiters) == 0 {
		return
	}
	c.refresh() // members that came into the view meanwhile count as well
	least, gaps := ^uint64(0), false
	for _, m := range l.mates {
		least, gaps = min(least, m.confirmed.all), gaps || len(m.confirmed.beyond) > 0
	}
	n := 0
	for _, w := range l.waiters {
		if !w.open && (w.waits.last <= least || gaps && l.byAll(w)) {
			close(w.done)
			continue
		}
		l.waiters[n] = w
		n++
	}
	clear(l.waiters[n:])
	l.waiters = l.waiters[:n]
}

// byAll reports whether every member has confirmed what w waits for. The caller holds mu.
func (l *logbook) byAll(w *waiter) bool {
	for _, m := range l.mates {
		if !w.by(m) {
			return false
		}
	}
	return true
}

// leave removes a waiter, if it is still there. The caller holds log.mu.
func (l *logbook) leave(w *waiter) {
	for i, other := range l.waiters {
		if other == w {
			l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
			return
		}
	}
}

// wanted returns the first number that a waiter waits for and that m has not confirmed. ok is false if there is none.
// The caller holds mu.
func (l *logbook) wanted(m *mate) (first uint64, ok bool) {
	for _, w := range l.waiters {
		if n := m.confirmed.missing(w.waits); n <= w.waits.last && (!ok || n < first) {
			first, ok = n, true
		}
	}
	return first, ok
}

// kick makes sure that what is due for a mate gets done: it starts the mate's pump or wakes it. The caller holds
// log.mu.
func (c *Cache[V]) kick(m *mate) {
	if m.pumping {
		m.poke()
		return
	}
	if j, at := c.next(m, c.clock.Now()); j == jobNone && at == 0 || !c.life.begin() {
		return
	}
	m.pumping = true
	go c.pump(m)
}

// job is what a pump does next.
type job uint8

const (
	jobNone  job = iota
	jobSend      // what it has not confirmed
	jobSync      // an exchange
	jobRelay     // what a waiter waits for, through another member
)

// next says what to do for a mate, or when to look again. With jobNone, an at of 0 means that there is nothing to do.
// The caller holds log.mu.
func (c *Cache[V]) next(m *mate, now int64) (j job, at int64) {
	l := c.log
	if m.gone || c.ctx.Err() != nil {
		return jobNone, 0
	}
	due := l.own().top > m.confirmed.all
	_, waited := l.wanted(m)
	work := due || m.resync || m.dirty || m.known.Load() == nil && !m.hollow
	if !work || m.via != "" && !waited {
		return jobNone, 0
	}
	if waited && m.retry > now+int64(retryMax) {
		m.retry = now // nobody waited when that was set
	}
	if m.via == "" && m.retry <= now {
		if m.known.Load() == nil || m.resync || !due {
			return jobSync, 0
		}
		return jobSend, 0
	}
	if waited && m.relayRetry <= now {
		return jobRelay, 0
	}
	switch {
	case m.via != "":
		at = m.relayRetry
	case waited:
		at = min(m.retry, m.relayRetry)
	default:
		at = m.retry
	}
	return jobNone, max(at, 1)
}

// pump does what is due for m, until nothing is.
func (c *Cache[V]) pump(m *mate) {
	defer c.life.end()
	l := c.log
	for {
		l.mu.Lock()
		now := c.clock.Now()
		j, at := c.next(m, now)
		if j == jobNone && at == 0 {
			m.pumping = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		var err error
		switch j {
		case jobSend:
			err = c.deliver(m)
		case jobSync:
			err = c.exchangeWith(c.ctx, m)
		case jobRelay:
			err = c.relay(m)
		default:
			t := time.NewTimer(time.Duration(at - now))
			select {
			case <-t.C:
			case <-m.wake:
				t.Stop()
			case <-c.ctx.Done():
				t.Stop()
			}
			continue
		}
		l.mu.Lock()
		c.attempted(m, j, err)
		l.mu.Unlock()
	}
}

// attempted notes how an attempt ended. The caller holds log.mu.
func (c *Cache[V]) attempted(m *mate, j job, err error) {
	now := c.clock.Now()
	limit := int64(retryIdle)
	if len(c.log.waiters) > 0 {
		limit = int64(retryMax)
	}
	switch {
	case j == jobRelay && err == nil:
		m.relayBackoff, m.relayRetry = 0, 0
	case j == jobRelay:
		m.relayBackoff = min(max(2*m.relayBackoff, int64(retryMin)), int64(retryMax))
		m.relayRetry = now + m.relayBackoff
		if m.via != "" {
			m.err = err
		}
	case err == nil || errors.Is(err, errHollow):
		m.backoff, m.retry, m.err = 0, 0, nil
	default:
		m.backoff = min(max(2*m.backoff, int64(retryMin)), limit)
		m.retry, m.err = now+m.backoff, err
	}
}

// attempt bounds one request about invalidations.
func (c *Cache[V]) attempt(ctx context.Context) (context.Context, context.CancelFunc, time.Duration) {
	d := min(max(c.cfg.InvalidateTimeout/4, 100*time.Millisecond), 2500*time.Millisecond)
	ctx, cancel := context.WithTimeout(ctx, d)
	return ctx, cancel, d
}

var (
	errHollow = errors.New("weir: the member has no such cache")
	errAnswer = errors.New("weir: not the answer that was due")
)

// post sends news to a member, or through it to the target. It returns the answer if that says that the news have been
// applied. without means that the member, or the target, has no such cache.
func (c *Cache[V]) post(ctx context.Context, m *mate, target string, news *codec.News) (ack codec.Response, without bool, err error) {
	ctx, cancel, timeout := c.attempt(ctx)
	defer cancel()
	req := codec.Request{Kind: codec.KindInvalidate, Namespace: c.ns, Schema: c.schema, Timeout: timeout, News: news}
	c.log.mu.Lock()
	to := m.member
	if m.via != "" {
		c.log.mu.Unlock()
		return ack, false, errGone
	}
	if c.log.view != nil {
		req.View = c.log.view.Fingerprint()
	}
	c.log.mu.Unlock()
	if target != "" {
		req.Flags, req.Target = codec.FlagRelay, bytesOf(target)
	}
	var resp codec.Response
	if err := c.cfg.Cluster.Call(ctx, to, &req, &resp); err != nil {
		return ack, false, err
	}
	defer resp.Release()
	if relayed := resp.Flags&codec.FlagRelayed != 0; relayed != (target != "") {
		return ack, false, fmt.Errorf("%w: status %d from %s in place of %s: %s", errAnswer, resp.Status, m.name, target, resp.Text)
	}
	switch resp.Status {
	case codec.StatusDone:
		ack = codec.Response{Incarnation: resp.Incarnation, Seq: resp.Seq}
		for _, name := range resp.Members {
			ack.Members = append(ack.Members, append([]byte(nil), name...))
		}
		return ack, false, nil
	case codec.StatusUnknown, codec.StatusClosed:
		return ack, true, nil
	}
	return ack, false, fmt.Errorf("%w: status %d: %s", errAnswer, resp.Status, resp.Text)
}

// deliver sends m what it has not confirmed, as much as one frame takes.
func (c *Cache[V]) deliver(m *mate) error {
	var news codec.News
	c.log.mu.Lock()
	sent, whole := c.log.since(m.confirmed.all, &news, c.clock.Now())
	exchange := !whole || c.log.retiresSince(sent, m.exchanged)
	if exchange {
		m.resync = true
	}
	c.log.mu.Unlock()
	if exchange {
		return nil
	}
	ack, without, err := c.post(c.ctx, m, "", &news)
	if err != nil {
		return err
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.acknowledge(m, m.name, sent, &ack, without)
	return nil
}

// relay sends m, through another member, what a waiter waits for.
func (c *Cache[V]) relay(m *mate) error {
	var news codec.News
	c.log.mu.Lock()
	first, wanted := c.log.wanted(m)
	if !wanted {
		c.log.mu.Unlock()
		return nil
	}
	sent, _ := c.log.since(first-1, &news, c.clock.Now())
	var through []*mate
	if via := c.log.mates[m.via]; via != nil && via.via == "" {
		through = append(through, via)
	}
	for _, other := range c.log.mates {
		if other != m && other.name != m.via && other.relays() {
			through = append(through, other)
		}
	}
	c.log.mu.Unlock()
	err := fmt.Errorf("%w: nobody else can reach %s", errAnswer, m.name)
	for _, other := range through[:min(len(through), mostRelays)] {
		ack, without, failed := c.post(c.ctx, other, m.name, &news)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("through %s: %w", other.name, failed))
			continue
		}
		c.stats.relayed.Add(1)
		c.log.mu.Lock()
		defer c.log.mu.Unlock()
		c.acknowledge(m, other.name, sent, &ack, without)
		return nil
	}
	return err
}

// acknowledge notes that m has confirmed the numbers that it was sent. The answer came from, or through, the member
// from. The caller holds log.mu.
func (c *Cache[V]) acknowledge(m *mate, from string, sent span, ack *codec.Response, without bool) {
	m.confirmed.add(sent)
	if without { // it has no copies that an invalidation could cover
		m.confirmed.add(upTo(sent.last))
		c.vacate(m)
		c.resolve()
		return
	}
	m.hollow = false
	k := m.known.Load()
	switch {
	case k == nil:
	case ack.Incarnation != k.Incarnation:
		m.known.Store(nil)
	case ack.Seq < sent.last: // it lacks something earlier: its number shows that
		m.resync = true
	case c.log.total-k.total == c.log.own().top-k.own && m.confirmed.all == c.log.own().top:
		// Nothing has been applied here since k except what is confirmed now.
		m.known.Store(c.snapshot(k.Incarnation))
	}
	c.outside(ack.Members, from)
	c.resolve()
}

// vacate notes that m has no cache of this namespace. The caller holds log.mu.
func (c *Cache[V]) vacate(m *mate) {
	m.hollow, m.settled, m.resync, m.dirty = true, true, false, false
	m.known.Store(nil)
	c.settle()
}
