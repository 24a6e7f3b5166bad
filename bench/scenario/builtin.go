package scenario

import (
	"bytes"
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
)

//go:embed builtin/*.yaml
var files embed.FS

// sized is a scenario that exists once for each of percents, as hit-ratio-5 and so on.
const sized = "hit-ratio"

// percents are the sizes of the cache in that scenario, of the bytes of all keys. Its file has PERCENT where they are.
func percents() []string { return []string{"1", "5", "10", "30"} }

// Names returns the names of the built-in scenarios, sorted.
func Names() []string {
	entries, err := files.ReadDir("builtin")
	if err != nil {
		return nil // the directory is embedded
	}
	var names []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".yaml")
		if name != sized {
			names = append(names, name)
			continue
		}
		for _, p := range percents() {
			names = append(names, sized+"-"+p)
		}
	}
	slices.Sort(names)
	return names
}

// Source returns a built-in scenario's file, as a starting point for a new one.
func Source(name string) ([]byte, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(Names(), ", "))
	}
	file := name
	percent, ok := strings.CutPrefix(name, sized+"-")
	if ok {
		file = sized
	}
	b, err := files.ReadFile(path.Join("builtin", file+".yaml"))
	if ok {
		b = bytes.ReplaceAll(b, []byte("PERCENT"), []byte(percent))
	}
	return b, err
}

// Builtin returns a built-in scenario.
func Builtin(name string) (*Scenario, error) {
	b, err := Source(name)
	if err != nil {
		return nil, err
	}
	return Parse(name+".yaml", b)
}
