package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/demand"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

const (
	drillErrors  = 0.1  // the part of drilled loads that may fail before the drill ends
	drillMinimum = 20   // loads that must have ended before that counts
	drillSamples = 4096 // waits kept for the quantiles
)

// Drill makes a part of the reads behave as misses, and counts how they end.
type Drill struct {
	Fraction float64
	Over     chan struct{} // closed when it has to end
	Why      string        // written before Over is closed
	once     sync.Once

	Drilled, Filled, Spared, Failed atomic.Int64
	Loads, Errors, Peak             atomic.Int64

	mu    sync.Mutex // guards the rest
	waits []time.Duration
	most  time.Duration
	n     int
}

// NewDrill returns a drill that makes this fraction of the reads behave as misses, once Owner.SetDrill has it.
func NewDrill(fraction float64) *Drill {
	return &Drill{Fraction: fraction, Over: make(chan struct{})}
}

// End makes the drill end, for the first reason given.
func (d *Drill) End(why string) { d.once.Do(func() { d.Why = why; close(d.Over) }) }

// Ended reports whether the drill has to end.
func (d *Drill) Ended() bool {
	select {
	case <-d.Over:
		return true
	default:
		return false
	}
}

// waited records how long a drilled read waited, in a sample of all (Vitter's algorithm R).
func (d *Drill) waited(wait time.Duration, random float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	d.most = max(d.most, wait)
	if len(d.waits) < drillSamples {
		d.waits = append(d.waits, wait)
	} else if i := int(random * float64(d.n)); i < drillSamples {
		d.waits[i] = wait
	}
}

// SortedWaits returns a sample of the waits, shortest first, and the longest of all waits.
func (d *Drill) SortedWaits() (waits []time.Duration, longest time.Duration) {
	d.mu.Lock()
	waits, longest = slices.Clone(d.waits), d.most
	d.mu.Unlock()
	slices.Sort(waits)
	return waits, longest
}

// SetDrill makes reads obey a drill; nil: none.
func (c *Owner) SetDrill(d *Drill) {
	c.Drill.Store(d)
	c.setWatch()
}

// PickDrill returns the drill that makes this read behave as a miss; nil: the read is an ordinary one.
func (c *Owner) PickDrill() *Drill {
	d := c.Drill.Load()
	if d == nil || c.Random.Float64() >= d.Fraction || d.Ended() {
		return nil
	}
	if _, well := c.Governor.Usage(); !well {
		d.End("breaker")
		return nil
	}
	d.Drilled.Add(1)
	return d
}

// setWatch sets which near hits are inspected: all of them while a drill runs or the node is cut off, otherwise a
// sample.
func (c *Owner) setWatch() {
	c.watching.Lock()
	defer c.watching.Unlock()
	if c.Drill.Load() != nil || c.Isolation.Cut.Load() {
		c.Watch.Store(^uint64(0))
	} else {
		c.Watch.Store(WatchSome)
	}
}

// CountDrilled counts how a read that d had picked ended.
func (c *Owner) CountDrilled(d *Drill, filled bool, err error, began int64) {
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		d.Failed.Add(1)
	case filled:
		d.Filled.Add(1)
	default:
		d.Spared.Add(1)
	}
	d.waited(time.Duration(c.Clock.Now()-began), c.Random.Float64())
}

// Refill answers a drilled read on the member that owns the key. It loads the key as if there were no copy, but returns
// the copy if the load fails or takes too long.
func (c *Owner) Refill(ctx context.Context, l *Lookup) (Found, error) {
	now, wide := c.Clock.Now(), c.Fences.TagClock()
	e := c.Valid(l.Key, l.Hash, now)
	if e == nil || e.Flags&store.Failed != 0 || len(l.Chain) > 0 {
		return c.getOwned(ctx, l)
	}
	fl, err := c.Join(&Joining{Lookup: *l, Class: governor.Warm, Cause: placement.Drill, prev: e, until: c.patience(ctx), from: c.traceOf(ctx)})
	if err != nil {
		return Found{}, err
	}
	patience := 2*c.Config.Origin.Timeout + time.Second
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline) / 2
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-fl.Done:
		if r := &fl.Res; r.Err == nil && !r.Private && !c.retagged(r.E, wide) {
			return Found{E: r.E, Fill: r.fill, Filled: true}, nil
		}
	case <-t.C:
	case <-ctx.Done():
	}
	if e = c.Valid(l.Key, l.Hash, c.Clock.Now()); e != nil && e.Flags&store.Failed == 0 {
		return Found{E: e, Late: c.Clock.Now() >= e.Soft, Why: store.StaleDrill}, nil
	}
	return c.getOwned(ctx, l)
}

// drillEnded counts a load that has ended, if a drill caused it.
func (c *Owner) drillEnded(f *Flight, out governor.Outcome) {
	d := c.Drill.Load()
	if d == nil || f.cause != placement.Drill {
		return
	}
	n := d.Loads.Add(1)
	if out == governor.Failed {
		if bad := d.Errors.Add(1); n >= drillMinimum && float64(bad) > drillErrors*float64(n) {
			d.End("errors")
		}
	}
}

// FlagOf returns the request flag that tells an owner of a drill.
func FlagOf(d *Drill) uint8 {
	if d == nil {
		return 0
	}
	return codec.FlagDrill
}

// WatchSome is the threshold of mix below which a near hit is sampled.
const WatchSome = ^uint64(0) / demand.NearThin

// CheckDrill returns what is wrong with the arguments of a drill, which may last for longest.
func CheckDrill(fraction float64, duration, longest time.Duration) error {
	switch {
	case !(fraction > 0 && fraction <= 1): // also catches NaN
		return fmt.Errorf("weir: Drill: fraction is %v: it must be above 0 and at most 1", fraction)
	case duration <= 0 || duration > longest:
		return fmt.Errorf("weir: Drill: duration is %v: it must be above 0 and at most %v", duration, longest)
	}
	return nil
}
