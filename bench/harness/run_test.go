package harness

import (
	"context"
	"errors"
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
	m := r.Systems[0].Median
	if m.Due != 50 || m.OriginCalls < 50 || m.OriginCalls > 200 || m.Errors != 0 || m.Wrong != 0 || r.Partial != "" {
		t.Errorf("50 keys through a map: %+v", m)
	}
	if m.P50 <= 0 || m.P99 < m.P50 || m.AllocsPerMillion <= 0 || m.CPUPerMillion < 0 || m.HitRatio < 0.5 {
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
	m := r.Systems[0].Median
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
	if m := r.Systems[0].Median; m.Wrong == 0 || m.Wrong > m.Gets*0.99+10 {
		t.Errorf("%.0f wrong answers of %.0f, where 49 of 50 are", m.Wrong, m.Gets)
	}
	keeps := &keeper{}
	r = run(t, t.Context(), strings.Replace(quick, "count: 50}", "count: 50}, mix: {read: 9, write: 1}", 1), keeps)
	m := r.Systems[0].Median
	if m.Stale == 0 || m.Broken == 0 || m.MaxStale <= 0 || m.MaxBroken > m.MaxStale {
		t.Errorf("a cache that ignores invalidations: %+v", m)
	}
	r = run(t, t.Context(), strings.Replace(quick, "4, keys: {kind: uniform, count: 50}", "1, keys: {kind: uniform, count: 50}, mix: {read: 9, write: 1}", 1), &fake{})
	if m := r.Systems[0].Median; m.Stale != 0 || m.Broken != 0 || m.Writes == 0 {
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
	if m := r.Systems[0].Median; m.Gets < 400 || m.Seconds > 20 || m.Errors != 0 {
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
	if r.Systems[0].Median.Gets == 0 || r.Systems[1].Median.Gets == 0 || len(r.Systems[2].Rounds) != 0 {
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
	rounds := []Round{{Measures: Measures{P99: 3}}, {Measures: Measures{P99: 1}}, {Measures: Measures{P99: 2}}, {Partial: "x", Measures: Measures{P99: 0.1}}}
	if m := median(rounds); m.P99 != 2 {
		t.Errorf("the median of 3, 1, 2 and a partial one is %v", m.P99)
	}
}
