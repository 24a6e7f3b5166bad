package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/cputime"
	"github.com/weircache/weir/bench/scenario"
)

// Options configure Run. The zero Options is one round without progress output.
type Options struct {
	// Rounds is how often each system runs; 0: once.
	Rounds int
	// Progress, if not nil, is called from time to time with the progress of a round. It must not block.
	Progress func(Progress)
	// Command is recorded in the report.
	Command string

	nap func(time.Duration) // a precise sleep; nil: the system's own
}

// Progress is the progress of a run.
type Progress struct {
	System        string
	Round, Rounds int
	Elapsed, Of   time.Duration // of the round; below 0: the warm-up
	Text          string        // an event; empty: only time has passed
}

// Healther is a Cluster that can detect that it is permanently broken, such as by a process that died. Its round
// then ends, and what was measured is kept as partial.
type Healther interface {
	Health() error
}

const (
	grace       = 5 * time.Second  // for calls that are in progress at the end
	startWithin = 60 * time.Second // for a system to start
	closeWithin = 20 * time.Second // for a system to end
	drainWithin = 2 * time.Second  // for the callers of a leaving node
)

// Run runs the scenario on all systems, which take turns. Each round begins with another system. The report always
// has what was measured. A system that fails has its error in its result and takes no further part. If ctx ends,
// the report says so in Partial. The error is not nil if nothing could be measured at all.
func Run(ctx context.Context, s *scenario.Scenario, systems []System, o Options) (*Report, error) {
	if len(systems) == 0 {
		return nil, errors.New("harness: no system to measure")
	}
	u, err := newUniverse(s)
	if err != nil {
		return nil, err
	}
	s = u.sized(s)
	o.Rounds = max(o.Rounds, 1)
	if o.nap == nil {
		o.nap = nap
	}
	r := &Report{Schema: Schema, Began: time.Now().UTC().Truncate(time.Second), Machine: bench.Machine(), Revision: bench.Revision(), Command: o.Command,
		Scenario: s, Rounds: o.Rounds, Partial: u.partial}
	for _, y := range systems {
		r.Systems = append(r.Systems, &Result{Name: y.Name(), Setup: y.Setup(), Limits: y.Limits(), Rounds: []Round{}})
	}
	var alone *Result
	if s.Cluster.Kind != scenario.Existing {
		alone = &Result{Name: "harness", Setup: "answers every get at once", Rounds: []Round{}}
		r.Harness = alone
	}
	for round := range o.Rounds {
		for k := range systems {
			i := (k + round) % len(systems)
			res := r.Systems[i]
			if ctx.Err() != nil {
				r.Partial = "interrupted"
				res.Partial = cmp.Or(res.Partial, "interrupted")
				continue
			}
			if res.Partial != "" {
				continue // it failed in an earlier round
			}
			tell := o.teller(res.Name, round, s.Duration.D())
			one, err := once(ctx, s, u, systems[i], s.Seed+uint64(round), hooks{tell, o.nap})
			if one != nil {
				res.Rounds = append(res.Rounds, *one)
				res.Partial = one.Partial
			}
			if err != nil {
				res.Partial = err.Error()
				tell(0, err.Error())
			}
		}
		if alone != nil {
			r.subtract(round, alone.measure(ctx, s, u, s.Seed+uint64(round), hooks{o.teller(alone.Name, round, aloneFor), o.nap}))
		}
	}
	if alone != nil {
		alone.summarize()
	}
	measured := false
	for _, res := range r.Systems {
		measured = measured || len(res.Rounds) > 0
		res.summarize()
		for _, one := range res.Rounds {
			for _, m := range one.Marks {
				if m.Error != "" && !slices.Contains(res.Cannot, m.What+": "+m.Error) {
					res.Cannot = append(res.Cannot, m.What+": "+m.Error)
				}
			}
		}
		if res.Partial != "" {
			r.Partial = cmp.Or(r.Partial, res.Name+": "+res.Partial)
		}
	}
	if !measured {
		return r, fmt.Errorf("harness: nothing was measured: %s", r.Partial)
	}
	return r, nil
}

// teller returns the function that reports the progress of a round of a system.
func (o Options) teller(system string, round int, of time.Duration) func(at time.Duration, text string) {
	return func(at time.Duration, text string) {
		if o.Progress != nil {
			o.Progress(Progress{system, round + 1, o.Rounds, at, of, text})
		}
	}
}

