package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFindings checks that a fault of each kind is found, once, and that nothing else is reported.
func TestFindings(t *testing.T) {
	pkgs, err := load("testdata/faults")
	if err != nil {
		t.Fatal(err)
	}
	found, err := analyze(pkgs)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s:%d %s", filepath.Base(f.pos.Filename), f.pos.Line, f.check))
	}
	want := []string{
		"faults.go:9 U1000",
		"faults.go:17 copylocks",
		"faults.go:17 SA5009",
		"faults.go:17 printf",
		"faults.go:20 S1002",
		"faults_test.go:6 SA2002",
		"faults_test.go:6 testinggoroutine",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// TestHouse checks that a function with too many parameters is found, and what the figures say.
func TestHouse(t *testing.T) {
	pkgs, err := load("testdata/faults")
	if err != nil {
		t.Fatal(err)
	}
	all, found := house(pkgs)
	if len(found) != 1 || found[0].check != "house" || found[0].pos.Line != 29 {
		t.Errorf("found %v", found)
	}
	if len(all) != 1 || all[0].files != 1 || all[0].circle != 0 {
		t.Errorf("figures %+v", all)
	}
	// The files of this program: main.go needs house.go and house.go needs finding.
	if pkgs, err = load("."); err != nil {
		t.Fatal(err)
	}
	all, _ = house(pkgs)
	if len(all) != 1 || all[0].files != 2 || all[0].circle != 2 || !strings.HasPrefix(all[0].fields, "figures ") {
		t.Errorf("figures %+v", all)
	}
}

// TestOtherArch checks that code which is not valid on another processor is refused there.
func TestOtherArch(t *testing.T) {
	t.Setenv("CGO_ENABLED", "0")
	for arch, valid := range map[string]bool{"amd64": true, "arm64": true, "386": false} {
		t.Setenv("GOARCH", arch)
		if _, err := load("testdata/faults"); (err == nil) != valid {
			t.Errorf("GOARCH=%s: %v", arch, err)
		}
	}
}
