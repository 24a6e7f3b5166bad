package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Weir itself, over real sockets: one load for a storm, and callers who feel little of a restart.
func TestWeir(t *testing.T) {
	r := run(t, t.Context(), `
duration: 1200ms
cluster: {nodes: 3}
origin: {latency: {kind: fixed, p50: 20ms}}
load:
  - {loop: burst, callers: 90, every: 300ms, keys: {kind: fresh}}
`, Weir{})
	m := r.Systems[0].Median
	if m.OriginCalls != m.Due || m.Due < 3 || m.Errors != 0 || m.Wrong != 0 {
		t.Errorf("storms of 90 callers: %+v", m)
	}
	if c := r.Systems[0].Rounds[0].Counters; c["loads_cold"] != m.OriginCalls {
		t.Errorf("weir's own count: %v", c)
	}
}

func TestWeirWithFaults(t *testing.T) {
	r := run(t, t.Context(), `
duration: 2s
cluster: {nodes: 3}
origin: {latency: {kind: fixed, p50: 2ms}}
load:
  - {loop: open, rate: 200, timeout: 5s, keys: {kind: uniform, count: 50}}
faults:
  - {at: 300ms, do: kill, node: 0}
  - {at: 600ms, do: join, node: 0}
  - {at: 900ms, do: leave, node: 1}
  - {at: 1200ms, do: cut, nodes: [2], for: 200ms}
  - {at: 1300ms, do: flush}
`, Weir{})
	res := r.Systems[0]
	if r.Partial != "" || res.Median.Wrong != 0 || res.Median.Gets < 300 {
		t.Errorf("%q, %+v", r.Partial, res.Median)
	}
	for _, m := range res.Rounds[0].Marks {
		if m.Error != "" && m.What != "flush" {
			t.Errorf("%s: %s", m.What, m.Error)
		}
	}
}

// A trace on one node with room for all: every key is loaded once.
func TestWeirReplaysATrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(path, []byte(strings.Repeat("a\nb\nc\na\n", 50)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, t.Context(), `
duration: 10s
cluster: {nodes: 1}
origin: {latency: {kind: fixed, p50: 0s}}
load:
  - {loop: closed, callers: 1, keys: {kind: trace, format: keys, file: `+path+`}}
`, Weir{})
	if m := r.Systems[0].Median; m.Gets != 200 || m.OriginCalls != 3 || m.HitRatio != 1-3.0/200 || m.Seconds > 5 {
		t.Errorf("%+v", m)
	}
}
