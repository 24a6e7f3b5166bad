package governor

import (
	"container/list"
	"sync/atomic"
	"time"
)

// Class says how urgent a fill is; the lower the more urgent.
type Class uint8

const (
	Miss    Class = iota // somebody waits and there is no copy
	Stale                // there is a stale copy
	Refresh              // the copy is still fresh
	Warm                 // nobody needs it now: warming, drills
	Classes              // how many there are
)

// lane is a queue of the governor; the lower the more urgent.
type lane uint8

const (
	lanePatient lane = iota // misses whose callers have a deadline: in the order of their coming, until that
	laneMiss                // other misses
	laneStale
	laneRefresh
	laneWarm
	lanes
)

// laneOf is where t waits. Callers that see a stale copy have it if they are refused, so they do not wait
// for their deadlines.
func (o *Limits) laneOf(t *Ticket) lane {
	if t.Class == Miss && (t.Until > 0 || t.Depth > 0) && !o.NewestFirst {
		return lanePatient
	}
	return laneMiss + lane(t.Class-Miss)
}

// Ticket is one flight's claim on a permit, or that of the flights that are loaded together.
type Ticket struct {
	round atomic.Uint64 // written with Governor.mu held; how many attempts of its load have returned

	state  ticketState   // guarded by Governor.mu
	into   *Ticket       // guarded by Governor.mu; the ticket of the group that it is part of, nil: it stands for itself
	nested int           // guarded by Governor.mu; nested reads of its load that wait
	left   int64         // guarded by Governor.mu; when its load gave the permit back to wait for them
	away   int64         // guarded by Governor.mu; for how long, ns, its load held no permit for that reason
	back   chan struct{} // written with Governor.mu held; closed when it is no longer returning

	Class Class         // guarded by Governor.mu
	Depth int           // guarded by Governor.mu; how many loads wait for it, one for another
	Until int64         // guarded by Governor.mu; when the last of its callers gives up, 0: none has a deadline
	came  int64         // guarded by Governor.mu; when it began to wait
	since int64         // guarded by Governor.mu; when it began to wait in its lane
	lane  lane          // guarded by Governor.mu; where it waits
	elem  *list.Element // guarded by Governor.mu; its place among those that wait, or return; nil: neither
	gen   uint64        // guarded by Governor.mu; the breaker's generation when the permit was granted
	told  bool          // guarded by Governor.mu; the load's outcome is known
	err   error         // written before ready is closed; nil: granted
	ready chan struct{} // closed when it has a permit or was refused
}

// queuePolicy is when a queue counts as overloaded and who is then given up.
type queuePolicy struct {
	target   int64 // ns; how long one may wait in an overloaded queue
	interval int64 // ns; a queue that was not empty for so long is overloaded. Below 0: never
}

// fit adapts the policy to an origin that is slow for its permits: between two permits that come
// free somebody must be left to take the second.
func (p queuePolicy) fit(load float64, permits int) queuePolicy {
	if p.interval < 0 {
		return p
	}
	p.target = max(p.target, int64(2*load/float64(max(permits, 1))))
	p.interval = max(p.interval, 4*p.target)
	return p
}

// queue holds the tickets of one lane that wait, in the order in which they came; before them those that loads wait
// for, the deepest first: what has been begun is finished before more is begun. These are not given up for their wait.
//
// Callers with a deadline wait for it, in the lane of their own: only those are refused that cannot be served in time, at once
// if that can be foreseen.
//
// For all others it is the queue of "Fail at Scale" (Ben Maurer, ACM Queue 13:8, 2015): CoDel and adaptive LIFO.
// As long as it has been empty within the last interval (100 ms) it is in good order: who came
// first is served first, and nobody is given up. When it has not been empty for that long,
// arrivals are above what the origin gives. Then the newest is served first, who is the likeliest to
// still want the answer, and who has waited for longer than the target (5 ms) is refused: that
// empties the queue, and with it the overload ends.
type queue struct {
	list.List
	filled int64 // since when it has not been empty
}

func (q *queue) push(t *Ticket, now int64) {
	if q.Len() == 0 {
		q.filled = now
	}
	t.since = now
	for e := q.Front(); t.Depth > 0 && e != nil; e = e.Next() {
		if ticketOf(e).Depth < t.Depth {
			t.elem = q.InsertBefore(t, e)
			return
		}
	}
	t.elem = q.PushBack(t)
}

func (q *queue) drop(t *Ticket) {
	q.Remove(t.elem)
	t.elem = nil
}

// front and back are the oldest and the newest ticket, nil: none.
func (q *queue) front() *Ticket { return ticketOf(q.Front()) }
func (q *queue) back() *Ticket  { return ticketOf(q.Back()) }

// root is the oldest ticket that no load waits for, nil: none. Nested ones are before it.
func (q *queue) root() *Ticket {
	for e := q.Front(); e != nil; e = e.Next() {
		if t := ticketOf(e); t.Depth == 0 {
			return t
		}
	}
	return nil
}

func ticketOf(e *list.Element) *Ticket {
	if e == nil {
		return nil
	}
	return e.Value.(*Ticket)
}

// overloaded reports whether a queue that has not been empty since filled is overloaded.
func (p queuePolicy) overloaded(filled, now int64) bool {
	return p.interval >= 0 && now-filled >= p.interval
}

// sheds is when a ticket that waits since then is given up, unless the queue is empty before.
func (p queuePolicy) sheds(filled, since int64) (at int64, ever bool) {
	if p.interval < 0 {
		return 0, false
	}
	return max(filled+p.interval, since+p.target), true
}

// waitFor is about how long a newcomer waits, with so many before him.
func waitFor(ahead int, load float64, permits int) time.Duration {
	return time.Duration(min(float64(ahead+1)*load/float64(max(permits, 1)), float64(time.Hour)))
}
