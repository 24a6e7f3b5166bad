package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEveryKindOfFailureIsCounted checks that a failure is shown and counted, whether its cause is an assertion, a
// panic or a package that does not compile, and that passing tests print nothing. Numbers that tests report are added
// up. The files in testdata are the output of "go test -json" of Go 1.26 for packages that ended as the file names say.
func TestEveryKindOfFailureIsCounted(t *testing.T) {
	for _, c := range []struct {
		file    string
		failed  []string
		shown   string
		summary string
	}{
		{"passes", nil, "", "1 packages, 2 tests (and 1 subtests), 7 seeds"},
		{"asserts", []string{"example.org/m/asserts TestA"}, "one is not two", "1 packages, 2 tests (and 0 subtests)"},
		{"panics", []string{"example.org/m/panics TestA"}, "out of order", "1 failures:\n  example.org/m/panics TestA\n"},
		{"exits", []string{"example.org/m/exits TestA"}, "", "1 failures"},
		{"leaks", []string{"example.org/m/leaks, outside its tests"}, "goroutines leak", "1 failures"},
		{"broken", []string{"example.org/m/broken [example.org/m/broken.test], outside its tests"}, "undefined: testing", "1 failures"},
	} {
		t.Run(c.file, func(t *testing.T) {
			events, err := os.Open(filepath.Join("testdata", c.file+".json"))
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			var out bytes.Buffer
			got := newTally(&out)
			if err := got.read(events); err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, f := range got.failed {
				failed = append(failed, f.name.String())
			}
			if !slices.Equal(failed, c.failed) {
				t.Errorf("failed: %q, want %q", failed, c.failed)
			}
			if shown := out.String(); !strings.Contains(shown, c.shown) || strings.Contains(shown, "hush") {
				t.Errorf("it shows:\n%s", shown)
			}
			summary := got.summary(0)
			if !strings.Contains(summary, c.summary) || strings.Contains(summary, "all passed") != (c.failed == nil) {
				t.Errorf("summary:\n%s", summary)
			}
			if c.file == "passes" && !strings.Contains(summary, "skipped: example.org/m/passes TestC: a_test.go:6: needs a database") {
				t.Errorf("summary:\n%s", summary)
			}
		})
	}
}

func TestGroups(t *testing.T) {
	got := groups(strings.Fields("./a -race -- -C b ./..."))
	if len(got) != 2 || !slices.Equal(got[0], []string{"./a", "-race"}) || !slices.Equal(got[1], []string{"-C", "b", "./..."}) {
		t.Errorf("groups are %q", got)
	}
}

// TestFlakyCountsFailures checks that a test that fails intermittently is found, with the number of its failures, and
// that each run has its own order.
func TestFlakyCountsFailures(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.org/m\n\ngo 1.26\n", "a_test.go": `package m
		import ("os"; "testing")
		// TestEveryOther fails when it finds no file of a run before it.
		func TestEveryOther(t *testing.T) {
			if os.Remove("mark") != nil { os.WriteFile("mark", nil, 0o600); t.Error("no mark") }
		}
		func TestSteady(t *testing.T) {}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var out bytes.Buffer
	err := runFlaky(t.Context(), strings.Fields("-count 2 -cpu 1,2 -procs 1 ./..."), &out)
	if err == nil {
		t.Error("no error")
	}
	for _, want := range []string{"TestEveryOther", "failed in 2 of 4 runs", "2 tests of 1 packages, 4 runs of a package (4 wanted) at -cpu 1,2", "tests ran 8 times, 2 failures", "no mark"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "TestSteady") {
		t.Errorf("a test that passes is named:\n%s", &out)
	}
}
