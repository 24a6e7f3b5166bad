package main

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/bench/harness"
)

const crowded = `name: crowded
about: a test
duration: 1s
cluster: {nodes: 2, near: 128KiB, owned: 384KiB, concurrency: 64}
values: {size: 1KiB}
origin: {latency: {kind: fixed, p50: 5ms}, capacity: 5}
load: [{callers: 64, loop: closed, keys: {kind: uniform, count: 100000}}]
`

// TestLimited runs each rival with its limit, and checks that no node loads more at once than its share, that the rival
// without the limit does, and that its list of what it lacks tells the two apart.
func TestLimited(t *testing.T) {
	s := parse(t, crowded)
	for _, system := range rivals() {
		t.Run(system.Name(), func(t *testing.T) {
			need(t, system)
			s, most := s, 6.0
			if system.Name() == "olric" {
				// With several nodes its statistics, which the harness reads at the end, race with its routing table.
				s, most = parse(t, strings.Replace(crowded, "nodes: 2", "nodes: 1", 1)), 5
			}
			for limit, y := range map[bool]harness.System{true: limited{system}, false: system} {
				if lacks := slices.Contains(y.Limits(), noLimit); lacks == limit {
					t.Errorf("%s lacks %v", y.Name(), y.Limits())
				}
				r, err := harness.Run(t.Context(), s, []harness.System{y}, harness.Options{})
				if err != nil || r.Partial != "" {
					t.Fatalf("%s: %v, %s", y.Name(), err, r.Partial)
				}
				m := r.Systems[0].Overall
				if m.Errors > 0 || m.Wrong > 0 || m.Gets == 0 {
					t.Errorf("%s: %+v, %v", y.Name(), m, r.Systems[0].Rounds[0].Errors)
				}
				if limit == (m.OriginPeak > most) {
					t.Errorf("%s: %v loads at once, the nodes' shares are %v", y.Name(), m.OriginPeak, most)
				}
			}
		})
	}
}

// TestLimitNeedsNode checks that a load outside an origin is refused, and that a load ends with its context while it
// waits for its turn.
func TestLimitNeedsNode(t *testing.T) {
	s := parse(t, crowded)
	var env harness.Env
	if _, err := (limited{catch{&env}}).Start(t.Context(), harness.Env{Scenario: s, Load: func(ctx context.Context, _ string) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := env.Load(t.Context(), "a"); err != errUnknownNode {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var ended atomic.Int32
	done := make(chan struct{})
	for range 8 { // more than there are turns
		go func() {
			if _, err := (origin{env, 0}).load(ctx, "a"); err != nil && strings.Contains(err.Error(), "deadline") && ended.Add(1) == 8 {
				close(done)
			}
		}()
	}
	<-done
}

// catch is a system that only keeps its input.
type catch struct{ env *harness.Env }

func (catch) Name() string     { return "catch" }
func (catch) Setup() string    { return "" }
func (catch) Limits() []string { return nil }
func (c catch) Start(_ context.Context, env harness.Env) (harness.Cluster, error) {
	*c.env = env
	return nil, nil
}
