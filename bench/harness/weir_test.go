package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weircache/weir/bench/scenario"
)

// TestWeir runs weir itself over real sockets: one load per storm, and callers that feel little of a restart.
func TestWeir(t *testing.T) { again(t, 3, storms) }

// again repeats a run until the count is enough: the machine decides how much one run can do.
func again(t *testing.T, enough float64, run func(*testing.T) float64) {
	t.Helper()
	for run(t) < enough && !t.Failed() {
	}
}

// storms returns how many keys were requested in storms.
func storms(t *testing.T) float64 {
	r := run(t, t.Context(), `
duration: 1200ms
cluster: {nodes: 3}
origin: {latency: {kind: fixed, p50: 20ms}}
load:
  - {loop: burst, callers: 90, every: 300ms, keys: {kind: fresh}}
`, Weir{})
	m := r.Systems[0].Overall
	if m.OriginCalls != m.Due || m.Errors != 0 || m.Wrong != 0 {
		t.Errorf("storms of 90 callers: %+v", m)
	}
	if c := r.Systems[0].Rounds[0].Counters; c["loads_cold"] != m.OriginCalls {
		t.Errorf("weir's own count: %v", c)
	}
	return m.Due
}

// TestWeirHasTLS checks that the nodes protect what they send, as nodes off the loopback must.
func TestWeirHasTLS(t *testing.T) {
	env := Env{Scenario: parse(t, "duration: 1s\ncluster: {nodes: 2}\nload: [{}]\n"), Load: func(context.Context, string) ([]byte, error) { return nil, nil }}
	c, err := Weir{}.Start(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.(*weirCluster).nodes[0].Load().Node.Stats().Node.Trust; got != "secret" {
		t.Errorf("the connections are protected by %q", got)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWeirWithFaults(t *testing.T) { again(t, 50, faulty) }

// faulty returns how many gets there were during faults.
func faulty(t *testing.T) float64 {
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
	if r.Partial != "" || res.Overall.Wrong != 0 {
		t.Errorf("%q, %+v", r.Partial, res.Overall)
	}
	for _, m := range res.Rounds[0].Marks {
		// The machine decides how soon a fault is done.
		if m.Error != "" && m.Error != notDone && m.What != "flush" {
			t.Errorf("%s: %s", m.What, m.Error)
		}
	}
	return res.Overall.Gets
}

// TestWeirReplaysATrace checks that on one node with room for everything each key of a trace is loaded once.
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
	if m := r.Systems[0].Overall; m.Gets != 200 || m.OriginCalls != 3 || m.HitRatio != 1-3.0/200 || m.Seconds >= 10 {
		t.Errorf("%+v", m)
	}
}

// TestProcesses runs each node as a process: one is killed, one is starved, one leaves.
func TestProcesses(t *testing.T) {
	again(t, 50, faultyProcesses)
	_, err := Run(t.Context(), parse(t, "duration: 1s\ncluster: {kind: processes}\nload: [{}]\n"), []System{Weir{Exe: []string{"/nowhere"}}}, Options{})
	if err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// faultyProcesses returns how many gets the processes answered.
func faultyProcesses(t *testing.T) float64 {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, t.Context(), `
duration: 4s
cluster: {kind: processes, nodes: 3}
origin: {latency: {kind: fixed, p50: 2ms}}
load:
  - {loop: open, rate: 100, timeout: 5s, keys: {kind: uniform, count: 50}, mix: {read: 20, write: 1}}
faults:
  - {at: 300ms, do: kill, node: 0}
  - {at: 900ms, do: starve, node: 1, for: 300ms}
  - {at: 1000ms, do: join, node: 0}
  - {at: 1500ms, do: leave, node: 2}
`, Weir{Exe: []string{self}})
	res := r.Systems[0]
	if r.Partial != "" || res.Overall.Wrong != 0 || res.Overall.Gets > 0 && res.Overall.OriginCalls == 0 {
		t.Errorf("%q, %+v", r.Partial, res.Overall)
	}
	marks, done := 0, true
	for _, m := range res.Rounds[0].Marks {
		marks++
		done = done && m.Error != notDone
		if m.Error != "" && m.Error != notDone { // the machine decides how soon a fault is done
			t.Errorf("%s: %s", m.What, m.Error)
		}
	}
	if done && marks != 5 {
		t.Errorf("%d marks, not 5: %+v", marks, res.Rounds[0].Marks)
	}
	return res.Overall.Gets
}

func TestErrorsCrossProcesses(t *testing.T) {
	for kind, e := range identities() {
		if err := answer(nil, fmt.Errorf("wrapped: %w", e)).err(); !errors.Is(err, e) {
			t.Errorf("%s comes as %v", kind, err)
		}
	}
	if err := answer([][]byte{{}}, nil).err(); err != nil {
		t.Error(err)
	}
}

func TestExisting(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.URL.Path == "/stats":
			_, _ = fmt.Fprintf(w, `{"namespaces":{"a":{"loads":%d},"b":{"loads":1}}}`, asked.Load()/10)
		case strings.HasSuffix(q.URL.Path, "7"):
			http.Error(w, "this failure is meant", http.StatusInternalServerError)
		default:
			asked.Add(1)
			_, _ = w.Write([]byte("hello"))
		}
	}))
	defer s.Close()
	text := "duration: 300ms\ncluster: {kind: existing, addresses: [\"" + s.URL + "\"], path: \"/v/{key}\", stats: /stats}\nload: [{callers: 2, keys: {kind: scan, count: 10}}]\n"
	again(t, 20, func(t *testing.T) float64 {
		m := run(t, t.Context(), text, Weir{}).Systems[0].Overall
		if m.Gets >= 20 && (m.Errors < m.Gets/12 || m.Errors > m.Gets/8 || m.Wrong != 0 || m.OriginCalls < m.Gets/20 || m.OriginCalls > m.Gets/9) {
			t.Errorf("%+v", m)
		}
		return m.Gets
	})
	s.Close()
	_, err := Run(t.Context(), parse(t, text), []System{Weir{}}, Options{})
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a service that is not there: %v", err)
	}
}

// TestExistingDies lets one of three services die and another restart. What the remaining services report is
// counted, and the report names the service whose counts are missing.
func TestExistingDies(t *testing.T) {
	loads := [3]atomic.Int64{}
	var services []*httptest.Server
	for i := range loads {
		loads[i].Store(1000)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/stats" {
				_, _ = fmt.Fprintf(w, `{"namespaces":{"a":{"loads":%d}}}`, loads[i].Load())
			}
		}))
		defer s.Close()
		services = append(services, s)
	}
	c := scenario.Cluster{Kind: scenario.Existing, Path: "/v/{key}", Stats: "/stats"}
	for _, s := range services {
		c.Addresses = append(c.Addresses, s.URL)
	}
	cluster, err := startExisting(t.Context(), &scenario.Scenario{Cluster: c})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cluster.Close(t.Context()) }()
	e := cluster.(*existing)
	loads[0].Store(1005)
	loads[1].Store(7) // it has restarted
	services[2].Close()
	if got := e.Counters()["loads"]; got != 12 {
		t.Errorf("%v loads, want 5 and 7", got)
	}
	if !slices.Equal(e.unseen, []string{services[2].URL}) {
		t.Errorf("not counted: %v", e.unseen)
	}
	services[0].Close()
	services[1].Close()
	if got := e.Counters(); got != nil {
		t.Errorf("%v although nobody answers", got)
	}
}
