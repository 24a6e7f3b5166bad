package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// flakyFlags configure which tests run, how often and under which load.
type flakyFlags struct {
	count    int
	cpus     []int
	run      string
	skip     string
	race     bool
	procs    int
	packages []string
}

func parseFlaky(args []string) (f flakyFlags, err error) {
	set := flag.NewFlagSet("suite flaky", flag.ContinueOnError)
	set.IntVar(&f.count, "count", 50, "how many times each test runs for each value of -cpu")
	cpus := set.String("cpu", "1,2,4", "values of GOMAXPROCS")
	set.StringVar(&f.run, "run", "", "only the tests that match")
	set.StringVar(&f.skip, "skip", "", "not the tests that match")
	set.BoolVar(&f.race, "race", true, "with the race detector")
	set.IntVar(&f.procs, "procs", loadFactor*runtime.NumCPU(), "how many test processes run at the same time: each is the load of the others")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	for _, text := range strings.Split(*cpus, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return f, fmt.Errorf("-cpu %s: want positive numbers with commas between them", *cpus)
		}
		f.cpus = append(f.cpus, n)
	}
	if f.count < 1 || f.procs < 1 || set.NArg() == 0 {
		return f, errors.New("-count and -procs must be positive, and at least one package is needed")
	}
	f.packages = set.Args()
	return f, nil
}

// A binary is the compiled tests of a package.
type binary struct{ pkg, dir, file string }

// A flakyRun is one process that runs all chosen tests of a package once, in its own order.
type flakyRun struct {
	bin  binary
	cpu  int
	seed uint64 // of the order
	race bool
}

// runFlaky runs every chosen test count times for each value of -cpu. Several test processes run at the same time. When
// fewer than -procs are left, busy loops fill the free slots.
func runFlaky(ctx context.Context, args []string, out io.Writer) error {
	f, err := parseFlaky(args)
	if err != nil {
		return err
	}
	began := time.Now()
	dir, err := os.MkdirTemp("", "weir-flaky-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bins, err := compile(ctx, f, dir)
	if err != nil {
		return err
	}
	runs := make(chan flakyRun)
	go func() {
		defer close(runs)
		for range f.count {
			for _, cpu := range f.cpus {
				for _, bin := range bins {
					select {
					case runs <- flakyRun{bin, cpu, rand.Uint64() >> 1, f.race}:
					case <-ctx.Done():
						return
					}
				}
			}
		}
	}()
	c := newCount(out, f.count*len(f.cpus)*len(bins))
	runtime.GOMAXPROCS(runtime.NumCPU() + f.procs)
	var ended atomic.Bool
	var tests, places sync.WaitGroup
	tests.Add(f.procs)
	for range f.procs {
		places.Go(func() {
			for r := range runs {
				c.add(ctx, r, play(ctx, f, r))
			}
			tests.Done()
			spin(&ended)
		})
	}
	tests.Wait()
	ended.Store(true)
	places.Wait()
	fmt.Fprint(out, c.summary(f, time.Since(began)))
	if len(c.failures) > 0 {
		return errors.New("tests failed")
	}
	return ctx.Err()
}

// compile builds the tests of each package that has tests.
func compile(ctx context.Context, f flakyFlags, dir string) (bins []binary, err error) {
	list := exec.CommandContext(ctx, goCommand(), append([]string{"list", "-f",
		"{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}"}, f.packages...)...)
	list.Stderr = os.Stderr
	text, err := list.Output()
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		pkg, pkgDir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		b := binary{pkg, pkgDir, filepath.Join(dir, strings.ReplaceAll(short(pkg), "/", "-")+".test")}
		build := exec.CommandContext(ctx, goCommand(), "test", "-c", "-race="+strconv.FormatBool(f.race), "-o", b.file, pkg)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return nil, err
		}
		bins = append(bins, b)
	}
	if len(bins) == 0 {
		return nil, errors.New("the packages have no tests")
	}
	return bins, nil
}

// play runs one process and returns the results of its tests.
func play(ctx context.Context, f flakyFlags, r flakyRun) *tally {
	var shown bytes.Buffer
	t := newTally(&shown)
	t.quiet = true
	args := []string{"tool", "test2json", "-p", r.bin.pkg, r.bin.file, "-test.v=test2json", "-test.paniconexit0", "-test.timeout=2h",
		fmt.Sprint("-test.shuffle=", r.seed), fmt.Sprint("-test.cpu=", r.cpu), "-test.run=" + f.run, "-test.skip=" + f.skip}
	cmd := exec.CommandContext(ctx, goCommand(), args...)
	cmd.Dir = r.bin.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	output, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err == nil {
		err = errors.Join(t.read(output), cmd.Wait())
	}
	if err != nil && len(t.failed) == 0 && ctx.Err() == nil {
		t.fail(result{name: testName{Package: r.bin.pkg}, action: "fail", output: err.Error() + "\n"})
	}
	return t
}

// A count is the sum of all runs.
type count struct {
	out io.Writer

	mu       sync.Mutex // guards the rest and out
	planned  int
	ended    int
	ran      map[string]int // number of tests in the last run of a package
	failures map[testName]int
	runs     map[string]int // by package
}

func newCount(out io.Writer, planned int) *count {
	return &count{out: out, planned: planned, ran: make(map[string]int), failures: make(map[testName]int), runs: make(map[string]int)}
}

// add adds the results of a run. A run that an interrupt ended does not count.
func (c *count) add(ctx context.Context, r flakyRun, t *tally) {
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended++
	c.runs[r.bin.pkg]++
	c.ran[r.bin.pkg] = max(c.ran[r.bin.pkg], t.tests)
	for _, f := range t.failed {
		c.failures[f.name]++
	}
	if len(t.failed) > 0 {
		fmt.Fprintf(c.out, "\nrun %d of %d: go test -race=%v -cpu %d -shuffle %d ./%s\n%s", c.ended, c.planned, r.race, r.cpu, r.seed, short(r.bin.pkg), t.out)
	} else if c.ended%10 == 0 {
		fmt.Fprintf(c.out, "run %d of %d; %d tests failed so far\n", c.ended, c.planned, len(c.failures))
	}
}

// summary returns the table of failures and the total.
func (c *count) summary(f flakyFlags, took time.Duration) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s strings.Builder
	names := make([]testName, 0, len(c.failures))
	sum, tests, times := 0, 0, 0
	for name, n := range c.failures {
		names = append(names, name)
		sum += n
	}
	for pkg, n := range c.ran {
		tests += n
		times += n * c.runs[pkg]
	}
	slices.SortFunc(names, func(a, b testName) int {
		return cmp.Or(cmp.Compare(c.failures[b], c.failures[a]), strings.Compare(a.String(), b.String()))
	})
	s.WriteString("\n")
	for _, name := range names {
		fmt.Fprintf(&s, "  %-20s %-50s failed in %d of %d runs\n", short(name.Package), cmp.Or(name.Test, "(outside its tests)"), c.failures[name], c.runs[name.Package])
	}
	fmt.Fprintf(&s, "flaky: %d tests of %d packages, %d runs of a package (%d wanted) at -cpu %s, shuffled, %d at a time; tests ran %d times, %d failures, %.0f seconds\n",
		tests, len(c.ran), c.ended, c.planned, strings.Trim(strings.ReplaceAll(fmt.Sprint(f.cpus), " ", ","), "[]"), f.procs, times, sum, took.Seconds())
	return s.String()
}
