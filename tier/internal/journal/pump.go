package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weircache/weir/codec"
)

const (
	// frameBytes is how many bytes of names go into one frame.
	frameBytes = 256 << 10
	// After a failed attempt to reach a member the next one waits for retryMin, then twice as long each time: up to
	// retryMax, or up to retryIdle if nobody waits.
	retryMin  = 20 * time.Millisecond
	retryMax  = 500 * time.Millisecond
	retryIdle = 5 * time.Second
	// maxRelays is how many members are asked, one after the other, to relay to a member that cannot be reached.
	maxRelays = 3
)

// Each member has a pump, a goroutine that runs as long as there is something to do for the member. The pump
//
//   - sends what this cache has started and the member has not confirmed, one frame at a time, so that everything
//     started meanwhile shares the next frame;
//   - has an exchange if there was a gap, or if there never was an exchange;
//   - relays through another member if this member cannot be reached and a caller waits for it.
//
// It continues after the caller has given up, until the member has confirmed or has left the view. A member that comes
// back into the view has an exchange first.

// A step is what a pump does next.
type step uint8

const (
	stepNone     step = iota // there is nothing to do
	stepSleep                // until a time, or until something happens
	stepDeliver              // sends what the member has not confirmed
	stepExchange             // has an exchange
	stepRelay                // sends what a caller waits for through another member
)

// state is what a member's next step depends on.
type state struct {
	over        bool // the member has gone, or the cache is closed
	outside     bool // only another member sees it
	known       bool // its watermark is known
	empty       bool // it has no such cache
	gap         bool // it lacks something earlier
	exchangeDue bool
	behind      bool // it has not confirmed all that was started here
	awaited     bool // a caller waits for it
	// no attempt to reach the member itself, or to relay to it, before these; ns on the cache's clock
	direct, relayed int64
}

// next returns the next step. at is the end of a stepSleep, in ns on the cache's clock.
func (s state) next(now int64) (do step, at int64) {
	work := s.behind || s.gap || s.exchangeDue || !s.known && !s.empty
	if s.over || !work || s.outside && !s.awaited {
		return stepNone, 0
	}
	if s.awaited && s.direct > now+int64(retryMax) {
		s.direct = now // nobody waited when that was set
	}
	if !s.outside && s.direct <= now {
		if !s.known || s.gap || !s.behind {
			return stepExchange, 0
		}
		return stepDeliver, 0
	}
	if s.awaited && s.relayed <= now {
		return stepRelay, 0
	}
	switch {
	case s.outside:
		return stepSleep, s.relayed
	case s.awaited:
		return stepSleep, min(s.direct, s.relayed)
	}
	return stepSleep, s.direct
}

// backoff spaces the attempts to reach a member. The zero backoff allows one at once.
type backoff struct{ wait, until int64 } // ns

// failed notes a failed attempt. The next wait is twice as long as the last one and at most limit.
func (b *backoff) failed(now int64, limit time.Duration) {
	b.wait = min(max(2*b.wait, int64(retryMin)), int64(limit))
	b.until = now + b.wait
}

// stateOf returns m's state. The caller holds mu.
func (j *Journal) stateOf(m *Member) state {
	_, awaited := j.awaited(m)
	return state{
		over: m.gone || j.ctx.Err() != nil, outside: m.via != "",
		known: m.watermark.Load() != nil, empty: m.empty, gap: m.gap, exchangeDue: m.exchangeDue,
		behind: j.log.own().top > m.confirmed.all, awaited: awaited,
		direct: m.direct.until, relayed: m.relayed.until,
	}
}

// startPump makes sure that what is due for a member gets done: it starts the member's pump or wakes it. The caller
// holds mu.
func (j *Journal) startPump(m *Member) {
	if m.pumping {
		m.wakeUp()
		return
	}
	if do, _ := j.stateOf(m).next(j.now()); do == stepNone {
		return
	}
	m.pumping = j.spawn(func() { j.pump(m) })
}

// pump does what is due for m, until nothing is.
func (j *Journal) pump(m *Member) {
	for {
		j.mu.Lock()
		now := j.now()
		do, at := j.stateOf(m).next(now)
		if do == stepNone {
			m.pumping = false
			j.mu.Unlock()
			return
		}
		j.mu.Unlock()
		var err error
		switch do {
		case stepDeliver:
			err = j.deliver(m)
		case stepExchange:
			err = j.Exchange(j.ctx, m)
		case stepRelay:
			err = j.relay(m)
		case stepSleep:
			t := time.NewTimer(time.Duration(at - now))
			select {
			case <-t.C:
			case <-m.wake:
				t.Stop()
			case <-j.ctx.Done():
				t.Stop()
			}
			continue
		}
		j.mu.Lock()
		j.attempted(m, do, err)
		j.mu.Unlock()
	}
}

// attempted notes how an attempt ended. The caller holds mu.
func (j *Journal) attempted(m *Member, do step, err error) {
	now, limit := j.now(), retryIdle
	if len(j.waits) > 0 {
		limit = retryMax
	}
	switch {
	case do == stepRelay && err == nil:
		m.relayed = backoff{}
	case do == stepRelay:
		m.relayed.failed(now, retryMax)
		if m.via != "" {
			m.err = err
		}
	case err == nil || errors.Is(err, errEmpty):
		m.direct, m.err = backoff{}, nil
	default:
		m.direct.failed(now, limit)
		m.err = err
	}
}

