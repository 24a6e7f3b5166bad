package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench/workload"
)

var (
	errNotBegun = errors.New("harness: the run ended before a caller was free")
	errNoNode   = errors.New("harness: no node is up")
)

// driver runs the callers.
type driver struct {
	u       *universe
	cluster Cluster
	ledger  *ledger
	clock   *clock
	nap     func(time.Duration)
	rec     *recorder
	headers headers // of the harness alone
	seed    uint64
	end     time.Duration
	ours    bool                    // the harness created the values
	fail    context.CancelCauseFunc // ends the run, with the cause

	up      atomic.Pointer[[]int] // the nodes that callers are sent to
	turn    atomic.Uint64
	gone    []gauge // by node: how often it went
	calling []gauge // by node: calls in progress
	sees    func(node int) nodeSet
	parted  atomic.Bool // a cut separates the nodes

	unnoticed nodeSet // dead nodes that callers are still sent to; only the goroutine of the faults uses it
}

// node returns the node for the next call, or -1 if no node is up.
func (d *driver) node() int {
	up := *d.up.Load()
	if len(up) == 0 {
		return -1
	}
	return up[d.turn.Add(1)%uint64(len(up))]
}

// call makes one call and records it.
func (d *driver) call(calls context.Context, worker int, st *stream, a arrival) {
	began := d.clock.now()
	q, due := a.q, a.due
	o := outcome{due: due, began: began, late: a.sent - due, read: q.reads()}
	node := d.node()
	if node < 0 {
		o.err, o.ended = errNoNode, began
		d.rec.addAll(worker, q, o)
		return
	}
	gone := d.gone[node].Load()
	d.calling[node].Add(1)
	defer d.calling[node].Add(-1)
	ctx := calls
	if t := st.load.Timeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(calls, t.D()-(began-due)) // the request's timeout counts from when it was due
		defer cancel()
	}
	if q.op == workload.Many {
		for _, o := range d.many(ctx, node, q, o) {
			o.lost = o.err != nil && d.gone[node].Load() != gone
			d.done(calls, worker, o)
		}
		return
	}
	key := q.key
	name := d.u.names[key]
	switch q.op {
	case workload.Read:
		d.ledger.asked(key, began)
		v := d.visit(node)
		var b []byte
		b, o.err = d.cluster.Get(ctx, node, name)
		o.ended = d.clock.now()
		d.judge(&o, key, b, v)
	case workload.Write:
		version := d.ledger.write(key, d.clock.now)
		seen := d.sees(node)
		o.err = d.cluster.Invalidate(ctx, node, name)
		o.ended = d.clock.now()
		if o.err == nil {
			// Nodes in sight before or after the call have been reached, or the error would have named them.
			d.ledger.settle(key, version, o.ended, seen|d.sees(node))
		}
	}
	o.lost = o.err != nil && d.gone[node].Load() != gone
	d.done(calls, worker, o)
}

// A visit is what a node saw when it was asked.
type visit struct {
	node   int
	seen   nodeSet
	parted bool
}

func (d *driver) visit(node int) visit { return visit{node, d.sees(node), d.parted.Load()} }

// judge checks the answer to a read of a key.
func (d *driver) judge(o *outcome, key int, b []byte, v visit) {
	if o.err != nil || !d.ours {
		return
	}
	version, loaded, err := readValue(b, key)
	if o.wrong = err != nil; !o.wrong {
		o.age = o.ended - loaded
		o.stale, o.broken, o.missed = d.ledger.staleness(key, version, o.began, v.node)
		o.rejoined = o.missed > 0 && !v.parted && d.seesAll(v.seen)
	}
}

// done records an outcome, unless an interrupt caused it.
func (d *driver) done(calls context.Context, worker int, o outcome) {
	if o.err != nil && calls.Err() != nil {
		if o.err = context.Cause(calls); !errors.Is(o.err, errOver) {
			return // interrupted: it might have been answered
		}
	}
	d.rec.add(worker, o)
}

// seesAll reports whether seen contains all nodes that are up.
func (d *driver) seesAll(seen nodeSet) bool {
	for _, n := range *d.up.Load() {
		if !seen.has(n) {
			return false
		}
	}
	return true
}

// errOver is the cause that ends calls that far outlast the run.
var errOver = errors.New("harness: not answered by the end")

