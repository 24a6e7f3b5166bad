package governor

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/clock"
)

// A Governor gives out the permits of one origin, which several caches may share. Its methods are safe for concurrent
// use. Its times are ns on its own clock.
type Governor struct {
	changes atomic.Uint64 // of the breaker: rises with each change of its state; written with mu held

	o     Limits
	now   func() int64
	share func() (permits, members int) // of this node, now; called without mu held
	// shares rises when a share takes effect that differs from the last one, and with each word about the share
	// (FitsShare, Running); written with mu held.
	shares atomic.Uint64

	mu      sync.Mutex // guards the rest
	used    int        // permits held
	peak    int        // the most that were held at once
	waiting int        // over all queues
	queues  [lanes]queue
	// returning are the tickets of loads that want their permit back after a nested read; they go before all queues.
	returning list.List
	permits   int     // as of the last call, the adaptive limit included
	load      float64 // recent mean time of a load, ns; 0: none has ended
	breaker   breaker
	limit     limit
	rate      bucket
	retries   bucket
	part      part // as of the last call
	missed    bool // whether the second of the two lanes of misses had the last turn
	busy      Occupancy
	closed    bool
	users     int // caches that are attached
	// asking is the number of caches that have asked the members whether this node may take its share, and have no
	// answer yet. allowed: one cache got a yes. granted: all have answers, and the share is taken for good. withheld:
	// the share is not taken. See share.go.
	asking                     int
	allowed, granted, withheld bool

	timer *time.Timer    // nil: nothing is due
	due   int64          // when it fires
	wakes sync.WaitGroup // the timer's pending calls
}

// New returns a governor whose time is now, in ns. share returns this node's part of the cluster's permits and the
// number of members, at the moment of the call; it may block and may take locks. Open it before use.
func New(o Limits, now func() int64, share func() (permits, members int)) *Governor {
	g := &Governor{o: o, now: now, share: share, part: part{0, 1}}
	g.retries.spent = RetryReserve / 2
	g.returning.Init()
	for i := range g.queues {
		g.queues[i].Init()
	}
	return g
}

// part is a member's part of what the whole cluster may do.
type part struct {
	share   int // permits
	members int // the number of members that share rate and burst
}

// Acquire waits for a permit until the ticket's callers give up, for Limits.Timeout if they have no deadline, or
// until ctx ends. The error is a *Refusal, or ctx's cause if ctx was cancelled.
func (g *Governor) Acquire(ctx context.Context, t *Ticket) error {
	g.enter()
	now := g.now()
	g.turn(now)
	if why, after := g.refuses(t, now); why != None {
		g.mu.Unlock()
		return refusal(why, after)
	}
	t.err, t.ready, t.state, t.came = nil, nil, ticketWaiting, now
	g.push(t, now)
	g.waiting++
	g.turn(now)
	if t.state != ticketWaiting {
		g.mu.Unlock()
		return t.err
	}
	t.ready = make(chan struct{})
	timer := time.NewTimer(time.Duration(g.limitOf(t) - now))
	defer timer.Stop()
	g.arm(now)
	g.mu.Unlock()

	for {
		select {
		case <-t.ready:
			return t.err
		case <-timer.C:
		case <-ctx.Done():
		}
		if over, err := g.giveUp(ctx, t, timer); over {
			return err
		}
	}
}

// giveUp ends t's wait if its time is up or ctx has ended. If t was given more time in the meantime, giveUp sets the
// timer for that.
func (g *Governor) giveUp(ctx context.Context, t *Ticket, timer *time.Timer) (over bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.state != ticketWaiting { // decided in the meantime
		return true, t.err
	}
	now := g.now()
	if left := g.limitOf(t) - now; left > 0 && ctx.Err() == nil {
		timer.Reset(time.Duration(left))
		return false, nil
	}
	g.queues[t.lane].drop(t)
	g.waiting--
	t.state = ticketIdle
	switch err := context.Cause(ctx); {
	case err != nil && err != context.DeadlineExceeded:
		return true, err
	case err == nil && t.Until > 0:
		return true, refusal(Deadline, g.after(now))
	}
	return true, refusal(TimedOut, g.after(now))
}

// limitOf returns the time until which t waits. The caller holds mu.
func (g *Governor) limitOf(t *Ticket) int64 {
	if t.Until > 0 {
		return t.Until
	}
	return t.came + int64(g.o.Timeout)
}

// push puts t into its queue. The caller holds mu.
func (g *Governor) push(t *Ticket, now int64) {
	t.lane = g.o.laneOf(t)
	g.queues[t.lane].push(t, now)
}

