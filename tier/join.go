package tier

import (
	"context"
	"strings"
	"time"

	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// noWait, as the time until which a caller waits, says that the caller does not wait.
const noWait = -1

// patience returns until when a caller waits for a flight; 0: without end.
func (c *core) patience(ctx context.Context) int64 {
	if deadline, ok := ctx.Deadline(); ok {
		return max(clock.Later(c.clock.Now(), time.Until(deadline)), 1)
	}
	return 0
}

// join returns the live flight for a key, starting one if there is none.
func (c *core) join(w *joining) (*flight, error) {
	f, _, err := c.joinOrStart(w)
	return f, err
}

// joining is what a caller wants of a flight. maxAge, wide and began are ignored for a caller that only starts one.
type joining struct {
	lookup
	class  governor.Class
	cause  placement.Cause
	prev   *store.Entry // the copy that the caller saw, nil: none
	until  int64        // until when the caller waits: patience, or noWait
	from   Trace        // the caller's trace, if it is traced
	before *flight      // the flight that sends the caller on, see flights.join; nil: none
	wide   uint64       // the tag clock when the caller's read began
	began  int64        // when the caller's read began
}

// joinOrStart is join, and reports whether it started the flight.
func (c *core) joinOrStart(w *joining) (f *flight, started bool, err error) {
	if !c.life.begin() {
		return nil, false, ErrClosed
	}
	f, started = c.flights.join(w.hash, w.key, w.until != noWait, w.before, func() *flight {
		return &flight{
			key: strings.Clone(w.key), hash: w.hash, cause: w.cause, prev: w.prev, short: w.standsIn(), from: w.from,
			chain: append(w.chain[:len(w.chain):len(w.chain)], c.chainID(w.hash)),
			done:  make(chan struct{}), ticket: governor.Ticket{Class: w.class, Depth: depthOf(w.chain, w.until), Until: c.govTime(max(w.until, 0))},
		}
	})
	if !started {
		c.life.end()
		return f, false, c.countJoined(f, w.class, w.chain, w.until)
	}
	if !c.gather(f, w.class, w.chain) {
		go c.runFlight(f)
	}
	return f, true, nil
}

// govTime converts a time of this cache's clock to the governor's clock, which may be shared.
func (c *core) govTime(at int64) int64 {
	if at <= 0 {
		return at
	}
	return max(clock.Later(c.gov.Time(), time.Duration(at-c.clock.Now())), 1)
}
