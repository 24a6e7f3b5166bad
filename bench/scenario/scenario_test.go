package scenario

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBuiltins(t *testing.T) {
	want := []string{"brownout", "cold-cluster", "cold-errors", "common-miss", "crowd", "drill", "hit-ratio-1", "hit-ratio-10", "hit-ratio-30", "hit-ratio-5", "hot-expiry", "invalidate",
		"large-values", "late-balancer", "many", "membership", "memory-pressure", "ninety-nine", "outage", "partition", "privacy", "processes", "ranking",
		"restart", "rolling", "saturation", "stall", "starved", "storm", "trace"}
	if got := Names(); !slices.Equal(got, want) {
		t.Errorf("the built-in scenarios are %v", got)
	}
	for _, name := range Names() {
		s, err := Builtin(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if s.Name != name || s.About == "" || strings.Contains(s.About, "PERCENT") {
			t.Errorf("%s is named %q, and says %q of itself", name, s.Name, s.About)
		}
		full, err := s.YAML()
		if err != nil {
			t.Error(err)
			continue
		}
		again, err := Parse(name, full)
		if err != nil {
			t.Errorf("written out in full it is not read again: %v\n%s", err, full)
			continue
		}
		if b, err := again.YAML(); err != nil || string(b) != string(full) {
			t.Errorf("%s changes when it is written and read:\n%s\n%s", name, full, b)
		}
	}
	for _, name := range []string{"nothing", "", "../check", "storm.yaml", "hit-ratio", "hit-ratio-2", "hit-ratio-"} {
		if _, err := Builtin(name); err == nil || !strings.Contains(err.Error(), "hot-expiry") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

const small = `name: small
duration: 1s
load:
  - loop: closed
`

func TestDefaults(t *testing.T) {
	s, err := Parse("small.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	l := s.Load[0]
	if s.Cluster.Nodes != 3 || s.Values.Size != 256 || s.Origin.Latency.P50.D() != 40*time.Millisecond || l.Callers != 64 || l.Keys.Theta != 0.99 {
		t.Errorf("the defaults are %+v", s)
	}
	// An explicit 0 stays 0, even after writing and reading it again.
	s, err = Parse("small.yaml", []byte(small+"origin: {latency: {kind: fixed, p50: 0s}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	full, err := s.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Parse("full.yaml", full); err != nil || s.Origin.Latency.P50 != 0 {
		t.Errorf("a latency of 0 becomes %v, %v", s.Origin.Latency.P50, err)
	}
}

// TestProblems checks that each problem is reported with its line or its path.
func TestProblems(t *testing.T) {
	for text, want := range map[string]string{
		small + "cluter: {nodes: 3}\n":                                         "x.yaml: yaml: unmarshal errors:\n  line 5: field cluter not found",
		small + "    calers: 3\n":                                              "x.yaml: yaml: unmarshal errors:\n  line 5: field calers not found",
		small + "cluster:\n  freshness:\n    tll: 3s\n":                        "x.yaml: yaml: unmarshal errors:\n  line 7: field tll not found",
		small + "warmup: soon\n":                                               `x.yaml: "soon" is no duration`,
		small + "warmup: 3\n":                                                  `x.yaml: "3" is no duration`,
		small + "cluster: {near: lots}\n":                                      `x.yaml: "lots" is no size`,
		small + "cluster: {nodes: many}\n":                                     `x.yaml: `,
		small + "faults:\n  - {at: 0s, do: kill, node: 3}\n":                   `x.yaml: faults[0].node: there is no node 3: they are 0 to 2`,
		small + "faults:\n  - {at: 0s, do: explode}\n":                         `x.yaml: faults[0].do: "explode" is none of kill`,
		small + "faults:\n  - {at: 2s, do: flush}\n":                           `x.yaml: faults[0].at: 2s is not within the run`,
		small + "faults:\n  - {at: 0s, do: starve}\n":                          `x.yaml: faults[0].do: a node stands still only`,
		small + "faults:\n  - {at: 0s, do: cut, nodes: [0, 1, 2]}\n":           `x.yaml: faults[0].nodes: a cut needs`,
		small + "faults:\n  - {at: 0s, do: rolling, every: 1s, for: 1s}\n":     `x.yaml: faults[0].for: a node is down for 1s`,
		small + "faults:\n  - {at: 0s, do: leave, noticed: 1s}\n":              `x.yaml: faults[0].noticed: only a kill is noticed late`,
		small + "faults:\n  - {at: 0s, do: kill, noticed: -1s}\n":              `x.yaml: faults[0]: a time below 0`,
		small + "    mix: {batch: 3}\n":                                        `x.yaml: load[0].mix.batch: a batch is for many`,
		small + "    keys: {count: 9}\n    mix: {many: 1, batch: 10}\n":        `x.yaml: load[0].mix.batch: 10 is not between 1 and 9`,
		small + "    keys: {kind: trace}\n    mix: {many: 1}\n":                `x.yaml: load[0].mix.many: many draws its keys itself`,
		small + "faults:\n  - {at: 0s, do: stall, for: 1m}\n":                  `x.yaml: faults[0].for: 1m0s is not between 1ms and 10s`,
		small + "cluster: {percent: -1}\n":                                     `x.yaml: cluster.percent: -1 is not between 0 and 1000`,
		small + "    keys: {kind: trace, requests: 3}\n":                       `x.yaml: load[0].keys.requests: a number of generated requests`,
		small + "    keys: {kind: zipf, theta: 1}\n":                           `x.yaml: load[0].keys.theta: the formula has no value at 1`,
		small + "    rate: 5\n":                                                `x.yaml: load[0].rate: a rate is for an open loop`,
		small + "    callers: 0x7fffffff\n":                                    `x.yaml: load[0].callers: 2147483647 is not between`,
		small + "origin:\n  errors: .nan\n":                                    `x.yaml: origin.errors: NaN`,
		small + "origin:\n  outages:\n    - {from: 3s, to: 2s}\n":              `x.yaml: origin.outages[0]: from 3s to 2s is no time`,
		small + "values: {kind: fixed, size: 3}\n":                             `x.yaml: values.size: 3 is not between 24`,
		small + "cluster: {kind: existing, addresses: [there]}\n":              `x.yaml: cluster.addresses[0]: "there" is no address`,
		small + "claims:\n  - {measure: joy, most: 1, says: x}\n":              `x.yaml: claims[0].measure: "joy" is none of gets_per_second`,
		small + "claims:\n  - {measure: errors, says: x}\n":                    `x.yaml: claims[0]: a claim needs a bound`,
		small + "claims:\n  - {measure: errors, most: 1, least: 2, says: x}\n": `x.yaml: claims[0]: at least 2 and at most 1 is nothing`,
		small + "claims:\n  - {measure: errors, most: 1}\n":                    `x.yaml: claims[0].says: a claim says what it means`,
		small + "cluster: {when_isolated: pray}\n":                             `x.yaml: cluster.when_isolated: "pray" is none of serve-stale`,
		small + "by_fault: true\n":                                             `x.yaml: by_fault: there are no faults to tell apart`,
		small + "name: again\n":                                                `x.yaml: `,
		"duration: 1s\nload: [{loop: closed}]\n":                               "x.yaml: name: a scenario needs a name",
		"name: a\nload: [{loop: closed}]\n":                                    "x.yaml: duration: a scenario needs a duration",
		"name: a\nduration: 1s\n":                                              "x.yaml: load: there is no load",
		"name: a\n  b: [":                                                      "x.yaml: ",
		"":                                                                     "x.yaml: ",
		"[]":                                                                   "x.yaml: ",
		small + "---\n" + small:                                                "x.yaml: several documents",
		strings.Repeat("#", maxFile+1):                                         "x.yaml: 1048577 bytes",
	} {
		s, err := Parse("x.yaml", []byte(text))
		if err == nil {
			t.Errorf("%.100q was taken: %+v", text, s)
			continue
		}
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.100q\nsays  %v\nnot   %s", text, err, want)
		}
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := Parse("x.yaml", []byte("name: a\nduration: 1s\ncluster:\n  nodes: 99\n  kind: moon\nload:\n  - loop: sideways\n"))
	var paths []string
	for line := range strings.Lines(err.Error()) {
		paths = append(paths, strings.SplitN(line, ": ", 3)[1])
	}
	if want := []string{"cluster.kind", "cluster.nodes", "load[0].loop"}; !slices.Equal(paths, want) {
		t.Errorf("%v, not %v", err, want)
	}
}

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if _, err := ReadFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(path, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadFile(path); err != nil || s.Name != "small" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Bytes{"12": 12, "64KiB": 65536, "1.5 MiB": 3 << 19, "2kB": 2000, "-1": -1} {
		var n Bytes
		if err := n.UnmarshalText([]byte(text)); err != nil || n != want {
			t.Errorf("%q is %d, %v", text, n, err)
		}
	}
	for n, want := range map[Bytes]string{0: "0", 65536: "64KiB", 1000: "1000", -1: "-1", 3 << 30: "3GiB"} {
		if n.String() != want {
			t.Errorf("%d is written %s", int64(n), n)
		}
	}
}

// FuzzParse checks that any input gives an error or a scenario that survives writing and reading unchanged.
func FuzzParse(f *testing.F) {
	for _, name := range Names() {
		b, err := Source(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(small + "x: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse("fuzz", b)
		if err != nil {
			return
		}
		full, err := s.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("fuzz", full); err != nil {
			t.Fatalf("%v\n%s", err, full)
		}
	})
}
