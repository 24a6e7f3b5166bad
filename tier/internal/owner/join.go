package owner

import (
	"context"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// noWait, as the time until which a caller waits, says that the caller does not wait.
const noWait = -1

// patience returns until when a caller waits for a flight; 0: without end.
func (c *Owner) patience(ctx context.Context) int64 {
	if deadline, ok := ctx.Deadline(); ok {
		return max(clock.Later(c.Clock.Now(), time.Until(deadline)), 1)
	}
	return 0
}

// Join returns the live flight for a key, starting one if there is none.
func (c *Owner) Join(w *Joining) (*Flight, error) {
	f, _, err := c.joinOrStart(w)
	return f, err
}

// Joining is what a caller wants of a flight. MaxAge, wide and began are ignored for a caller that only starts one.
type Joining struct {
	Lookup
	Class  governor.Class
	Cause  placement.Cause
	prev   *store.Entry // the copy that the caller saw, nil: none
	until  int64        // until when the caller waits: patience, or noWait
	from   codec.Trace  // the caller's trace, if it is traced
	before *Flight      // the flight that sends the caller on, see flights.Join; nil: none
	wide   uint64       // the tag clock when the caller's read began
	began  int64        // when the caller's read began
}

// joinOrStart is join, and reports whether it started the flight.
func (c *Owner) joinOrStart(w *Joining) (f *Flight, started bool, err error) {
	if !c.Life.Begin() {
		return nil, false, ErrClosed
	}
	f, started = c.Flights.Join(w.Hash, w.Key, w.until != noWait, w.before, func() *Flight {
		return &Flight{
			Key: strings.Clone(w.Key), Hash: w.Hash, cause: w.Cause, prev: w.prev, short: w.StandsIn(), from: w.from,
			chain: append(w.Chain[:len(w.Chain):len(w.Chain)], c.chainID(w.Hash)),
			Done:  make(chan struct{}), ticket: governor.Ticket{Class: w.Class, Depth: depthOf(w.Chain, w.until), Until: c.govTime(max(w.until, 0))},
		}
	})
	if !started {
		c.Life.End()
		return f, false, c.countJoined(f, w.Class, w.Chain, w.until)
	}
	if !c.gather(f, w.Class, w.Chain) {
		go c.runFlight(f)
	}
	return f, true, nil
}

// govTime converts a time of this cache's clock to the governor's clock, which may be shared.
func (c *Owner) govTime(at int64) int64 {
	if at <= 0 {
		return at
	}
	return max(clock.Later(c.Governor.Time(), time.Duration(at-c.Clock.Now())), 1)
}
