package governor

import (
	"time"

	"github.com/weircache/weir/tier/internal/clock"
)

// refuses reports whether t must be rejected at once, and why. The caller holds mu.
func (g *Governor) refuses(t *Ticket, now int64) (why Reason, after time.Duration) {
	if g.part.share <= 0 && !g.withheld {
		return NoShare, time.Second
	}
	if ok, again := g.breaker.admits(g.o.Breaker, now); !ok {
		return BreakerOpen, max(time.Duration(again-now), g.pause())
	}
	ahead := g.ahead(t, now)
	if g.used < g.permits && ahead == 0 {
		return None, 0
	}
	if wait := waitFor(ahead, g.load, g.permits); t.Until > 0 && clock.Later(now, wait+time.Duration(g.load)) > t.Until {
		return Deadline, wait
	}
	if g.waiting >= g.o.Queue && !g.displace(t, now) {
		return QueueFull, g.after(now)
	}
	return None, 0
}

// displace makes room for t in a full queue. The oldest of the least urgent tickets gives way if it is less urgent
// than t, or if it is as urgent and its queue is overloaded. The caller holds mu.
func (g *Governor) displace(t *Ticket, now int64) bool {
	own := g.o.laneOf(t)
	for l := lanes; l > own; l-- {
		q := &g.queues[l-1]
		oldest := q.root()
		if oldest == nil {
			continue
		}
		if l-1 == own && t.Depth == 0 && !g.overloaded(own, now) {
			return false
		}
		g.decide(oldest, refusal(QueueFull, g.after(now)))
		return true
	}
	return false
}

// ahead counts the tickets that go before t, which arrives now. The caller holds mu.
func (g *Governor) ahead(t *Ticket, now int64) (n int) {
	own := g.o.laneOf(t)
	for l := range own + 1 {
		n += g.queues[l].Len()
	}
	switch q := &g.queues[own]; {
	case t.Depth > 0: // before all tickets that no load waits for
		n -= q.Len()
	case own == lanePatient: // the two lanes of misses take turns
		n += min(q.Len()+1, g.queues[laneMiss].Len())
	case q.Len() > 0 && g.overloaded(own, now):
		n -= q.Len() // the newest is served first
	}
	return n
}

// overloaded reports whether a lane is overloaded. The caller holds mu.
func (g *Governor) overloaded(l lane, now int64) bool {
	return l != lanePatient && g.queues[l].Len() > 0 && g.policy().overloaded(g.queues[l].filled, now)
}

// policy returns the queues' policy, adapted to the origin's present speed. The caller holds mu.
func (g *Governor) policy() queuePolicy {
	if g.withheld { // waiting for the share is not overload
		return queuePolicy{interval: -1}
	}
	return queuePolicy{int64(g.o.QueueTarget), int64(g.o.QueueInterval)}.fit(g.load, g.permits)
}

// after returns when a caller that is rejected now should try again. The caller holds mu.
func (g *Governor) after(now int64) time.Duration {
	return max(waitFor(g.waiting, g.load, g.permits), g.o.QueueTarget)
}

// pause returns about how long a probe of the breaker takes. The caller holds mu.
func (g *Governor) pause() time.Duration { return max(time.Duration(g.load), g.o.QueueTarget) }

// shed rejects the tickets that have waited too long in an overloaded queue. The caller holds mu.
func (g *Governor) shed(now int64) {
	p := g.policy()
	for l := laneMiss; l < lanes; l++ {
		for q := &g.queues[l]; ; {
			t := q.root()
			if t == nil {
				break
			}
			if at, ever := p.sheds(q.filled, t.since); !ever || at > now {
				break
			}
			g.decide(t, refusal(QueueDelay, g.after(now)))
		}
	}
}

// refuseAll rejects every waiting ticket. The caller holds mu.
func (g *Governor) refuseAll(err error) {
	for i := range g.queues {
		for q := &g.queues[i]; q.Len() > 0; {
			g.decide(q.front(), err)
		}
	}
}
