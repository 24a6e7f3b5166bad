package bench

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page returns DEPENDENCIES.md, or the part between two marks.
func page(t *testing.T, mark string) string {
	t.Helper()
	text, err := os.ReadFile("../DEPENDENCIES.md")
	if err != nil {
		t.Fatal(err)
	}
	if mark == "" {
		return string(text)
	}
	_, rest, _ := strings.Cut(string(text), "<!-- "+mark+" -->")
	part, _, found := strings.Cut(rest, "<!-- /"+mark+" -->")
	if !found {
		t.Fatalf("DEPENDENCIES.md has no part %q", mark)
	}
	return part
}

// modules returns the modules in the first column of a table of the page.
func modules(table string) (list []string) {
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		list = append(list, m[1])
	}
	return list
}

// TestInherited checks that a program which embeds weir inherits what tier and peer import, and nothing that only
// the command and the harness need: no YAML, no command-line library, no histograms. Adding a module is a decision,
// made by changing DEPENDENCIES.md.
func TestInherited(t *testing.T) {
	want := modules(page(t, "inherited"))
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}",
		"github.com/weircache/weir/tier", "github.com/weircache/weir/peer").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	got := strings.Fields(string(out))
	slices.Sort(got)
	got = slices.DeleteFunc(slices.Compact(got), func(m string) bool { return m == "github.com/weircache/weir" })
	for _, m := range got {
		if !slices.Contains(want, m) {
			t.Errorf("tier or peer imports %s now: whoever embeds weir inherits it", m)
		}
	}
	for _, m := range want {
		if !slices.Contains(got, m) {
			t.Errorf("tier and peer import %s no more: take it off DEPENDENCIES.md", m)
		}
	}
}

// TestDependenciesPage checks that every module required by go.mod has its line in DEPENDENCIES.md.
func TestDependenciesPage(t *testing.T) {
	out, err := exec.Command("go", "mod", "edit", "-json", "../go.mod").Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	told := modules(page(t, ""))
	for _, r := range mod.Require {
		if !r.Indirect && !slices.Contains(told, r.Path) {
			t.Errorf("DEPENDENCIES.md does not say what %s is for", r.Path)
		}
	}
	if len(mod.Require) == 0 || len(told) < 20 {
		t.Errorf("%d modules in go.mod, %d in the page", len(mod.Require), len(told))
	}
}
