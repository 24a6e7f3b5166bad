package governor

import (
	"testing"
	"time"
)

// A queue knows since when it has not been empty, and each ticket since when it has waited.
func TestQueueTimes(t *testing.T) {
	var q queue
	q.Init()
	if q.front() != nil || q.back() != nil {
		t.Error("an empty queue has a ticket")
	}
	a, b, c := new(Ticket), new(Ticket), new(Ticket)
	q.push(a, 10)
	q.push(b, 20)
	if q.front() != a || q.back() != b || q.filled != 10 || a.since != 10 || b.since != 20 {
		t.Errorf("%+v: front %+v, back %+v", q.filled, q.front(), q.back())
	}
	q.drop(a)
	if q.front() != b || q.back() != b || q.Len() != 1 || a.elem != nil {
		t.Error("a ticket that was dropped is there")
	}
	q.push(c, 30)
	if q.filled != 10 {
		t.Errorf("filled at %d: it has not been empty since 10", q.filled)
	}
	q.drop(b)
	q.drop(c)
	q.push(a, 40)
	if q.filled != 40 || a.since != 40 {
		t.Errorf("filled at %d, waits since %d: it was empty until 40", q.filled, a.since)
	}
}

func TestWaitFor(t *testing.T) {
	for _, x := range []struct {
		ahead   int
		load    float64
		permits int
		want    time.Duration
	}{{0, 0, 1, 0}, {0, 100, 1, 100}, {3, 100, 1, 400}, {3, 100, 4, 100}, {3, 100, 0, 400}, {1 << 30, 1e15, 1, time.Hour}, {0, float64(time.Hour), 2, time.Hour / 2}} {
		if got := waitFor(x.ahead, x.load, x.permits); got != x.want {
			t.Errorf("%d ahead, loads of %v, %d permits: %v, want %v", x.ahead, x.load, x.permits, got, x.want)
		}
	}
}

// The policy at its limits: with an interval of 0 a queue is overloaded at once, with one below 0 never.
func TestQueuePolicyLimits(t *testing.T) {
	at := queuePolicy{target: 5}
	if !at.overloaded(7, 7) {
		t.Error("an interval of 0 is never over")
	}
	if when, ever := at.sheds(7, 7); !ever || when != 12 {
		t.Errorf("gives up at %d, %v", when, ever)
	}
	never := queuePolicy{target: 5, interval: -1}
	if got := never.fit(1e9, 1); got != never {
		t.Errorf("fitted %+v", got)
	}
	for _, x := range []struct {
		p       queuePolicy
		load    float64
		permits int
		want    queuePolicy
	}{
		{queuePolicy{5, 100}, 10, 1, queuePolicy{20, 100}},
		{queuePolicy{5, 100}, 10, 2, queuePolicy{10, 100}},
		{queuePolicy{5, 100}, 100, 2, queuePolicy{100, 400}},
		{queuePolicy{0, 0}, 0, 2, queuePolicy{0, 0}},
		{queuePolicy{5, 0}, 0, 2, queuePolicy{5, 20}},
	} {
		if got := x.p.fit(x.load, x.permits); got != x.want {
			t.Errorf("%+v for loads of %v and %d permits: %+v, want %+v", x.p, x.load, x.permits, got, x.want)
		}
	}
}

// Tickets that loads wait for go before all others, the deepest first.
func TestDeepestFirst(t *testing.T) {
	var q queue
	q.Init()
	depths := func() (list []int) {
		for e := q.Front(); e != nil; e = e.Next() {
			list = append(list, ticketOf(e).Depth)
		}
		return list
	}
	var tickets []*Ticket
	for i, d := range []int{0, 1, 3, 0, 1, 2} {
		k := &Ticket{Depth: d}
		tickets = append(tickets, k)
		q.push(k, int64(i))
	}
	if got, want := depths(), []int{3, 2, 1, 1, 0, 0}; len(got) != 6 || [6]int(got) != [6]int(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if q.front() != tickets[2] || q.root() != tickets[0] || ticketOf(q.Front().Next().Next()) != tickets[1] {
		t.Error("not in the order of their coming")
	}
}
