package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// TestSmallPackage checks the outcome of each change of a small package.
func TestSmallPackage(t *testing.T) {
	var out bytes.Buffer
	err := command(t.Context(), []string{"-root", "testdata/small", "-pkg", ".", "-workers", "2", "-patience", "100"}, &out)
	if err == nil || !strings.Contains(err.Error(), "the kill rate is below 85 %") {
		t.Errorf("error %v", err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, want := range []string{
		"killed     small.go:6:17 * to /",
		"survived   small.go:12:7 > to >=",
		"killed     small.go:12:7 > to <=",
		"killed     small.go:20:16 < to <=",
		"killed     small.go:20:16 < to >=",
		"killed     small.go:20:30 ++ to --",
		"killed     small.go:21:14 == to !=",
		"killed     small.go:21:83 == to !=",
		"killed     small.go:22:5 ++ to --",
		"survived   small.go:30:9 - to +",
		"survived   small.go:30:12 + to -",
		"killed     small.go:34:33 % to *",
		"12 changes: 9 killed, 3 survived, 0 timed out; 0 not viable",
		"kill rate 75.0 %",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if len(lines) != 1+12+1+3+1 || t.Failed() {
		t.Errorf("it says\n%s", out.String())
	}
}

// TestChosenFiles checks that only the chosen files are changed, and what the tests of the others then notice.
func TestChosenFiles(t *testing.T) {
	var out bytes.Buffer
	err := command(t.Context(), []string{"-root", "testdata/small", "-pkg", ".", "-files", "other.go"}, &out)
	if err == nil || !strings.Contains(err.Error(), "no change was tried") {
		t.Errorf("error %v\n%s", err, out.String())
	}
	out.Reset()
	if err := command(t.Context(), []string{"-root", "testdata/small", "-pkg", ".", "-run", "TestLines", "-min", "0", "-workers", "2"}, &out); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "\n12 changes: 2 killed, 10 survived, 0 timed out; 0 not viable\n") {
		t.Errorf("it says\n%s", out.String())
	}
	out.Reset()
	if err := command(t.Context(), []string{"-root", "testdata/small", "-pkg", ".", "-at", "go:12:.*<=", "-min", "0"}, &out); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "\n1 changes: 1 killed, 0 survived,") {
		t.Errorf("it says\n%s", out.String())
	}
	if err := command(t.Context(), nil, &out); err == nil || !strings.Contains(err.Error(), "which package?") {
		t.Errorf("error %v", err)
	}
}

// TestQuickest checks that the tests that run first take a small part of the time.
func TestQuickest(t *testing.T) {
	out := "=== RUN   TestA\n--- PASS: TestA (0.05s)\n    --- PASS: TestA/x (0.00s)\n--- PASS: TestB (1.00s)\n--- PASS: TestC (0.04s)\nPASS\n"
	if got := quickest(out); got != "^(TestC|TestA)$" {
		t.Errorf("%q", got)
	}
	if got := quickest("--- PASS: TestB (1.00s)\n"); got != "" {
		t.Errorf("%q", got)
	}
}