// hooks are the functions that a round calls: tell reports progress, nap sleeps precisely.
type hooks struct {
	tell func(time.Duration, string)
	nap  func(time.Duration)
}

// once runs a scenario on one system. The round is nil if the system did not start.
func once(ctx context.Context, s *scenario.Scenario, u *universe, y System, seed uint64, h hooks) (out *Round, err error) {
	stop, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	calls, over := context.WithCancelCause(context.WithoutCancel(ctx))
	defer over(nil)
	d := &driver{u: u, clock: newClock(), nap: h.nap, seed: seed, end: s.Duration.D(), fail: fail,
		ours: s.Cluster.Kind != scenario.Existing,
		gone: make([]gauge, s.Cluster.Nodes), calling: make([]gauge, s.Cluster.Nodes)}
	line := newTimeline(d.end)
	line.phases = newPhases(s)
	d.rec = newRecorder(line)
	d.ledger = newLedger(len(u.names), s.Cluster.Freshness.TTL.D())
	if y == System(instant{}) {
		d.headers = make(headers, len(u.names))
	}
	origin := (&origin{s: s.Origin, sizes: u.sizes, ledger: d.ledger, clock: d.clock, line: line, end: d.end}).seeded(seed)
	before := bench.HeapBytes()

	starting, cancel := context.WithTimeout(stop, startWithin)
	d.cluster, err = start(starting, y, Env{Scenario: s, current: d.current, Load: func(ctx context.Context, key string) ([]byte, error) {
		i, ok := u.index[key]
		if !ok {
			return nil, fmt.Errorf("harness: a load of %q, which no caller asked for", key)
		}
		return origin.load(ctx, int(i))
	}})
	cancel()
	if err != nil {
		return nil, fmt.Errorf("did not start: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
		defer cancel()
		if e := d.cluster.Close(closing); e != nil {
			err = errors.Join(err, fmt.Errorf("did not end well: %w", e))
		}
	}()
	up := make([]int, s.Cluster.Nodes)
	for i := range up {
		up[i] = i
	}
	d.up.Store(&up)
	d.sees = func(int) nodeSet { return allNodes }
	if v, ok := d.cluster.(viewer); ok && slices.ContainsFunc(s.Faults, func(f scenario.Fault) bool { return f.Do == scenario.Cut }) {
		d.sees = v.sees
	}

	d.clock.set(s.Warmup.D())
	var m0, m1 runtime.MemStats
	var cpu0 time.Duration
	var aside sync.WaitGroup // the faults and the watch, which end with the run
	over1, done := context.WithCancel(stop)
	var marks []Mark
	aside.Go(func() { marks = d.faults(over1, s, h.tell) })
	aside.Go(func() {
		if s.Warmup > 0 && !d.sleepUntil(over1, 0) {
			return
		}
		runtime.ReadMemStats(&m0)
		cpu0 = cputime.Used()
	})
	aside.Go(func() { d.watch(over1, h.tell) })
	aside.Go(func() {
		// Calls that are still unanswered long after the end, or after an interrupt, end now.
		if d.sleepUntil(over1, d.end+grace) {
			over(errOver)
		} else if stop.Err() != nil {
			over(context.Cause(stop))
		}
	})
	d.run(stop, calls)
	elapsed := max(0, min(d.clock.now(), d.end))
	cpu1 := cputime.Used()
	runtime.ReadMemStats(&m1)
	done()
	aside.Wait()

	out = d.round(s, origin, marks, elapsed)
	m := &out.Measures
	if m.Gets > 0 && cpu0 > 0 && s.Cluster.Kind == scenario.InProcess {
		m.CPUPerMillion = (cpu1 - cpu0).Seconds() / m.Gets * 1e6
		m.AllocsPerMillion = float64(m1.Mallocs-m0.Mallocs) / m.Gets * 1e6
	}
	if n := d.ledger.known(); n > 0 {
		m.HeapPerKey = max(0, float64(bench.HeapBytes()-before)) / float64(n)
	}
	if c, ok := d.cluster.(Counter); ok {
		out.Counters = c.Counters()
	}
	if s.Cluster.Kind == scenario.Existing {
		// The origin belongs to the services. Only their counters describe it, and the remaining measures are
		// unknown.
		m.OriginCalls, m.OriginSeconds = out.Counters["loads"], out.Counters["load_seconds"]
		m.Amplification, m.OriginPeak, m.AgeP99, m.MaxAge = ratio(m.OriginCalls, m.Due), 0, 0, 0
		m.OriginMean, m.PerFill, m.HitRatio = ratio(m.OriginSeconds, m.Seconds), ratio(m.Gets*m.Answered, m.OriginCalls), 1-ratio(m.OriginCalls, m.Gets*m.Answered)
		out.Marks = append(out.Marks, Mark{What: "amplification", Error: fmt.Sprintf("holds for a TTL of %v: the services' own is not known, cluster.freshness may say it", s.Cluster.Freshness.TTL.D())})
		if e, ok := d.cluster.(*existing); ok && out.Counters != nil && len(e.unseen) > 0 {
			out.Marks = append(out.Marks, Mark{What: "what the origin is asked", Error: "not counted of " + strings.Join(e.unseen, ", ") + ", which did not answer at the end"})
		}
		if out.Counters == nil {
			m.HitRatio = 0
			out.Marks = append(out.Marks, Mark{What: "what the origin is asked", Error: "not seen, cluster.stats names no statistics that answer"})
		}
	}
	if stop.Err() != nil {
		what := "interrupted"
		if ctx.Err() == nil {
			what = context.Cause(stop).Error()
		}
		out.Partial = fmt.Sprintf("%s, after %v of %v", what, elapsed.Round(10*time.Millisecond), d.end)
	}
	return out, nil
}

// start converts a panic of an adapter into an error.
func start(ctx context.Context, y System, env Env) (c Cluster, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return y.Start(ctx, env)
}

// watch reports the progress of the run, and ends the run if the system is broken.
func (d *driver) watch(ctx context.Context, tell func(time.Duration, string)) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now := d.clock.now(); now < d.end {
			tell(now, "")
		}
		if h, ok := d.cluster.(Healther); ok {
			asked := d.clock.now()
			if err := h.Health(); err != nil && !d.rec.stalls.has(asked) {
				d.fail(err)
				return
			}
		}
	}
}