// enter locks mu and adopts the present share. It asks for the share without the lock, since that calls other code.
// It asks again if, since it asked, another share has taken effect or a word about the share was given. So no older
// share takes effect after a newer one or after that word. Each turn of the loop means that another goroutine has
// made progress.
func (g *Governor) enter() {
	for {
		asked := g.shares.Load()
		share, members := g.share()
		g.mu.Lock()
		if g.shares.Load() == asked {
			g.settle(part{share, max(members, 1)})
			return
		}
		g.mu.Unlock()
	}
}

// settle adopts the share p. The caller holds mu.
func (g *Governor) settle(p part) {
	if p != g.part {
		g.part = p
		g.shares.Add(1)
	}
	g.permits = g.limit.permits(p.share, g.floor())
	if g.withheld {
		g.permits = 0
	}
}

// floor returns the least fraction of the share that the adaptive limit leaves.
func (g *Governor) floor() float64 { return float64(g.o.MinConcurrency) / float64(g.o.Concurrency) }

// decide ends the wait of t, with a permit if err is nil. The caller holds mu.
func (g *Governor) decide(t *Ticket, err error) {
	g.queues[t.lane].drop(t)
	g.waiting--
	t.err, t.state = err, ticketIdle
	if t.ready != nil {
		close(t.ready)
	}
}

// turn decides whatever can be decided now: it rejects the tickets that the queues shed, and gives free permits to
// the most urgent. The caller holds mu.
func (g *Governor) turn(now int64) {
	g.readmit(now)
	g.shed(now)
	for g.waiting > 0 && g.used < g.permits {
		if ok, again := g.breaker.admits(g.o.Breaker, now); !ok {
			g.refuseAll(refusal(BreakerOpen, max(time.Duration(again-now), g.pause())))
			return
		}
		if g.o.Rate > 0 {
			next, ok, _ := g.token(now)
			if !ok {
				return
			}
			if !g.grant(now) {
				return
			}
			g.rate = next
			continue
		}
		if !g.grant(now) {
			return
		}
	}
}

// token takes one token of the rate. The caller holds mu, and stores next if it uses the token.
func (g *Governor) token(now int64) (next bucket, ok bool, again int64) {
	n := float64(g.part.members)
	return g.rate.take(g.o.Rate/n, max(float64(g.o.Burst)/n, 1), now)
}

// grant gives one permit. It returns false if nothing waits. The caller holds mu.
func (g *Governor) grant(now int64) bool {
	for l := g.nextLane(); l < lanes; l = g.nextLane() {
		q := &g.queues[l]
		t, over := q.front(), g.overloaded(l, now)
		if over && t.Depth == 0 {
			t = q.back()
		}
		if t.Until > 0 && (over || l == lanePatient) && t.Until <= now+g.least(q) {
			g.decide(t, refusal(Deadline, g.after(now)))
			continue
		}
		g.decide(t, nil)
		t.left, t.away, t.nested = now, 0, 0
		g.hold(t, now)
		g.peak = max(g.peak, g.used)
		g.breaker = g.breaker.begun(now)
		g.changes.Store(g.breaker.gen)
		t.gen, t.told = g.breaker.gen, false
		return true
	}
	return false
}

// least returns how much time, in ns, a ticket of q must have left to be served: none if it waits alone there,
// otherwise the duration of a load. The caller holds mu.
func (g *Governor) least(q *queue) int64 {
	if q.Len() < 2 {
		return 0
	}
	return int64(g.load)
}

// nextLane returns the lane whose turn it is, or lanes if all are empty. The two lanes of misses take turns, except
// for tickets that loads wait for. The caller holds mu.
func (g *Governor) nextLane() lane {
	l := lanePatient
	for l < lanes && g.queues[l].Len() == 0 {
		l++
	}
	if l != lanePatient || g.queues[laneMiss].Len() == 0 {
		return l
	}
	if g.queues[lanePatient].front().Depth > 0 {
		return lanePatient
	}
	if g.missed = !g.missed; g.missed {
		return laneMiss
	}
	return lanePatient
}

// Promote makes a ticket as urgent as c and depth. It lets the ticket wait as long as a caller that gives up at until
// (0: without a deadline). The same holds for the ticket that stands for it.
func (g *Governor) Promote(t *Ticket, c Class, depth int, until int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.raise(t, c, depth, until)
	if t.into != nil {
		g.raise(t.into, c, depth, until)
	}
}

// raise is Promote for one ticket. The caller holds mu.
func (g *Governor) raise(t *Ticket, c Class, depth int, until int64) {
	now := g.now()
	switch {
	case until == t.Until:
	case until == 0 || t.Until == 0: // callers with and without a deadline wait together
		t.Until = max(t.Until, until, clock.Later(now, g.o.Timeout))
	default:
		t.Until = max(t.Until, until)
	}
	deeper := depth > t.Depth
	t.Class, t.Depth = min(c, t.Class), max(depth, t.Depth)
	if t.state != ticketWaiting || !deeper && g.o.laneOf(t) == t.lane {
		return
	}
	g.queues[t.lane].drop(t)
	g.push(t, now)
	g.arm(now)
}