// guard makes a panic of a system end the run instead of the harness.
func (d *driver) guard() {
	if p := recover(); p != nil {
		d.fail(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	}
}

// run drives all streams until the end of the run or of stop.
func (d *driver) run(stop, calls context.Context) {
	var wg sync.WaitGroup
	for i, st := range d.u.streams {
		st.rewind()
		wg.Go(func() {
			from, to := st.load.From.D(), st.load.To.D()
			if to == 0 || to > d.end {
				to = d.end
			}
			if from > 0 && !d.sleepUntil(stop, from) {
				return
			}
			switch st.load.Loop {
			case "open":
				d.open(stop, calls, i, st, to)
			case "burst":
				d.burst(stop, calls, st, to)
			default:
				d.closed(stop, calls, i, st, to)
			}
		})
	}
	wg.Wait()
}

// sleepUntil waits for a time of the run. It returns false if stop ended first.
func (d *driver) sleepUntil(stop context.Context, at time.Duration) bool {
	t := time.NewTimer(at - d.clock.now())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-stop.Done():
		return false
	}
}

func (d *driver) rand(stream, worker int) *rand.Rand {
	return rand.New(rand.NewPCG(d.seed, uint64(stream)<<32|uint64(worker)))
}

// closed lets each caller send its next request as soon as the previous one is answered.
func (d *driver) closed(stop, calls context.Context, n int, st *stream, to time.Duration) {
	var wg sync.WaitGroup
	for w := range st.load.Callers {
		wg.Go(func() {
			defer d.guard()
			r := d.rand(n, w)
			for stop.Err() == nil {
				now := d.clock.now()
				if now >= to {
					return
				}
				q, ok := st.next(r)
				if !ok {
					return
				}
				d.call(calls, w, st, arrival{due: now, sent: now, q: q})
			}
		})
	}
	wg.Wait()
}

// arrival is a request. In an open loop sent is when the harness handed it to its callers; otherwise it equals due.
type arrival struct {
	due, sent time.Duration
	q         request
}

// lastCall is how long after the run's end a due request is still sent. A request that has waited longer did not
// find a free caller.
const lastCall = 20 * time.Millisecond

// open sends requests when they are due. If all callers are busy the requests wait, and the wait counts: latencies
// count from when a request was due.
func (d *driver) open(stop, calls context.Context, n int, st *stream, to time.Duration) {
	var wg sync.WaitGroup
	arrivals := make(chan arrival, st.load.Callers)
	for w := range st.load.Callers {
		wg.Go(func() {
			defer d.guard()
			for a := range arrivals {
				if now := d.clock.now(); now >= d.end && now-a.due > lastCall || stop.Err() != nil {
					d.rec.addAll(w, a.q, outcome{due: a.due, began: now, ended: now, late: a.sent - a.due, err: errNotBegun, read: a.q.reads()})
					continue
				}
				d.call(calls, w, st, a)
			}
		})
	}
	r := d.rand(n, 1<<30-1)
	due := d.clock.now()
	for stop.Err() == nil {
		q, ok := st.next(r)
		gap := 1e9 / st.load.Rate
		if st.load.Arrival == "poisson" {
			gap *= r.ExpFloat64()
		}
		due += time.Duration(gap)
		if !ok || due >= to {
			break
		}
		if !d.pace(stop, due) {
			break
		}
		select {
		case arrivals <- arrival{due, max(due, d.clock.now()), q}:
		case <-stop.Done():
		}
	}
	close(arrivals)
	wg.Wait()
}

// pace waits for a time with the precision of the system's own sleep; Go's timers are late by up to a millisecond
// on an idle machine. It returns false if stop ended first.
func (d *driver) pace(stop context.Context, due time.Duration) bool {
	const slack = 2 * time.Millisecond
	for {
		left := due - d.clock.now()
		switch {
		case left <= 0:
			return true
		case left > 2*slack:
			if !d.sleepUntil(stop, due-slack) {
				return false
			}
		default:
			d.nap(left)
		}
	}
}

// burst makes all callers ask for the same new key at the same moment, repeatedly.
func (d *driver) burst(stop, calls context.Context, st *stream, to time.Duration) {
	r := d.rand(0, 1<<30)
	at := max(d.clock.now(), 0)
	for k := 0; at < to && d.sleepUntil(stop, at); k++ {
		q := request{key: st.first + k}
		if st.source != nil || st.log != nil {
			var ok bool
			if q, ok = st.next(r); !ok {
				return
			}
		} else if q.key >= len(d.u.names) {
			return
		}
		var ready, done sync.WaitGroup
		start := make(chan struct{})
		var due time.Duration // written before start is closed
		for w := range st.load.Callers {
			ready.Add(1)
			done.Go(func() {
				defer d.guard()
				ready.Done()
				<-start
				d.call(calls, w, st, arrival{due: due, sent: due, q: q})
			})
		}
		ready.Wait()
		due = d.clock.now()
		close(start)
		done.Wait()
		for at += st.load.Every.D(); at < d.clock.now(); at += st.load.Every.D() {
		}
	}
}
