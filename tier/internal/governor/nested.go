package governor

import "context"

// A loader may read other keys through the cache. A load that waits in such a nested read is not at the origin. So it
// gives its permit back and takes one again, ahead of all queues, before the read returns. No load then holds a
// permit while it waits for another load, here or on another member. So loads whose chain has no cycle cannot
// deadlock, whatever the cap.
//
// A ticket's state, which Governor.mu guards:
//
//	state      counts  event                              next
//	idle       no      acquire                            waiting
//	waiting    no      a permit is free                   held
//	                   rejected, or its context ends      idle
//	held       yes     a nested read begins to wait       away
//	                   the load returns                   idle
//	away       no      the last nested read is answered   held, or returning if no permit is free
//	                   the load returns                   idle
//	returning  no      a permit is free                   held
//	                   another nested read begins to wait away
//	                   the load's time ends               held, above the limit if need be
//	                   the load returns                   idle
//
// A loader may run several nested reads at once. Its load is away until the last of them has its answer. Reads that
// have their answers earlier do not wait for a permit, because the load's one permit would keep the other reads'
// loads from theirs. A loader that calls the origin itself while one of its nested reads waits does so outside of the
// cap.
//
// A nested read that takes its permit again may return after its own context ends, but not after the load's context
// ends. When the load's context ends there is nothing left to load for. The read returns that context's error, and
// the load counts as if it had a permit until it returns, so that a load that goes on regardless keeps others out.
//
// Each attempt of a load is a round of its ticket. Reads that an earlier attempt left behind, or that use the context
// of a load that has returned, no longer belong to any load.
type ticketState uint8

const (
	ticketIdle ticketState = iota
	ticketWaiting
	ticketHeld
	ticketAway
	ticketReturning
)

// Nesting is what the context of a load passes to the reads that its loader makes.
type Nesting struct {
	chain  []uint64 // the fills that wait for one another, outermost first
	gov    *Governor
	ticket *Ticket
	round  uint64          // of the ticket
	load   context.Context // ends with the load's time
}

type nestingKey struct{}

// NestingOf returns the nesting of the load that ctx belongs to. It returns nil outside of a load and after the load
// has returned.
func NestingOf(ctx context.Context) *Nesting {
	n, _ := ctx.Value(nestingKey{}).(*Nesting)
	if n == nil || n.ticket.round.Load() != n.round {
		return nil
	}
	return n
}

// ChainOf returns the loads that wait for the caller of ctx, outermost first; nil outside of a load.
func ChainOf(ctx context.Context) []uint64 {
	if n := NestingOf(ctx); n != nil {
		return n.chain
	}
	return nil
}

// AttemptContext returns the context of one attempt of a load that has t's permit. The attempt's nested reads end with load.
func (g *Governor) AttemptContext(load context.Context, t *Ticket, chain []uint64) context.Context {
	return context.WithValue(load, nestingKey{}, &Nesting{chain, g, t, t.round.Load(), load})
}

// Wait records that a nested read begins to wait: its load gives its permit back. Each Wait is followed by one
// Resume. A nil Nesting does nothing.
func (n *Nesting) Wait() {
	if n == nil {
		return
	}
	g, t := n.gov, n.ticket
	g.enter()
	defer g.mu.Unlock()
	if t.round.Load() != n.round {
		return
	}
	now := g.now()
	t.nested++
	switch t.state {
	case ticketHeld:
		t.left = now
		g.free(now)
	case ticketReturning:
		g.comeBack(t)
	}
	t.state = ticketAway
	g.turn(now)
	g.arm(now)
}

// Resume records that a nested read has its answer, and waits until its load has a permit again. It returns the error
// of the load's context if that ended first.
func (n *Nesting) Resume() error {
	if n == nil {
		return nil
	}
	g, t := n.gov, n.ticket
	g.enter()
	if t.round.Load() != n.round {
		g.mu.Unlock()
		return nil
	}
	if t.nested--; t.nested > 0 {
		g.mu.Unlock()
		return nil
	}
	t.state = ticketReturning
	t.elem, t.back = g.returning.PushBack(t), make(chan struct{})
	back := t.back
	g.turn(g.now())
	g.arm(g.now())
	g.mu.Unlock()
	select {
	case <-back:
		return nil
	default:
	}
	select {
	case <-back:
		return nil
	case <-n.load.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-back: // decided in the meantime
		return nil
	default:
	}
	g.comeBack(t)
	g.hold(t, g.now())
	return n.load.Err()
}

// comeBack ends t's wait for a permit. The caller holds mu and sets the state.
func (g *Governor) comeBack(t *Ticket) {
	g.returning.Remove(t.elem)
	t.elem = nil
	close(t.back)
}

// readmit gives free permits to loads that come back from nested reads. The caller holds mu.
func (g *Governor) readmit(now int64) {
	for g.used < g.permits && g.returning.Len() > 0 {
		t := ticketOf(g.returning.Front())
		g.comeBack(t)
		g.hold(t, now)
		g.peak = max(g.peak, g.used)
	}
}

// hold counts t as holding a permit again. The caller holds mu.
func (g *Governor) hold(t *Ticket, now int64) {
	t.state = ticketHeld
	t.away += now - t.left
	g.used++
	g.busy = g.busy.Change(+1, now)
}

// free counts a permit as given back. The caller holds mu.
func (g *Governor) free(now int64) {
	g.used--
	g.busy = g.busy.Change(-1, now)
}

// Around runs a nested read that waits. Afterwards the read's load has a permit again. If it cannot get one any more,
// Around returns that error.
func (n *Nesting) Around(read func() error) (err error) {
	n.Wait()
	defer func() { // even if a user's codec panics
		if over := n.Resume(); over != nil {
			err = over
		}
	}()
	return read()
}