// Overran counts a load that has used up its time as failed, unless it was not at the origin but waited for other
// loads. The load keeps its permit.
func (g *Governor) Overran(t *Ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.into != nil {
		t = t.into
	}
	out, now := Failed, g.now()
	if t.state == ticketAway || t.state == ticketReturning {
		out = Void
	}
	g.tell(t, out, max(g.o.Timeout-time.Duration(t.away), 0), now)
}

// tell passes the outcome of a load to the breaker and the limit, once. The caller holds mu.
func (g *Governor) tell(t *Ticket, out Outcome, cost time.Duration, now int64) {
	if t.told {
		return
	}
	t.told = true
	g.breaker = g.breaker.ended(g.o.Breaker, t.gen, out, now)
	g.changes.Store(g.breaker.gen)
	if out == Void {
		return
	}
	if g.load == 0 {
		g.load = float64(cost)
	}
	g.load += (float64(cost) - g.load) / 16
	g.limit = g.limit.ended(g.floor(), g.part.share, g.used, cost, out == Failed, now)
}

// Release returns a permit after its load has really returned.
func (g *Governor) Release(t *Ticket, out Outcome, cost time.Duration) {
	g.enter()
	defer g.mu.Unlock()
	now := g.now()
	switch t.state {
	case ticketHeld:
		g.free(now)
	case ticketReturning:
		g.comeBack(t)
		fallthrough
	case ticketAway:
		t.away += now - t.left
	}
	t.state = ticketIdle
	t.round.Add(1)
	g.tell(t, out, max(cost-time.Duration(t.away), 0), now)
	g.settle(g.part) // the limit may have changed
	g.turn(now)
	g.arm(now)
}

// TakeRetry takes one retry from the budget. It returns false if the budget is empty or if the origin is failing in
// general.
func (g *Governor) TakeRetry() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if ok, _ := g.breaker.admits(g.o.Breaker, now); !ok || g.o.RetryBudget < 0 {
		return false
	}
	next, ok, _ := g.retries.take(0, RetryReserve, now)
	if ok {
		g.retries = next
	}
	return ok
}

// EarnRetry counts a load, which earns a fraction of a retry.
func (g *Governor) EarnRetry() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.retries = g.retries.earn(max(g.o.RetryBudget, 0))
}

// Usage returns the number of permits in use, and whether the breaker lets everything through.
func (g *Governor) Usage() (used int, well bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used, g.breaker.state == breakerClosed
}

// Breaker reports whether the breaker is closed, and how often it has opened.
func (g *Governor) Breaker() (closed bool, openings int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.breaker.state == breakerClosed, g.breaker.openings
}

// BreakerGeneration changes with each change of the breaker's state.
func (g *Governor) BreakerGeneration() uint64 { return g.changes.Load() }

// Time returns the time of the governor's clock, in ns.
func (g *Governor) Time() int64 { return g.now() }

// Snapshot returns the present state.
func (g *Governor) Snapshot() Snapshot {
	g.enter()
	defer g.mu.Unlock()
	now := g.now()
	p := g.policy()
	s := Snapshot{
		Share: g.part.share, Limit: g.permits, InUse: g.used, Peak: g.peak, Waiting: g.waiting + g.returning.Len(),
		WaitingBy: make(map[string]int), Breaker: BreakerStates[g.breaker.state], BreakerOpenings: g.breaker.openings,
		LoadSeconds: g.load / float64(time.Second), RetriesLeft: int(RetryReserve - g.retries.spent),
		OriginSeconds: g.busy.Total(now),
	}
	for l := range lanes {
		q := &g.queues[l]
		s.WaitingBy[classNames[max(l, laneMiss)-laneMiss]] += q.Len()
		s.Overloaded = s.Overloaded || q.Len() > 0 && p.overloaded(q.filled, now)
	}
	return s
}

var classNames = [Classes]string{"miss", "stale", "refresh", "warm"}

// Occupancy integrates the number of permits in use over time.
type Occupancy struct {
	n   int
	sum float64 // permit-seconds up to at
	at  int64
}

// Change adds by to the number in use.
func (o Occupancy) Change(by int, now int64) Occupancy {
	return Occupancy{n: o.n + by, sum: o.Total(now), at: now}
}

// Total returns the permit-seconds so far, running loads included.
func (o Occupancy) Total(now int64) float64 {
	return o.sum + float64(o.n)*time.Duration(now-o.at).Seconds()
}
