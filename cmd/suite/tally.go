package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// counters are the attributes that the summary adds up, in the order in which it prints them.
var counters = []string{"seeds", "faults", "reads", "violations"}

// slowest is the number of slow tests that the summary names.
const slowest = 5

// An event is one line of "go test -json".
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // of a package that does not compile
	FailedBuild                   string // set if that is the reason for a package's failure
	Key, Value                    string // of an attribute
	Elapsed                       float64
}

// A testName identifies a test. An empty Test stands for a package outside its tests.
type testName struct{ Package, Test string }

func (n testName) String() string {
	if n.Test == "" {
		return n.Package + ", outside its tests"
	}
	return n.Package + " " + n.Test
}

// A result is how a test ended.
type result struct {
	name   testName
	action string // pass, fail or skip
	took   time.Duration
	output string // of a failed or skipped test
}

// A tally reads events and keeps what the summary needs. It is not safe for concurrent use.
type tally struct {
	out      io.Writer
	open     map[testName]*strings.Builder // the output of tests and packages that are still running
	tests    int                           // top-level tests, examples and fuzz corpora that passed or failed
	subtests int
	skipped  []result
	failed   []result
	packages []result
	slow     []result // top-level tests, by took, longest first, at most slowest
	sums     map[string]int64
	quiet    bool // hides packages that pass
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, open: make(map[testName]*strings.Builder), sums: make(map[string]int64)}
}

// read consumes events until r ends. It prints a line that is not an event, such as a message of the linker, as it is.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				t.add(e)
			} else {
				fmt.Fprintf(t.out, "%s", line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) add(e event) {
	name := testName{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "build-fail":
		t.failed = append(t.failed, result{name: testName{Package: e.ImportPath}, action: "fail"})
	case "run", "start":
		t.open[name] = new(strings.Builder)
	case "output":
		if b := t.open[name]; b != nil {
			b.WriteString(e.Output)
		} else {
			t.open[name] = new(strings.Builder)
			t.open[name].WriteString(e.Output)
		}
	case "attr":
		if n, err := strconv.ParseInt(e.Value, 10, 64); err == nil && slices.Contains(counters, e.Key) {
			t.sums[e.Key] += n
		}
	case "pass", "fail", "skip":
		t.end(name, e)
	}
}

// end handles the end of a test or of a package. The end of a package ends each of its tests that is still open: after
// a panic, a timeout or os.Exit those have no event.
func (t *tally) end(name testName, e event) {
	r := result{name: name, action: e.Action, took: time.Duration(e.Elapsed * float64(time.Second))}
	if b := t.open[name]; b != nil {
		r.output = b.String()
	}
	delete(t.open, name)
	if name.Test != "" {
		t.endTest(r)
		return
	}
	before := len(t.failed)
	if e.Action == "fail" {
		for open, b := range t.open {
			if open.Package == name.Package {
				t.fail(result{name: open, action: "fail", output: b.String()})
				delete(t.open, open)
			}
		}
		if before == len(t.failed) && e.FailedBuild == "" && !slices.ContainsFunc(t.failed, func(f result) bool { return f.name.Package == name.Package }) {
			t.fail(r)
		} else {
			fmt.Fprint(t.out, r.output)
		}
	}
	t.packages = append(t.packages, r)
	if !t.quiet {
		fmt.Fprintf(t.out, "%-4s  %-28s %6.1f s\n", map[string]string{"pass": "ok", "skip": "none", "fail": "FAIL"}[e.Action], short(name.Package), r.took.Seconds())
	}
}

func (t *tally) endTest(r result) {
	if strings.Contains(r.name.Test, "/") {
		t.subtests++
	} else if r.action != "skip" {
		t.tests++
		t.slow = append(t.slow, r)
		slices.SortStableFunc(t.slow, func(a, b result) int { return cmp.Compare(b.took, a.took) })
		t.slow = t.slow[:min(len(t.slow), slowest)]
	}
	switch r.action {
	case "fail":
		t.fail(r)
	case "skip":
		t.skipped = append(t.skipped, r)
	}
}

// fail shows and records a failure.
func (t *tally) fail(r result) {
	t.failed = append(t.failed, r)
	fmt.Fprintf(t.out, "--- FAILED: %v (%.2f s)\n%s", r.name, r.took.Seconds(), r.output)
}

// summary reports what ran and how it ended.
func (t *tally) summary(took time.Duration) string {
	var s strings.Builder
	for _, r := range t.skipped {
		reason := ""
		for line := range strings.Lines(r.output) {
			if !strings.HasPrefix(strings.TrimSpace(line), "--- ") && !strings.HasPrefix(line, "=== ") {
				reason = strings.TrimSpace(line)
			}
		}
		fmt.Fprintf(&s, "skipped: %s %s: %s\n", short(r.name.Package), r.name.Test, reason)
	}
	s.WriteString("\nslowest tests:\n")
	for _, r := range t.slow {
		fmt.Fprintf(&s, "  %6.1f s  %s %s\n", r.took.Seconds(), short(r.name.Package), r.name.Test)
	}
	fmt.Fprintf(&s, "%d packages, %d tests (and %d subtests), ", len(t.packages), t.tests, t.subtests)
	fmt.Fprintf(&s, "%d seeds, %d faults injected, %d reads checked, %d violations; %.0f seconds\n",
		t.sums["seeds"], t.sums["faults"], t.sums["reads"], t.sums["violations"], took.Seconds())
	if len(t.failed) == 0 {
		s.WriteString("all passed\n")
		return s.String()
	}
	fmt.Fprintf(&s, "%d failures:\n", len(t.failed))
	for _, r := range t.failed {
		fmt.Fprintf(&s, "  %v\n", r.name)
	}
	return s.String()
}

// short returns a package's path without the project's prefix.
func short(pkg string) string {
	if _, rest, found := strings.Cut(pkg, "weircache/weir/"); found {
		return rest
	}
	return pkg
}
