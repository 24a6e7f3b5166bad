package harness

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/bench/workload"
)

// The errors of the origin.
var (
	// ErrOrigin is the error of a load that failed, by chance or in an outage.
	ErrOrigin = errors.New("harness: the origin fails")
	// ErrRefused is the error of a load above the origin's limit.
	ErrRefused = errors.New("harness: the origin refuses, it has too many loads at once")
)

// An origin is the model of the system behind the cache. It is safe for concurrent use.
type origin struct {
	s      scenario.Origin
	sizes  func(key int) int
	ledger *ledger
	clock  *clock
	end    time.Duration

	calls   atomic.Int64
	failed  atomic.Int64
	running atomic.Int64
	peak    atomic.Int64
	busy    atomic.Int64 // nanoseconds of all loads that have ended
	line    *timeline

	mu  sync.Mutex // guards rnd
	rnd *rand.Rand
}

// seeded makes o's random choices come from the seed, and returns o.
func (o *origin) seeded(seed uint64) *origin {
	o.rnd = rand.New(rand.NewPCG(seed, 0x0419))
	return o
}

// draw draws an undisturbed load's latency, and whether it fails.
func (o *origin) draw() (takes time.Duration, fails bool) {
	l := o.s.Latency
	takes = l.P50.D()
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.Kind == "lognormal" {
		sigma := math.Log(float64(l.P99)/float64(l.P50)) / workload.Z99
		takes = time.Duration(float64(l.P50) * math.Exp(sigma*o.rnd.NormFloat64()))
	}
	return takes, o.s.Errors > 0 && o.rnd.Float64() < o.s.Errors
}

// load reads a key. The version is the origin's when the load begins: a load that is overtaken by a write returns
// the old version, as a database's snapshot does.
func (o *origin) load(ctx context.Context, key int) (b []byte, err error) {
	began := o.clock.now()
	at := o.running.Add(1)
	if began >= 0 && began < o.end { // calls before and after the run do not count
		o.calls.Add(1)
		raise(&o.peak, at)
	}
	o.line.originCall(began)
	defer func() {
		o.running.Add(-1)
		if ended := min(o.clock.now(), o.end); ended > 0 && began < ended {
			o.busy.Add(int64(ended - max(0, began)))
		}
		if err != nil && began >= 0 && began < o.end {
			o.failed.Add(1)
		}
	}()
	version := o.ledger.keys[key].version.Load()
	if o.s.Limit > 0 && at > int64(o.s.Limit) {
		return nil, ErrRefused
	}
	takes, fails := o.draw()
	if c := o.s.Capacity; c > 0 && at > int64(c) {
		takes = time.Duration(float64(takes) * (1 + o.s.Growth*(float64(at)/float64(c)-1)))
	}
	for _, x := range o.s.Outages {
		if began < x.From.D() || began >= x.To.D() {
			continue
		}
		switch x.Kind {
		case "error":
			fails = true
		case "hang":
			takes = x.To.D() - began + takes
		case "slow":
			takes = time.Duration(float64(takes) * x.Factor)
		}
	}
	if takes > 0 {
		t := time.NewTimer(takes)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fails {
		return nil, ErrOrigin
	}
	return makeValue(o.sizes(key), key, version, began), nil
}

// raise sets m to at least v.
func raise(m *atomic.Int64, v int64) {
	for {
		was := m.Load()
		if v <= was || m.CompareAndSwap(was, v) {
			return
		}
	}
}

// clock measures the time since the run's start; before the start it is negative. It is safe for concurrent use.
type clock struct {
	base time.Time
	zero atomic.Int64 // the start, since base
}

// newClock creates a clock. set fixes the start of the run; until then the clock shows a time long before it.
func newClock() *clock {
	c := &clock{base: time.Now()}
	c.set(2 * time.Hour)
	return c
}

// set makes the run start after in.
func (c *clock) set(in time.Duration) { c.zero.Store(int64(time.Since(c.base) + in)) }

func (c *clock) now() time.Duration { return time.Since(c.base) - time.Duration(c.zero.Load()) }
