package governor

import "time"

// BreakerRules says when a breaker opens, and when it closes again.
type BreakerRules struct {
	Failures float64       // the fraction of failed loads within Window at which it opens; below 0: never
	Minimum  int           // the number of loads that Window must have seen before
	Window   time.Duration // how far back loads count
	Pause    time.Duration // how long an open breaker rejects all loads before it probes
	Probes   int           // how many loads try the origin after Pause; all must succeed
}

// breakerState is closed (all loads may begin), open (none) or half open (probes).
type breakerState uint8

const (
	breakerClosed breakerState = iota
	breakerOpen
	breakerHalf
)

// BreakerStates are the names of the breaker's states in Snapshot.
var BreakerStates = [...]string{"closed", "open", "half_open"}

const breakerBuckets = 10

// breaker is the state of a circuit breaker. Its methods return the next state and change nothing. It has
// generations, so that a load that began before the breaker opened says nothing about the origin after it.
type breaker struct {
	state    breakerState
	gen      uint64 // rises with each change of state
	until    int64  // open: when probing may begin
	probing  int    // half open: probes that run
	proved   int    // half open: probes that succeeded
	at       int64  // closed: the number of the newest bucket
	ok, bad  [breakerBuckets]uint32
	openings int64
}

// admits reports whether one more load may begin. If not, again is when it is worth asking again (0: when a probe has
// ended).
func (b breaker) admits(p BreakerRules, now int64) (ok bool, again int64) {
	switch b.state {
	case breakerOpen:
		return now >= b.until, b.until
	case breakerHalf:
		return b.probing+b.proved < p.Probes, 0
	}
	return true, 0
}

// begun returns the state after an admitted load has begun.
func (b breaker) begun(now int64) breaker {
	if b.state == breakerOpen && now >= b.until {
		b = b.enter(breakerHalf)
	}
	if b.state == breakerHalf {
		b.probing++
	}
	return b
}

// ended returns the state after a load of generation gen has ended.
func (b breaker) ended(p BreakerRules, gen uint64, out Outcome, now int64) breaker {
	if gen != b.gen {
		return b
	}
	switch {
	case b.state == breakerHalf && out == Failed:
		b = b.enter(breakerOpen)
		b.until = now + int64(p.Pause)
		b.openings++
	case b.state == breakerHalf:
		b.probing--
		if out == OK {
			b.proved++
		}
		if b.proved >= p.Probes {
			b = b.enter(breakerClosed)
		}
	case b.state == breakerClosed && out != Void:
		b = b.roll(p, now)
		i := b.at % breakerBuckets
		if out == OK {
			b.ok[i]++
			return b
		}
		b.bad[i]++
		ok, bad := b.sums()
		if p.Failures > 0 && ok+bad >= p.Minimum && float64(bad) >= p.Failures*float64(ok+bad) {
			b = b.enter(breakerOpen)
			b.until = now + int64(p.Pause)
			b.openings++
		}
	}
	return b
}

// roll forgets the buckets that are past the window.
func (b breaker) roll(p BreakerRules, now int64) breaker {
	at := now / max(int64(p.Window)/breakerBuckets, 1)
	for n := min(at-b.at, breakerBuckets); n > 0; n-- {
		i := (at - n + 1) % breakerBuckets
		b.ok[i], b.bad[i] = 0, 0
	}
	b.at = max(at, b.at)
	return b
}

func (b breaker) sums() (ok, bad int) {
	for i := range b.ok {
		ok += int(b.ok[i])
		bad += int(b.bad[i])
	}
	return ok, bad
}

func (b breaker) enter(s breakerState) breaker {
	return breaker{state: s, gen: b.gen + 1, at: b.at, openings: b.openings}
}

// Outcome is what a load says about the origin.
type Outcome uint8

const (
	OK     Outcome = iota // it answered, even with "not found"
	Failed                // it failed, or took too long
	Void                  // nothing: the load did not reach the origin
)
