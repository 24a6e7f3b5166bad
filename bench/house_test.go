package bench

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport lists, for each package that a service embeds, which packages of this module it may import. A new line
// is a decision: the packages under tier/internal do not know the cache, and tier and peer do not know each other.
var mayImport = map[string][]string{
	"internal/simtime":        {},
	"internal/testlog":        {},
	"ring":                    {},
	"codec":                   {},
	"tier/internal/clock":     {},
	"tier/internal/near":      {},
	"tier/internal/fence":     {"codec", "ring"},
	"tier/internal/governor":  {"tier/internal/clock"},
	"tier/internal/journal":   {"codec", "ring", "tier/internal/fence"},
	"tier/internal/store":     {"tier/internal/fence"},
	"tier/internal/demand":    {"tier/internal/store"},
	"tier/internal/placement": {"ring", "tier/internal/store"},
	"tier/internal/counters":  {"tier/internal/governor", "tier/internal/placement", "tier/internal/store"},
	"tier/internal/hotkeys":   {"codec"},
	"tier/internal/follow":    {"codec", "tier/internal/journal", "tier/internal/owner"},
	"tier/internal/owner": {"codec", "ring", "tier/internal/clock", "tier/internal/counters", "tier/internal/demand", "tier/internal/fence",
		"tier/internal/governor", "tier/internal/journal", "tier/internal/placement", "tier/internal/store"},
	"tier": {"codec", "ring", "tier/internal/clock", "tier/internal/counters", "tier/internal/demand", "tier/internal/fence", "tier/internal/follow", "tier/internal/governor",
		"tier/internal/hotkeys", "tier/internal/journal", "tier/internal/near", "tier/internal/owner", "tier/internal/placement", "tier/internal/store"},
	"peer/internal/hearing":  {},
	"peer/internal/loglimit": {},
	"peer/internal/trust":    {},
	"peer/internal/roster":   {"ring", "peer/internal/hearing", "peer/internal/loglimit"},
	"peer/internal/wiretest": {"codec", "internal/testlog"},
	"peer/internal/wire":     {"codec", "ring", "peer/internal/hearing", "peer/internal/loglimit", "peer/internal/trust"},
	"peer": {"codec", "ring", "peer/internal/hearing", "peer/internal/loglimit", "peer/internal/roster", "peer/internal/trust",
		"peer/internal/wire"},
}

// TestHouse checks that the packages import only what mayImport allows.
func TestHouse(t *testing.T) {
	const module = "github.com/weircache/weir/"
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"internal/...", module+"ring/...", module+"codec/...", module+"tier/...", module+"peer", module+"peer/internal/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("%s is not in mayImport: add it with the packages that it may import", name)
			continue
		}
		found[name] = true
		for _, i := range p.Imports {
			if own, ok := strings.CutPrefix(i, module); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s, which mayImport does not allow", name, own)
			}
		}
	}
	for name := range mayImport {
		if !found[name] {
			t.Errorf("%s does not exist: take it off mayImport", name)
		}
	}
}
