package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPairRepeats checks that a pair of seeds decides everything that happens, and that changing either seed changes the
// run.
func TestPairRepeats(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(t.Context(), root, "", false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	run := func(seed, schedule uint64, c choice) string {
		r := s.run(t.Context(), job{Seed: seed, Schedule: schedule, Brief: true, Choice: c})
		if !r.ok() || r.Digest == "" || r.Faults == 0 {
			t.Errorf("seed %d, schedule %d: %+v", seed, schedule, r)
		}
		return r.Digest
	}
	for _, c := range []choice{noChoice, allChoice} {
		first, again, other, faults := run(11, 1, c), run(11, 1, c), run(11, 2, c), run(12, 1, c)
		if first != again {
			t.Errorf("choice %s: the same pair gave %s and then %s", c, first, again)
		}
		if first == other || first == faults || other == faults {
			t.Errorf("choice %s: different pairs gave %s, %s and %s", c, first, other, faults)
		}
	}
}

// TestShrink checks that irrelevant faults are dropped, and that the shortest history of the same kind is shown.
func TestShrink(t *testing.T) {
	need := []int{2, 5}
	var runs []job
	run := func(_ context.Context, j job) report {
		runs = append(runs, j)
		for _, n := range need {
			if slices.Contains(j.Without, n) {
				return report{Faults: 6, Broken: []broken{{"G5 is broken: something else", "one line\n"}}}
			}
		}
		if j.Schedule == 7 {
			return report{Faults: 6} // this schedule shows it only with all faults
		}
		return report{Faults: 6, Broken: []broken{{"G2 is broken: a read", strings.Repeat("a line\n", 20-len(j.Without))}}}
	}
	first := report{Faults: 6, Broken: []broken{{"G2 is broken: a read", strings.Repeat("a line\n", 20)}}}
	j, shown := shrink(t.Context(), run, job{Seed: 3, Schedule: 7}, first)
	if got := j.String(); got != "SEED=3 SCHEDULE=8 WITHOUT=1,3,4,6" {
		t.Errorf("%s after %d runs", got, len(runs))
	}
	if shown.What != "G2 is broken: a read" || strings.Count(shown.History, "\n") != 16 {
		t.Errorf("%q", shown)
	}
}

// TestPauses checks that pauses are inserted before statements and that lines keep their numbers.
func TestPauses(t *testing.T) {
	const before = `package p

import "sync"

func f(mu *sync.Mutex, c chan int) (n int) {
	mu.Lock()
	defer mu.Unlock()
again:
	for i := range 3 {
		switch {
		case i > 1:
			n++
			goto again
		}
	}
	select {
	case n = <-c:
		return n
	default:
	}
	return n
}
`
	const after = `package p; import simruntime "runtime"

import "sync"

func f(mu *sync.Mutex, c chan int) (n int) {
	simruntime.SimLine(); mu.Lock()
	simruntime.SimLine(); defer mu.Unlock()
simruntime.SimLine(); again:
	for i := range 3 {
		simruntime.SimLine(); switch {
		case i > 1:
			simruntime.SimLine(); n++
			simruntime.SimLine(); goto again
		}
	}
	simruntime.SimLine(); select {
	case n = <-c:
		simruntime.SimLine(); return n
	default:
	}
	simruntime.SimLine(); return n
}
`
	got, err := withPauses("p.go", before)
	if err != nil || got != after {
		t.Errorf("%v\n%s", err, got)
	}
	const types = "package p\n\ntype T int\n"
	if got, err := withPauses("p.go", types); err != nil || got != types {
		t.Errorf("%v\n%s", err, got)
	}
}

// TestOverlayOfAnotherGo checks that overlay rejects a Go version that the patches do not fit.
func TestOverlayOfAnotherGo(t *testing.T) {
	goroot := t.TempDir()
	if err := os.MkdirAll(filepath.Join(goroot, "src", "runtime"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(goroot, "src", "runtime", "proc.go"), []byte("package runtime\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := overlay(t.TempDir(), distribution{goroot, runtime.Version()}, t.TempDir(), false)
	if err == nil || !strings.Contains(err.Error(), "are for another Go") || !strings.Contains(err.Error(), runtime.Version()) {
		t.Error(err)
	}
}

// TestFaultsFit checks that each fault of the controls still has its place in the work tree.
func TestFaultsFit(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	texts, err := sources(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := addFaults(texts); err != nil {
		t.Error(err)
	}
	if err := addFaults(map[string]string{"x.go": "package x\n"}); err == nil || !strings.Contains(err.Error(), "0 times") {
		t.Errorf("no error without a place: %v", err)
	}
}

// TestCaught checks how sightings are described.
func TestCaught(t *testing.T) {
	at := func(s, reads int) *sighting { return &sighting{"G2", time.Duration(s) * time.Second, reads} }
	for _, c := range []struct {
		list []*sighting
		want string
	}{
		{[]*sighting{at(3, 30), at(1, 50), at(2, 10)}, "3 of 3 | 1 | 2.00 s, 3.00 s | 30, 50"},
		{[]*sighting{nil, at(1, 50), at(2, 10), at(2, 10)}, "3 of 4 | 2 | 2.00 s, not within the run | 50, not within the run"},
		{[]*sighting{nil, nil}, "0 of 2 | none | not within the run | not within the run"},
		{[]*sighting{at(7, 9)}, "1 of 1 | 1 | 7.00 s | 9"},
	} {
		if got := caught(c.list); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
