package governor

import (
	"container/list"
	"sync/atomic"
	"time"
)

// Class says how urgent a fill is; a lower class is more urgent.
type Class uint8

const (
	Miss    Class = iota // a caller waits and has no copy
	Stale                // a caller waits and has a stale copy
	Refresh              // the copy is still fresh
	Warm                 // no caller needs it now: warming, drills
	Classes              // how many there are
)

// lane is a queue of the governor; a lower lane is more urgent.
type lane uint8

const (
	lanePatient lane = iota // misses whose callers have a deadline: in order of arrival, until the deadline
	laneMiss                // other misses
	laneStale
	laneRefresh
	laneWarm
	lanes
)

// laneOf returns the lane in which t waits. Callers that see a stale copy get it if they are rejected, so they do not
// wait until their deadlines.
func (o *Limits) laneOf(t *Ticket) lane {
	if t.Class == Miss && (t.Until > 0 || t.Depth > 0) && !o.NewestFirst {
		return lanePatient
	}
	return laneMiss + lane(t.Class-Miss)
}

// Ticket is the claim on a permit of one flight, or of several flights that are loaded together.
type Ticket struct {
	round atomic.Uint64 // written with Governor.mu held; how many attempts of its load have returned

	state  ticketState   // guarded by Governor.mu
	into   *Ticket       // guarded by Governor.mu; the ticket of its group; nil: it stands for itself
	nested int           // guarded by Governor.mu; the number of its load's nested reads that wait
	left   int64         // guarded by Governor.mu; when its load gave the permit back for them
	away   int64         // guarded by Governor.mu; how long, in ns, its load held no permit because of them
	back   chan struct{} // written with Governor.mu held; closed when it stops returning

	// The caller sets these three before the first Acquire; from then on Promote raises them, guarded by Governor.mu.
	Class Class
	Depth int           // how many loads wait for it in a chain
	Until int64         // ns on the governor's clock; when the last of its callers gives up, 0: none has a deadline
	came  int64         // guarded by Governor.mu; when it began to wait
	since int64         // guarded by Governor.mu; when it began to wait in its lane
	lane  lane          // guarded by Governor.mu; where it waits
	elem  *list.Element // guarded by Governor.mu; its place among the waiting or returning tickets; nil: neither
	gen   uint64        // guarded by Governor.mu; the breaker's generation when the permit was granted
	told  bool          // guarded by Governor.mu; the load's outcome is known
	err   error         // written before ready is closed; nil: granted
	ready chan struct{} // closed when it has a permit or was rejected
}

// queuePolicy says when a queue counts as overloaded and which tickets it then sheds.
type queuePolicy struct {
	target   int64 // ns; how long a ticket may wait in an overloaded queue
	interval int64 // ns; a queue that was not empty for this long is overloaded. Below 0: never
}

// fit adapts the policy to an origin that is slow for its number of permits: in the time between two free permits the
// queue must not shed the ticket that would take the second.
func (p queuePolicy) fit(load float64, permits int) queuePolicy {
	if p.interval < 0 {
		return p
	}
	p.target = max(p.target, int64(2*load/float64(max(permits, 1))))
	p.interval = max(p.interval, 4*p.target)
	return p
}

// queue holds the waiting tickets of one lane in order of arrival. Tickets that loads wait for go before the others,
// the deepest first: work that has begun is finished before more begins. Such a ticket is never shed for its wait.
//
// Callers with a deadline wait for it in a lane of their own. Only those that cannot be served in time are rejected,
// and at once if that can be foreseen.
//
// For all others it is the queue of "Fail at Scale" (Ben Maurer, ACM Queue 13:8, 2015): CoDel and adaptive LIFO. A
// queue that has been empty within the last interval (100 ms) is in good order: the oldest ticket goes first, and
// nothing is shed. A queue that has not been empty for that long gets more arrivals than the origin can serve. Then
// the newest ticket goes first, since its caller is the most likely to still want the answer, and tickets that have
// waited longer than the target (5 ms) are rejected. That empties the queue, and the overload ends.
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

// front and back return the oldest and the newest ticket, or nil.
func (q *queue) front() *Ticket { return ticketOf(q.Front()) }
func (q *queue) back() *Ticket  { return ticketOf(q.Back()) }

// root returns the oldest ticket that no load waits for, or nil. Nested tickets are before it.
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

// sheds returns when a ticket that has waited since then is shed, unless the queue becomes empty before.
func (p queuePolicy) sheds(filled, since int64) (at int64, ever bool) {
	if p.interval < 0 {
		return 0, false
	}
	return max(filled+p.interval, since+p.target), true
}

// waitFor estimates how long a new ticket waits behind so many others.
func waitFor(ahead int, load float64, permits int) time.Duration {
	return time.Duration(min(float64(ahead+1)*load/float64(max(permits, 1)), float64(time.Hour)))
}
