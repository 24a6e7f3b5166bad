package harness

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const quick = `
duration: 300ms
cluster: {nodes: 2}
origin: {latency: {kind: fixed, p50: 1ms}}
load:
  - {callers: 4, keys: {kind: uniform, count: 50}}
`

// virtually runs open loops in virtual time.
func virtually(t *testing.T, text string, systems ...System) (r *Report) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		var err error
		if r, err = Run(t.Context(), parse(t, text), systems, Options{nap: time.Sleep}); err != nil {
			t.Fatal(err)
		}
	})
	return r
}

func run(t *testing.T, ctx context.Context, text string, systems ...System) *Report {
	t.Helper()
	r, err := Run(ctx, parse(t, text), systems, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestIdealCache(t *testing.T) {
	r := run(t, t.Context(), quick, &fake{})
	m := r.Systems[0].Overall
	if m.Due != 50 || m.OriginCalls < 50 || m.OriginCalls > 200 || m.Errors != 0 || m.Wrong != 0 || r.Partial != "" {
		t.Errorf("50 keys through a map: %+v", m)
	}
	if m.P50 <= 0 || m.P99 < m.P50 || m.HarnessAllocsPerMillion <= 0 || m.HitRatio < 0.5 {
		t.Errorf("implausible: %+v", m)
	}
	one := r.Systems[0].Rounds[0]
	sum := 0.0
	for _, p := range one.Timeline {
		sum += p.Offered * one.Width.D().Seconds()
	}
	if d := sum - m.Gets; d > 1+m.Gets/1000 || d < -1-m.Gets/1000 { // the histogram has four digits
		t.Errorf("the timeline has %.1f requests, the measures %.0f", sum, m.Gets)
	}
}

// TestOpenLoopCountsTheWait checks that latencies in an open loop count from when a request was due: one caller
// that takes 50 ms per request falls further and further behind requests that arrive every 10 ms.
func TestOpenLoopCountsTheWait(t *testing.T) {
	slow := &fake{get: func(ctx context.Context, f *fake, key string) ([]byte, error) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
		return f.cached(ctx, key)
	}}
	r := virtually(t, `
duration: 500ms
load: [{loop: open, rate: 100, arrival: even, callers: 1, keys: {kind: uniform, count: 5}}]
`, slow)
	m := r.Systems[0].Overall
	if m.P50 < 120 {
		t.Errorf("p50 is %.0f ms: the wait was omitted", m.P50)
	}
	if m.Errors < 20 || r.Systems[0].Rounds[0].Errors["never begun"] != int64(m.Errors) {
		t.Errorf("requests that no caller was free for: %v", r.Systems[0].Rounds[0].Errors)
	}
	if m.Gets < 48 || m.Gets > 50 {
		t.Errorf("%.0f requests in half a second at 100 a second", m.Gets)
	}
}

func TestStaleAndWrongAnswers(t *testing.T) {
	never := &fake{get: func(ctx context.Context, f *fake, key string) ([]byte, error) {
		b, err := f.cached(ctx, "key:00000000") // whatever the requested key
		return b, err
	}}
	r := run(t, t.Context(), quick, never)
	if m := r.Systems[0].Overall; m.Wrong == 0 || m.Wrong > m.Gets*0.99+10 {
		t.Errorf("%.0f wrong answers of %.0f, where 49 of 50 are", m.Wrong, m.Gets)
	}
	keeps := &keeper{}
	r = run(t, t.Context(), strings.Replace(quick, "count: 50}", "count: 50}, mix: {read: 9, write: 1}", 1), keeps)
	m := r.Systems[0].Overall
	if m.Stale == 0 || m.Broken == 0 || m.MaxStale <= 0 || m.MaxBroken > m.MaxStale {
		t.Errorf("a cache that ignores invalidations: %+v", m)
	}
	r = run(t, t.Context(), strings.Replace(quick, "4, keys: {kind: uniform, count: 50}", "1, keys: {kind: uniform, count: 50}, mix: {read: 9, write: 1}", 1), &fake{})
	if m := r.Systems[0].Overall; m.Stale != 0 || m.Broken != 0 || m.Writes == 0 {
		t.Errorf("one caller and a cache that obeys: %+v", m)
	}
}

// keeper confirms invalidations without applying them.
type keeper struct{ fake }

func (*keeper) Invalidate(context.Context, int, string) error { return nil }
func (k *keeper) Start(ctx context.Context, env Env) (Cluster, error) {
	_, err := k.fake.Start(ctx, env)
	return k, err
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	f := &fake{get: func(ctx context.Context, f *fake, key string) ([]byte, error) {
		if asked.Add(1) == 500 {
			cancel()
		}
		return f.cached(ctx, key)
	}}
	r := run(t, ctx, strings.Replace(quick, "300ms", "30s", 1), f, &fake{})
	if r.Partial != "interrupted" || !strings.HasPrefix(r.Systems[0].Partial, "interrupted, after") || r.Systems[1].Partial == "" {
		t.Errorf("partial: %q, %q, %q", r.Partial, r.Systems[0].Partial, r.Systems[1].Partial)
	}
	if m := r.Systems[0].Overall; m.Gets < 400 || m.Seconds > 20 || m.Errors != 0 {
		t.Errorf("what was measured until then: %+v", m)
	}
}

func TestSystemsThatFail(t *testing.T) {
	var asked atomic.Int64
	panics := &fake{get: func(ctx context.Context, f *fake, key string) ([]byte, error) {
		if asked.Add(1) == 300 {
			panic("this panic is meant")
		}
		return f.cached(ctx, key)
	}}
	dies := &fake{health: func() error { return errors.New("the server died") }}
	r := run(t, t.Context(), strings.Replace(quick, "300ms", "2s", 1), panics, dies, &fake{startErr: errors.New("no port")})
	for i, want := range []string{"this panic is meant", "the server died", "no port"} {
		if !strings.Contains(r.Systems[i].Partial, want) {
			t.Errorf("system %d: %q", i, r.Systems[i].Partial)
		}
	}
	if r.Systems[0].Overall.Gets == 0 || r.Systems[1].Overall.Gets == 0 || len(r.Systems[2].Rounds) != 0 {
		t.Error("what was measured is not kept")
	}
	if _, err := Run(t.Context(), parse(t, quick), []System{&fake{startErr: errors.New("no port")}}, Options{}); err == nil {
		t.Error("nothing measured, and no error")
	}
}

func TestFaultsAreMarked(t *testing.T) {
	f := &fake{fault: func(s Step) error {
		if s.Do == StepKill || s.Do == StepJoin {
			return nil
		}
		return ErrCannot
	}}
	r := run(t, t.Context(), quick+`
faults:
  - {at: 200ms, do: join, node: 1}
  - {at: 50ms, do: kill, node: 1}
  - {at: 100ms, do: cut, nodes: [0], for: 50ms}
`, f)
	var got []string
	for _, m := range r.Systems[0].Rounds[0].Marks {
		got = append(got, m.What+" "+m.Error)
	}
	if s := strings.Join(got, ","); s != "kill node 1 ,cut nodes [0] cannot,heal cannot,join node 1 " {
		t.Errorf("the marks are %q", s)
	}
	if c := r.Systems[0].Cannot; len(c) != 2 {
		t.Errorf("what it cannot do: %q", c)
	}
}

func TestRoundsAndMedian(t *testing.T) {
	s := parse(t, quick)
	var order []string
	r, err := Run(t.Context(), s, []System{&fake{}, &keeper{}}, Options{Rounds: 2, Progress: func(p Progress) {
		order = append(order, p.System)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Systems[0].Rounds) != 2 || r.Rounds != 2 || len(order) == 0 {
		t.Errorf("%d rounds", len(r.Systems[0].Rounds))
	}
	if r.Harness == nil || len(r.Harness.Rounds) != 2 {
		t.Errorf("the harness alone: %+v", r.Harness)
	}
}

// TestSummary checks that counts of what went wrong are summed up, extremes kept, and the rest is a median.
func TestSummary(t *testing.T) {
	r := Result{Rounds: []Round{
		{Measures: Measures{P99: 3, Stale: 21, MaxStale: 5, Max: 7}},
		{Measures: Measures{P99: Never(), MaxStale: 9, Max: Never()}},
		{Measures: Measures{P99: 1, Stale: 11, Max: 2}},
		{Measures: Measures{P99: 4}},
		{Measures: Measures{P99: 2}},
		{Partial: "x", Measures: Measures{P99: 0.1, Stale: 1000}},
	}}
	r.summarize()
	if m := r.Overall; m.P99 != 3 || m.Stale != 32 || m.MaxStale != 9 || m.Max != Never() {
		t.Errorf("overall: %+v", m)
	}
	if r.Least.P99 != 1 || r.Most.P99 != Never() || r.Least.Stale != 0 || r.Most.Stale != 21 {
		t.Errorf("least %+v, most %+v", r.Least, r.Most)
	}
	n := 0
	for v, i := reflect.ValueOf(Measures{}), 0; i < v.NumField(); i++ {
		n++
	}
	if got := len(new(Measures).fields()); got != n {
		t.Errorf("%d of %d measures are summarized", got, n)
	}
}

// TestFailuresAreInfinite checks that a get that fails fast is slower than any that is answered, and no hit.
func TestFailuresAreInfinite(t *testing.T) {
	var asked atomic.Int64
	f := &fake{get: func(ctx context.Context, f *fake, key string) ([]byte, error) {
		if asked.Add(1)%20 == 0 {
			return nil, errors.New("refused")
		}
		return f.cached(ctx, key)
	}}
	r := virtually(t, `
duration: 1s
load: [{loop: open, rate: 200, arrival: even, callers: 1, keys: {kind: uniform, count: 5}}]
`, f)
	m := r.Systems[0].Overall
	if m.P50 == Never() || m.P99 != Never() || m.Max != Never() || m.Answered < 0.94 || m.Answered > 0.96 {
		t.Errorf("with one failure in 20: %+v", m)
	}
	if want := 1 - m.OriginCalls/(m.Gets*m.Answered); math.Abs(m.HitRatio-want) > 1e-9 {
		t.Errorf("hit ratio %v, not %v", m.HitRatio, want)
	}
	b, err := json.Marshal(m)
	back := Measures{}
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil || back != m {
		t.Errorf("%v: %+v came back as %+v", err, m, back)
	}
	if x, ok := m.named("p99_ms"); !ok || !math.IsInf(x, 1) {
		t.Errorf("a claim sees a p99 of %v", x)
	}
}

// TestHarnessAlone checks that what the harness uses by itself is subtracted and shown, and that its latency counts as
// its own.
func TestHarnessAlone(t *testing.T) {
	m := Measures{CPUPerMillion: 107, AllocsPerMillion: 9, LateP50: 1, LateP99: 2}
	m.subtract(Measures{CPUPerMillion: 64.5, AllocsPerMillion: 4, P50: 0.5, P99: 3})
	if m.CPUPerMillion != 42.5 || m.HarnessCPUPerMillion != 64.5 || m.AllocsPerMillion != 5 || m.LateP50 != 1 || m.LateP99 != 3 {
		t.Errorf("%+v", m)
	}
	r := run(t, t.Context(), strings.Replace(quick, "count: 50}", "count: 50}, mix: {read: 9, write: 1}", 1), &fake{})
	alone := r.Harness.Overall
	if alone.Gets == 0 || alone.Answered != 1 || alone.Wrong != 0 || alone.Stale != 0 || alone.OriginCalls != 0 {
		t.Errorf("the harness alone: %+v", alone)
	}
	if m := r.Systems[0].Overall; m.HarnessCPUPerMillion != 0 && m.HarnessCPUPerMillion != alone.CPUPerMillion || m.LateP50 < alone.P50 {
		t.Errorf("%+v beside %+v", m, alone)
	}
}