// attempt bounds one request about invalidations.
func (j *Journal) attempt(ctx context.Context) (context.Context, context.CancelFunc, time.Duration) {
	d := min(max(j.timeout/4, 100*time.Millisecond), 2500*time.Millisecond)
	ctx, cancel := context.WithTimeout(ctx, d)
	return ctx, cancel, d
}

// ErrAnswer says that a member answered something else than what it was asked.
var ErrAnswer = errors.New("weir: unexpected answer from a member")

var errEmpty = errors.New("weir: the member has no such cache")

// acknowledgement is the answer to news that were sent.
type acknowledgement struct {
	incarnation, seq uint64   // of the cache that answers, and up to which number it has applied the sender's
	members          [][]byte // of its view, if that is not the sender's
	empty            bool     // it has no such cache
}

// post sends news to a member, or through it to the member named target. The answer says that the news have been
// applied.
func (j *Journal) post(ctx context.Context, m *Member, target string, news *codec.News) (ack acknowledgement, err error) {
	ctx, cancel, timeout := j.attempt(ctx)
	defer cancel()
	req := codec.Request{Kind: codec.KindInvalidate, Namespace: j.namespace, Schema: j.schema, Timeout: timeout, News: news}
	j.mu.Lock()
	to := m.node
	if m.via != "" {
		j.mu.Unlock()
		return ack, ErrGone
	}
	req.View = j.viewPrint()
	j.mu.Unlock()
	if target != "" {
		req.Flags, req.Target = codec.FlagRelay, []byte(target)
	}
	var resp codec.Response
	if err := j.peers.Call(ctx, to, &req, &resp); err != nil {
		return ack, err
	}
	defer resp.Release()
	if relayed := resp.Flags&codec.FlagRelayed != 0; relayed != (target != "") {
		return ack, fmt.Errorf("%w: status %d from %s instead of %s: %s", ErrAnswer, resp.Status, m.name, target, resp.Text)
	}
	switch resp.Status {
	case codec.StatusDone:
		ack.incarnation, ack.seq = resp.Incarnation, resp.Seq
		for _, name := range resp.Members {
			ack.members = append(ack.members, append([]byte(nil), name...))
		}
		return ack, nil
	case codec.StatusUnknown, codec.StatusClosed:
		return acknowledgement{empty: true}, nil
	}
	return ack, fmt.Errorf("%w: status %d: %s", ErrAnswer, resp.Status, resp.Text)
}

// deliver sends m what it has not confirmed, as much as one frame takes.
func (j *Journal) deliver(m *Member) error {
	var news codec.News
	j.mu.Lock()
	sent, whole := j.log.since(m.confirmed.all, &news, j.now())
	exchange := !whole || j.log.retiresSince(sent, m.exchanged)
	if exchange {
		m.gap = true
	}
	j.mu.Unlock()
	if exchange {
		return nil
	}
	ack, err := j.post(j.ctx, m, "", &news)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acknowledge(m, m.name, sent, &ack)
	return nil
}

// relay sends m, through another member, what a caller waits for.
func (j *Journal) relay(m *Member) error {
	var news codec.News
	j.mu.Lock()
	first, awaited := j.awaited(m)
	if !awaited {
		j.mu.Unlock()
		return nil
	}
	sent, _ := j.log.since(first-1, &news, j.now())
	var through []*Member
	if via := j.members[m.via]; via != nil && via.via == "" {
		through = append(through, via)
	}
	for _, other := range j.members {
		if other != m && other.name != m.via && other.relays() {
			through = append(through, other)
		}
	}
	j.mu.Unlock()
	err := fmt.Errorf("%w: no other member can reach %s", ErrAnswer, m.name)
	for _, other := range through[:min(len(through), maxRelays)] {
		ack, failed := j.post(j.ctx, other, m.name, &news)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("through %s: %w", other.name, failed))
			continue
		}
		j.counts.Relayed.Add(1)
		j.mu.Lock()
		defer j.mu.Unlock()
		j.acknowledge(m, other.name, sent, &ack)
		return nil
	}
	return err
}

// acknowledge notes that m has confirmed the numbers that it was sent. The answer came from, or through, the member
// from. The caller holds mu.
func (j *Journal) acknowledge(m *Member, from string, sent span, ack *acknowledgement) {
	m.confirmed.add(sent)
	if ack.empty { // it has no copies that an invalidation could cover
		m.confirmed.add(upTo(sent.last))
		j.setEmpty(m)
		j.endWaits()
		return
	}
	m.empty = false
	w := m.watermark.Load()
	switch {
	case w == nil:
	case ack.incarnation != w.Incarnation:
		m.watermark.Store(nil)
	case ack.seq < sent.last: // it lacks something earlier: its number shows that
		m.gap = true
	case j.log.total-w.total == j.log.own().top-w.own && m.confirmed.all == j.log.own().top:
		// Nothing has been applied here since w except what is confirmed now.
		m.watermark.Store(j.appliedHere(w.Incarnation))
	}
	j.addOutside(ack.members, from)
	j.endWaits()
}

// setEmpty notes that m has no cache of this namespace. The caller holds mu.
func (j *Journal) setEmpty(m *Member) {
	m.empty, m.compared, m.gap, m.exchangeDue = true, true, false, false
	m.watermark.Store(nil)
	j.notePending()
}

// viewPrint returns the fingerprint of the view that was last applied; 0: none. The caller holds mu.
func (j *Journal) viewPrint() uint64 {
	if j.view == nil {
		return 0
	}
	return j.view.Fingerprint()
}
