package tier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// ErrDrilling says that a drill of the cache is already under way on this node.
var ErrDrilling = errors.New("weir: a drill is already running")

// MaxDrill is the longest a drill may last.
const MaxDrill = time.Hour

const (
	drillErrors  = 0.1 // the part of drilled loads that may fail before the drill ends
	drillMinimum = 20  // loads that must have ended before that counts
	drillLook    = 50 * time.Millisecond
	drillSamples = 4096 // waits kept for the quantiles
)

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

// drill is a drill under way.
type drill struct {
	fraction float64
	duration time.Duration
	began    int64         // ns on the cache's clock
	whole    Projection    // as it was then
	over     chan struct{} // closed when it has to end
	why      string        // written before over is closed
	once     sync.Once

	drilled, filled, spared, failed atomic.Int64
	loads, errors, peak             atomic.Int64

	mu    sync.Mutex // guards the rest
	waits []time.Duration
	most  time.Duration
	n     int
}

func (d *drill) end(why string) { d.once.Do(func() { d.why = why; close(d.over) }) }

func (d *drill) ended() bool {
	select {
	case <-d.over:
		return true
	default:
		return false
	}
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
	if err := checkDrill(fraction, duration); err != nil {
		return DrillReport{}, err
	}
	d, err := c.beginDrill(fraction, duration)
	if err != nil {
		return DrillReport{}, err
	}
	return c.runDrill(ctx, d), nil
}

func checkDrill(fraction float64, duration time.Duration) error {
	switch {
	case !(fraction > 0 && fraction <= 1): // also catches NaN
		return fmt.Errorf("weir: Drill: fraction is %v: it must be above 0 and at most 1", fraction)
	case duration <= 0 || duration > MaxDrill:
		return fmt.Errorf("weir: Drill: duration is %v: it must be above 0 and at most %v", duration, MaxDrill)
	}
	return nil
}

// beginDrill starts a drill, which reads obey from now on; runDrill must follow.
func (c *core) beginDrill(fraction float64, duration time.Duration) (*drill, error) {
	if !c.life.begin() {
		return nil, ErrClosed
	}
	d := &drill{fraction: fraction, duration: duration, over: make(chan struct{}), began: c.clock.Now(), whole: c.projection()}
	if !c.drill.CompareAndSwap(nil, d) {
		c.life.end()
		return nil, ErrDrilling
	}
	c.setWatch()
	c.cfg.Logger.Info("drill begins", "event", eventDrillBegun, "namespace", c.cfg.Namespace, "fraction", fraction, "duration", duration)
	return d, nil
}

// runDrill watches a drill until it ends, and returns its report.
func (c *core) runDrill(ctx context.Context, d *drill) DrillReport {
	defer c.life.end()
	end := time.NewTimer(d.duration)
	defer end.Stop()
	look := time.NewTicker(drillLook)
	defer look.Stop()
	for !d.ended() {
		select {
		case <-d.over:
		case <-end.C:
			d.end("time")
		case <-ctx.Done():
			d.end("context")
		case <-c.ctx.Done():
			d.end("closed")
		case <-look.C:
			used, well := c.gov.Usage()
			d.peak.Store(max(d.peak.Load(), int64(used)))
			if !well {
				d.end("breaker")
			}
		}
	}
	r := d.report(c.clock.Now())
	r.Ended = d.why
	c.lastDrill.Store(&r)
	c.drill.Store(nil)
	c.setWatch()
	c.cfg.Logger.Info("drill ended", "event", eventDrillEnded, "namespace", c.cfg.Namespace, "why", r.Ended, "drilled", r.Drilled, "filled", r.Filled, "spared", r.Spared, "loads", r.Loads)
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
	if d := c.drill.Load(); d != nil {
		s.Running, s.DrillReport = true, d.report(c.clock.Now())
	} else if last := c.lastDrill.Load(); last != nil {
		s.DrillReport = *last
	}
	s.Whole.Hottest, s.Whole.MissRatios = nil, nil
	return s
}

// report returns what the drill has shown up to now.
func (d *drill) report(now int64) DrillReport {
	r := DrillReport{
		Fraction: d.fraction, Duration: d.duration.Seconds(), Seconds: time.Duration(now - d.began).Seconds(),
		Drilled: d.drilled.Load(), Filled: d.filled.Load(), Spared: d.spared.Load(), Failed: d.failed.Load(),
		Errors: d.errors.Load(), Loads: d.loads.Load(), Peak: int(d.peak.Load()), Whole: d.whole,
	}
	d.mu.Lock()
	waits := slices.Clone(d.waits)
	r.Max = d.most.Seconds()
	d.mu.Unlock()
	slices.Sort(waits)
	if n := len(waits); n > 0 {
		r.P50, r.P99 = waits[n/2].Seconds(), waits[n*99/100].Seconds()
	}
	return r
}

