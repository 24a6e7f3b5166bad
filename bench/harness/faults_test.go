package harness

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// mortal is a cluster of two nodes of which the second can die. A dead node refuses every call, and a call that is in
// progress when it dies fails.
type mortal struct {
	fake
	died atomic.Pointer[chan struct{}] // closed: node 1 is dead
}

var errRefusedCall = errors.New("connection refused")

func (m *mortal) Start(ctx context.Context, env Env) (Cluster, error) {
	died := make(chan struct{})
	m.died.Store(&died)
	_, err := m.fake.Start(ctx, env)
	return m, err
}

func (m *mortal) Get(ctx context.Context, node int, key string) ([]byte, error) {
	if node == 0 {
		return m.fake.Get(ctx, node, key)
	}
	died := *m.died.Load()
	select {
	case <-died:
		return nil, errRefusedCall
	default:
	}
	select {
	case <-died:
		return nil, errors.New("broken pipe")
	case <-time.After(15 * time.Millisecond):
		return m.fake.Get(ctx, node, key)
	}
}

func (m *mortal) Fault(_ context.Context, s Step) error {
	switch s.Do {
	case StepKill:
		close(*m.died.Load())
	case StepJoin:
		died := make(chan struct{})
		m.died.Store(&died)
	default:
		return ErrCannot
	}
	return nil
}

// TestKillIsNoticedLate checks that callers are sent to a dead node until the load balancer knows. What fails then is
// an error; what was in progress at the death is lost.
func TestKillIsNoticedLate(t *testing.T) {
	const text = `
duration: 2s
cluster: {nodes: 2}
origin: {latency: {kind: fixed, p50: 0s}}
load: [{loop: open, rate: 200, callers: 16, arrival: even, keys: {kind: uniform, count: 5}}]
by_fault: true
faults:
  - {at: 500ms, do: kill, node: 1, noticed: NOTICED}
  - {at: 1500ms, do: join, node: 1}
`
	for noticed, want := range map[string]struct {
		least, most float64 // errors: half of the requests of the time
		steps       string
	}{
		"0s":    {0, 0, "kill node 1,join node 1"},
		"400ms": {39, 41, "kill node 1,notice node 1,join node 1"},
		"1200ms": {99, 101, // it has come back by then
			"kill node 1,join node 1,notice node 1"},
	} {
		r := virtually(t, strings.Replace(text, "NOTICED", noticed, 1), &mortal{})
		m, one := r.Systems[0].Overall, r.Systems[0].Rounds[0]
		if m.Errors < want.least || m.Errors > want.most || m.Lost < 1 || m.Lost > 2 {
			t.Errorf("noticed after %s: %.0f errors, %v, and %.0f calls lost", noticed, m.Errors, one.Errors, m.Lost)
		}
		if m.Errors > 0 && one.Errors[errRefusedCall.Error()] != int64(m.Errors) {
			t.Errorf("noticed after %s: the errors are %v", noticed, one.Errors)
		}
		if p := one.Phases[1]; p.Errors != m.Errors || p.Lost != 0 { // the lost calls began before
			t.Errorf("noticed after %s: the kill caused %.0f errors and lost %.0f calls", noticed, p.Errors, p.Lost)
		}
		var steps []string
		for _, mark := range one.Marks {
			steps = append(steps, mark.What+mark.Error)
		}
		if got := strings.Join(steps, ","); got != want.steps {
			t.Errorf("noticed after %s: the steps are %s", noticed, got)
		}
		// After the join both nodes answer.
		if p := one.Phases[2]; p.Errors != 0 || p.Lost != 0 || p.Gets < 98 {
			t.Errorf("noticed after %s: after the join %.0f gets, %.0f errors, %.0f lost", noticed, p.Gets, p.Errors, p.Lost)
		}
	}
}

// TestStall stalls this process and one that the cluster names. What was due meanwhile waited for the machine, not for the
// harness.
func TestStall(t *testing.T) {
	const stall = 300 * time.Millisecond
	asked := false
	r := run(t, t.Context(), `
duration: 2s
cluster: {nodes: 1}
origin: {latency: {kind: fixed, p50: 0s}}
load: [{loop: open, rate: 200, callers: 500, arrival: even, keys: {kind: uniform, count: 5}}]
faults: [{at: 500ms, do: stall, for: 300ms}]
`, &housed{asked: &asked})
	m, one := r.Systems[0].Overall, r.Systems[0].Rounds[0]
	if len(one.Marks) != 1 || one.Marks[0].What != "stall for 300ms" {
		t.Fatalf("%+v", one.Marks)
	}
	if one.Marks[0].Error == "cannot" {
		return // not on this system
	}
	if one.Marks[0].Error != "" || !asked {
		t.Errorf("%+v; the cluster was asked for its processes: %v", one.Marks, asked)
	}
	if float64(m.Max) < ms(stall)*0.9 {
		t.Errorf("requests that were due in a stall of %v: %+v", stall, m)
	}
}

// housed names a process that is gone.
type housed struct {
	fake
	asked *bool
}

func (h *housed) Start(ctx context.Context, env Env) (Cluster, error) {
	_, err := h.fake.Start(ctx, env)
	return h, err
}

func (h *housed) Processes() []int { *h.asked = true; return []int{1 << 30} }

// TestStallIsNotLateness checks that requests which were due in a stall do not make the harness late.
func TestStallIsNotLateness(t *testing.T) {
	r := newRecorder(newTimeline(10 * time.Second))
	add := func(due, began time.Duration) { r.add(0, outcome{due: due, began: began, ended: began, read: true}) }
	late := func() int64 { tally := r.sum(); return tally.late.TotalCount() }
	add(time.Second, time.Second)
	r.stalls.begin(2 * time.Second)
	add(2500*time.Millisecond, 3*time.Second) // recorded before the stall is known to be over
	r.stalls.end(3 * time.Second)
	r.stalls.begin(5 * time.Second)
	r.stalls.end(6 * time.Second)
	add(2100*time.Millisecond, 3*time.Second)
	add(5*time.Second, 6*time.Second)
	if n := late(); n != 1 {
		t.Errorf("%d requests count for the lateness, not 1", n)
	}
	add(4*time.Second, 4*time.Second)
	add(7*time.Second, 7*time.Second)
	if n := late(); n != 3 {
		t.Errorf("%d requests count for the lateness, not 3", n)
	}
	if tally := r.sum(); tally.latency.TotalCount() != 6 {
		t.Errorf("%d latencies of 6", tally.latency.TotalCount())
	}
}

// TestKillThatCannotBe checks that a node which could not be killed keeps its callers.
func TestKillThatCannotBe(t *testing.T) {
	r := virtually(t, `
duration: 1s
cluster: {nodes: 2}
load: [{loop: open, rate: 100, callers: 16, arrival: even, keys: {kind: uniform, count: 5}}]
faults: [{at: 300ms, do: kill, node: 1, noticed: 200ms}]
`, &fake{})
	m, one := r.Systems[0].Overall, r.Systems[0].Rounds[0]
	if m.Errors != 0 || m.Lost != 0 || len(one.Marks) != 2 || one.Marks[0].Error != "cannot" || one.Marks[1].Error != "" {
		t.Errorf("%+v, %+v", one.Marks, m)
	}
}