// round assembles what was counted.
func (d *driver) round(s *scenario.Scenario, o *origin, marks []Mark, elapsed time.Duration) *Round {
	t := d.rec.sum()
	secs := elapsed.Seconds()
	points := d.rec.points(t, elapsed)
	q := func(p float64) Time { return quantile(t.latency, t.unansweredCalls(), p) }
	late := func(p float64) Time { return quantile(t.late, 0, p) }
	served := float64(t.age.TotalCount())
	gets, calls, due := float64(t.reads), float64(o.calls.Load()), float64(d.ledger.due.Load())
	r := &Round{
		Measures: Measures{
			Seconds: secs, Gets: gets, Answered: ratio(served, served+float64(t.failed)), Writes: float64(t.writes), Rate: ratio(gets, secs),
			OriginCalls: calls, OriginFailed: float64(o.failed.Load()), Due: due, Amplification: ratio(calls, due),
			OriginPeak: float64(o.peak.Load()), OriginSeconds: float64(o.busy.Load()) / 1e9,
			OriginMean: ratio(float64(o.busy.Load())/1e9, secs), PerFill: ratio(served, calls), HitRatio: 1 - ratio(calls, served),
			P50: q(50), P99: q(99), P999: q(99.9), Max: q(100), LateP50: late(50), LateP99: late(99), LateP999: late(99.9), LateMax: late(100),
			Errors: float64(t.errors), Lost: float64(t.lost), Wrong: float64(t.wrong),
			Stale: float64(t.stale), MaxStale: ms(t.maxStale), Broken: float64(t.broken), MaxBroken: ms(t.maxBroken),
			Rejoined: float64(t.rejoined), CutOff: float64(t.missed), MaxCutOff: ms(t.maxMissed),
			AgeP99: float64(t.age.ValueAtQuantile(99)) / 1e6, MaxAge: float64(t.age.Max()) / 1e6,
		},
		Errors: t.kinds, Width: scenario.Duration(d.rec.line.width), Timeline: points, Marks: marks,
		Phases: sumPhases(d.rec.line.phases, int(d.ledger.known()), s.Cluster.Nodes, elapsed),
	}
	var faults []time.Duration
	for _, m := range marks {
		if m.Error == "" && m.At.D() <= elapsed {
			faults = append(faults, m.At.D())
		}
	}
	r.Measures.Recover = recovery(points, faults, d.rec.line.width)
	return r
}
