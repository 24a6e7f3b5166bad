package scenario

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
)

//go:embed builtin/*.yaml
var files embed.FS

// Names returns the names of the built-in scenarios, sorted.
func Names() []string {
	entries, err := files.ReadDir("builtin")
	if err != nil {
		return nil // the directory is embedded
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// Source returns a built-in scenario's file, as a starting point for a new one.
func Source(name string) ([]byte, error) {
	b, err := files.ReadFile(path.Join("builtin", name+".yaml"))
	if err != nil || !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(Names(), ", "))
	}
	return b, nil
}

// Builtin returns a built-in scenario.
func Builtin(name string) (*Scenario, error) {
	b, err := Source(name)
	if err != nil {
		return nil, err
	}
	return Parse(name+".yaml", b)
}
