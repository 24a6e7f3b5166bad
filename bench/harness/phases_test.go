package harness

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

func TestPhases(t *testing.T) {
	// A system that forgets everything when a node leaves, and fails for a time after the start of a rolling
	// restart.
	var failing atomic.Bool
	f := &fake{}
	f.fault = func(s Step) error {
		if s.Do == StepLeave {
			f.mu.Lock()
			clear(f.held)
			f.mu.Unlock()
			failing.Store(s.Node == 1)
		}
		return nil
	}
	f.get = func(ctx context.Context, f *fake, key string) ([]byte, error) {
		if failing.Load() {
			return nil, errors.New("down")
		}
		return f.cached(ctx, key)
	}
	r := virtually(t, `
duration: 900ms
warmup: 300ms
by_fault: true
cluster: {nodes: 2}
origin: {latency: {kind: fixed, p50: 1ms}}
load:
  - {loop: open, rate: 2000, callers: 64, keys: {kind: scan, count: 40}}
faults:
  - {at: 600ms, do: rolling, every: 100ms, for: 50ms}
  - {at: 300ms, do: leave, node: 0}
`, f)
	got := r.Systems[0].Rounds[0].Phases
	if len(got) != 3 {
		t.Fatalf("phases: %+v", got)
	}
	gets := 0.0
	// The run ends with the last request, shortly before its nominal end.
	if last := &got[2]; last.To.D() > 880*time.Millisecond {
		last.To = scenario.Duration(900 * time.Millisecond)
	}
	for i, want := range []string{"", "leave node 0", "rolling restart"} {
		p := got[i]
		if p.What != want || p.From.D() != time.Duration(i)*300*time.Millisecond || p.To.D() != time.Duration(i+1)*300*time.Millisecond {
			t.Errorf("phase %d is %+v", i, p)
		}
		gets += p.Gets
	}
	if gets != r.Systems[0].Rounds[0].Measures.Gets {
		t.Errorf("the phases have %.0f gets, the round %.0f", gets, r.Systems[0].Rounds[0].Measures.Gets)
	}
	// All keys are resident before the run, and are loaded once for a leave.
	if p := got[0]; p.OriginCalls != 0 || p.Caused != 0 || p.Moves != 0 || p.Errors != 0 {
		t.Errorf("control: %+v", p)
	}
	if p := got[1]; p.OriginCalls < 40 || p.Caused != p.OriginCalls || p.Moves != 20 || p.Errors != 0 {
		t.Errorf("leave: %+v", p)
	}
	if p := got[2]; p.OriginCalls < 30 || p.Moves != 80 || p.Errors < 100 {
		t.Errorf("rolling restart: %+v", p)
	}
}

func TestSumPhases(t *testing.T) {
	s := parse(t, `
duration: 10s
by_fault: true
load: [{keys: {kind: uniform, count: 5}}]
faults:
  - {at: 2s, do: kill, node: 1}
  - {at: 6s, do: join, node: 1}
`)
	counts := newPhases(s)
	l := newTimeline(10 * time.Second)
	l.phases = counts
	for at := -time.Second; at < 11*time.Second; at += 100 * time.Millisecond {
		l.originCall(at)
	}
	for range 7 {
		l.originCall(2 * time.Second)
	}
	for elapsed, want := range map[time.Duration]string{
		10 * time.Second: "[20 0][47 7][40 0]",
		6 * time.Second:  "[20 0][47 7]", // the next fault did not happen
		0:                "[20 0]",
	} {
		got := ""
		for _, p := range sumPhases(counts, 30, 3, elapsed) {
			if got += fmt.Sprintf("[%.0f %.0f]", p.OriginCalls, p.Caused); p.What != "" && p.Moves != 10 {
				t.Errorf("%s moves %f of 30 keys on 3 nodes", p.What, p.Moves)
			}
		}
		if got != want {
			t.Errorf("after %v: %s, not %s", elapsed, got, want)
		}
	}
	s.ByFault = false
	if newPhases(s) != nil {
		t.Error("phases that nobody asked for")
	}
}
