package harness

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

// instant is the harness alone: a system that answers every get at once with the current value, and neither stores nor
// loads. What a run of it uses is what the harness itself uses in the run of any other system.
type instant struct{}

func (instant) Name() string     { return "harness" }
func (instant) Setup() string    { return "answers every get at once" }
func (instant) Limits() []string { return nil }

func (instant) Start(_ context.Context, env Env) (Cluster, error) { return instantCluster{env}, nil }

type instantCluster struct{ env Env }

func (c instantCluster) Get(_ context.Context, _ int, key string) ([]byte, error) {
	return c.env.current(key), nil
}

func (c instantCluster) Many(_ context.Context, _ int, keys []string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = c.env.current(key)
	}
	return values, nil
}

func (instantCluster) Invalidate(context.Context, int, string) error { return nil }
func (instantCluster) Fault(context.Context, Step) error             { return nil }
func (instantCluster) Close(context.Context) error                   { return nil }

// A current is a value of the harness alone: the header of one version.
type current struct {
	version uint64
	header  [header]byte
}

// headers are the current values by key, each made when it is first requested.
type headers []atomic.Pointer[current]

// current returns the current value of a key, which consists of a header only. The caller must not modify it.
func (d *driver) current(key string) []byte {
	i := d.u.index[key]
	version := d.ledger.keys[i].version.Load()
	c := d.headers[i].Load()
	if c == nil || c.version < version {
		c = &current{version: version}
		copy(c.header[:], makeValue(header, int(i), version, d.clock.now()))
		d.headers[i].Store(c)
	}
	return c.header[:]
}

// aloneFor is the longest run of the harness alone. Its shares are per get, and a few seconds measure them.
const aloneFor = 5 * time.Second

// measure runs the harness alone in the scenario, without its warm-up and its faults, and returns what it measured. It
// returns no measures if the run does not end.
func (r *Result) measure(ctx context.Context, s *scenario.Scenario, u *universe, seed uint64, h hooks) Measures {
	if ctx.Err() != nil {
		return Measures{}
	}
	brief := *s
	brief.Cluster.Kind = scenario.InProcess
	brief.Warmup, brief.Faults, brief.ByFault = 0, nil, false
	brief.Duration = min(s.Duration, scenario.Duration(aloneFor))
	one, err := once(ctx, &brief, u, instant{}, seed, h)
	if err != nil {
		r.Partial = err.Error()
	}
	if one == nil || one.Partial != "" {
		return Measures{}
	}
	r.Rounds = append(r.Rounds, *one)
	return one.Measures
}

// subtract removes what the harness alone used from the measures of all systems in a round.
func (r *Report) subtract(round int, alone Measures) {
	for _, s := range r.Systems {
		if round < len(s.Rounds) {
			s.Rounds[round].Measures.subtract(alone)
		}
	}
}

// subtract removes what the harness alone used. Without it CPU and allocations are unknown. The harness's part of a
// latency is how late it sent the requests of this round, or the latency of the harness alone, whichever is longer.
func (m *Measures) subtract(alone Measures) {
	if m.CPUPerMillion == 0 || alone.CPUPerMillion == 0 {
		m.CPUPerMillion, m.AllocsPerMillion = 0, 0
	} else {
		m.HarnessCPUPerMillion, m.HarnessAllocsPerMillion = alone.CPUPerMillion, alone.AllocsPerMillion
		m.CPUPerMillion -= alone.CPUPerMillion
		m.AllocsPerMillion -= alone.AllocsPerMillion
	}
	m.LateP50, m.LateP99 = max(m.LateP50, alone.P50), max(m.LateP99, alone.P99)
	m.LateP999, m.LateMax = max(m.LateP999, alone.P999), max(m.LateMax, alone.Max)
}