// waited records how long a drilled read waited, in a sample of all (Vitter's algorithm R).
func (d *drill) waited(wait time.Duration, random float64) {
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

// pickDrill returns the drill that makes this read behave as a miss; nil: the read is an ordinary one.
func (c *core) pickDrill() *drill {
	d := c.drill.Load()
	if d == nil || c.rng.float64() >= d.fraction || d.ended() {
		return nil
	}
	if _, well := c.gov.Usage(); !well {
		d.end("breaker")
		return nil
	}
	d.drilled.Add(1)
	return d
}

// drillNearHit answers a near hit as if its near copy b did not exist. If nothing else answers, it uses b.
func (c *Cache[V]) drillNearHit(ctx context.Context, d *drill, key string, b *nearEntry[V], a *answer[V]) error {
	c.stats.NearUnused.Add(1)
	return c.findAtOwner(ctx, &request[V]{lookup: lookup{key: key, maxAge: AnyAge}, have: b}, d, b, a)
}

// fallBack answers with a near copy after all, if that may still be served.
func (c *Cache[V]) fallBack(key string, b *nearEntry[V], a *answer[V]) bool {
	now := c.clock.Now()
	if now >= b.until || !c.unfenced(key, b) {
		return false
	}
	c.stats.NearUnused.Add(-1)
	c.countNearHit(b, now, 1, store.StaleDrill)
	*a = answer[V]{}
	a.takeNear(b, now)
	return true
}

// setWatch sets which near hits are inspected: all of them while a drill runs or the node is cut off, otherwise a
// sample.
func (c *core) setWatch() {
	c.watching.Lock()
	defer c.watching.Unlock()
	if c.drill.Load() != nil || c.isolation.Cut.Load() {
		c.watch.Store(^uint64(0))
	} else {
		c.watch.Store(watchSome)
	}
}

// countDrilled counts how a read that d had picked ended.
func (c *core) countDrilled(d *drill, from Source, err error, began int64) {
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		d.failed.Add(1)
	case from == SourceFill:
		d.filled.Add(1)
	default:
		d.spared.Add(1)
	}
	d.waited(time.Duration(c.clock.Now()-began), c.rng.float64())
}

// refill answers a drilled read on the member that owns the key. It loads the key as if there were no copy, but returns
// the copy if the load fails or takes too long.
func (c *core) refill(ctx context.Context, l *lookup) (found, error) {
	now, wide := c.clock.Now(), c.fences.TagClock()
	e := c.valid(l.key, l.hash, now)
	if e == nil || e.Flags&store.Failed != 0 || len(l.chain) > 0 {
		return c.getOwned(ctx, l)
	}
	fl, err := c.join(&joining{lookup: *l, class: governor.Warm, cause: placement.Drill, prev: e, until: c.patience(ctx), from: c.traceOf(ctx)})
	if err != nil {
		return found{}, err
	}
	patience := 2*c.cfg.Origin.Timeout + time.Second
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline) / 2
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-fl.done:
		if r := &fl.res; r.err == nil && !r.private && !c.retagged(r.e, wide) {
			return found{e: r.e, fill: r.fill, filled: true}, nil
		}
	case <-t.C:
	case <-ctx.Done():
	}
	if e = c.valid(l.key, l.hash, c.clock.Now()); e != nil && e.Flags&store.Failed == 0 {
		return found{e: e, late: c.clock.Now() >= e.Soft, why: store.StaleDrill}, nil
	}
	return c.getOwned(ctx, l)
}

// drillEnded counts a load that has ended, if a drill caused it.
func (c *core) drillEnded(f *flight, out governor.Outcome) {
	d := c.drill.Load()
	if d == nil || f.cause != placement.Drill {
		return
	}
	n := d.loads.Add(1)
	if out == governor.Failed {
		if bad := d.errors.Add(1); n >= drillMinimum && float64(bad) > drillErrors*float64(n) {
			d.end("errors")
		}
	}
}

// BeginDrill begins a drill for an operator. run watches it until it or ctx ends, and must be called. The namespace's
// statistics show the drill's results.
func (h handler) BeginDrill(fraction float64, duration time.Duration) (run func(ctx context.Context), err error) {
	if err := checkDrill(fraction, duration); err != nil {
		return nil, err
	}
	d, err := h.c.beginDrill(fraction, duration)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { h.c.runDrill(ctx, d) }, nil
}

// flagOf returns the request flag that tells an owner of a drill.
func flagOf(d *drill) uint8 {
	if d == nil {
		return 0
	}
	return codec.FlagDrill
}
