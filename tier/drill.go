package tier

import (
	"context"
	"time"

	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// ErrDrilling says that a drill of the cache is already under way on this node.
var ErrDrilling = owner.ErrDrilling

// MaxDrill is the longest a drill may last.
const MaxDrill = time.Hour

// drillLook is how often the loads that run during a drill are counted.
const drillLook = 50 * time.Millisecond

// DrillReport is the result of a drill.
type DrillReport struct {
	Fraction float64 `json:"fraction"`
	Duration float64 `json:"duration_seconds"` // planned
	Seconds  float64 `json:"seconds"`          // elapsed
	Ended    string  `json:"ended"`            // why: time, breaker, errors, context or closed

	Drilled int64 `json:"drilled"` // reads by callers on this node that had to behave as misses
	Filled  int64 `json:"filled"`  // of these, those that a load answered
	Spared  int64 `json:"spared"`  // of these, those that got the copy after all: no permit, a failed load, or half of their time gone
	Failed  int64 `json:"failed"`  // of these, those that got an error, as they would have without a cache
	Errors  int64 `json:"errors"`  // loads on this node that the drill caused and that failed
	Loads   int64 `json:"loads"`   // loads on this node that the drill caused
	Peak    int   `json:"peak"`    // most loads at once on this node, looked at every 50 ms

	P50 float64 `json:"p50_seconds"` // quantiles of how long drilled reads waited
	P99 float64 `json:"p99_seconds"`
	Max float64 `json:"max_seconds"`

	// Whole is what the origin would see if everything were lost, as projected when the drill began.
	Whole Projection `json:"whole"`
}

// Drill rehearses the loss of the cache: for the given time, that fraction of the reads on this node that find a copy
// behave as misses. They go to their key's owner, which loads the key again, at the lowest class, within the governor:
// real misses and refreshes go first. A caller that would get an error, or that has waited for half of the time to its
// deadline, gets the copy after all. Near copies and the members' owned copies stay. The drill ends when the time is
// over or ctx ends. It ends at once when this node's breaker is not closed, or when more than a tenth of its loads on
// this node fail.
//
// The report is valid even if the drill ended early. Errors: ErrDrilling, ErrClosed, or what is wrong with the
// arguments: fraction must be above 0 and at most 1, duration above 0 and at most MaxDrill.
func (c *Cache[V]) Drill(ctx context.Context, fraction float64, duration time.Duration) (DrillReport, error) {
	if err := owner.CheckDrill(fraction, duration, MaxDrill); err != nil {
		return DrillReport{}, err
	}
	d, err := c.beginDrill(fraction, duration)
	if err != nil {
		return DrillReport{}, err
	}
	return c.runDrill(ctx, d), nil
}

// drilling is a drill under way.
type drilling struct {
	*owner.Drill
	duration time.Duration // planned
	began    int64         // ns on the cache's clock
	whole    Projection    // as it was then
}

// beginDrill starts a drill, which reads obey from now on; runDrill must follow.
func (c *core) beginDrill(fraction float64, duration time.Duration) (*drilling, error) {
	if !c.own.Life.Begin() {
		return nil, ErrClosed
	}
	d := &drilling{Drill: owner.NewDrill(fraction), duration: duration, began: c.own.Clock.Now(), whole: c.projection()}
	if !c.drilling.CompareAndSwap(nil, d) {
		c.own.Life.End()
		return nil, ErrDrilling
	}
	c.own.SetDrill(d.Drill)
	c.cfg.Logger.Info("drill begins", "event", owner.EventDrillBegun, "namespace", c.cfg.Namespace, "fraction", fraction, "duration", duration)
	return d, nil
}

// runDrill watches a drill until it ends, and returns its report.
func (c *core) runDrill(ctx context.Context, d *drilling) DrillReport {
	defer c.own.Life.End()
	end := time.NewTimer(d.duration)
	defer end.Stop()
	look := time.NewTicker(drillLook)
	defer look.Stop()
	for !d.Ended() {
		select {
		case <-d.Over:
		case <-end.C:
			d.End("time")
		case <-ctx.Done():
			d.End("context")
		case <-c.own.Ctx.Done():
			d.End("closed")
		case <-look.C:
			used, well := c.own.Governor.Usage()
			d.Peak.Store(max(d.Peak.Load(), int64(used)))
			if !well {
				d.End("breaker")
			}
		}
	}
	r := d.report(c.own.Clock.Now())
	r.Ended = d.Why
	c.lastDrill.Store(&r)
	c.own.SetDrill(nil)
	c.drilling.Store(nil)
	c.cfg.Logger.Info("drill ended", "event", owner.EventDrillEnded, "namespace", c.cfg.Namespace, "why", r.Ended, "drilled", r.Drilled, "filled", r.Filled, "spared", r.Spared, "loads", r.Loads)
	return r
}

// DrillStats describes the drill that is under way on a node, or the last one.
type DrillStats struct {
	Running bool `json:"running"`
	// DrillReport is what it has shown so far; all zero if there has been none.
	DrillReport
}

// drillStats describes the drill that is under way, or the last one. Of the projection in Whole it leaves out the keys
// and the miss ratios.
func (c *core) drillStats() (s DrillStats) {
	if d := c.drilling.Load(); d != nil {
		s.Running, s.DrillReport = true, d.report(c.own.Clock.Now())
	} else if last := c.lastDrill.Load(); last != nil {
		s.DrillReport = *last
	}
	s.Whole.Hottest, s.Whole.MissRatios = nil, nil
	return s
}

// report returns what the drill has shown up to now.
func (d *drilling) report(now int64) DrillReport {
	r := DrillReport{
		Fraction: d.Fraction, Duration: d.duration.Seconds(), Seconds: time.Duration(now - d.began).Seconds(),
		Drilled: d.Drilled.Load(), Filled: d.Filled.Load(), Spared: d.Spared.Load(), Failed: d.Failed.Load(),
		Errors: d.Errors.Load(), Loads: d.Loads.Load(), Peak: int(d.Peak.Load()), Whole: d.whole,
	}
	waits, longest := d.SortedWaits()
	r.Max = longest.Seconds()
	if n := len(waits); n > 0 {
		r.P50, r.P99 = waits[n/2].Seconds(), waits[n*99/100].Seconds()
	}
	return r
}

// drillNearHit answers a near hit as if its near copy b did not exist. If nothing else answers, it uses b.
func (c *Cache[V]) drillNearHit(ctx context.Context, d *owner.Drill, key string, b *nearEntry[V], a *answer[V]) error {
	c.own.Stats.NearUnused.Add(1)
	return c.findAtOwner(ctx, &request[V]{Lookup: owner.Lookup{Key: key, MaxAge: AnyAge}, have: b}, d, b, a)
}

// fallBack answers with a near copy after all, if that may still be served.
func (c *Cache[V]) fallBack(key string, b *nearEntry[V], a *answer[V]) bool {
	now := c.own.Clock.Now()
	if now >= b.until || !c.unfenced(key, b) {
		return false
	}
	c.own.Stats.NearUnused.Add(-1)
	c.countNearHit(b, now, 1, store.StaleDrill)
	*a = answer[V]{}
	a.takeNear(b, now)
	return true
}
