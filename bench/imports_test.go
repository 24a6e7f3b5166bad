package bench

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Who embeds weir inherits what tier and peer import, and nothing that the command and the harness need on top:
// no YAML, no command-line library, no histograms. A module more is a decision, made by changing this list.
func TestInherited(t *testing.T) {
	want := []string{
		"github.com/beorn7/perks",           // prometheus
		"github.com/buraksezer/consistent",  // who owns a key
		"github.com/cespare/xxhash/v2",      // hashing
		"github.com/dgraph-io/ristretto/v2", // the near tier
		"github.com/dustin/go-humanize",     // ristretto
		"github.com/google/btree",           // memberlist
		"github.com/hashicorp/errwrap",      // memberlist
		"github.com/hashicorp/go-immutable-radix",
		"github.com/hashicorp/go-metrics",
		"github.com/hashicorp/go-msgpack/v2",
		"github.com/hashicorp/go-multierror",
		"github.com/hashicorp/go-sockaddr",
		"github.com/hashicorp/golang-lru",
		"github.com/hashicorp/memberlist",     // the members
		"github.com/klauspost/compress",       // prometheus: scrapes in zstd
		"github.com/miekg/dns",                // memberlist
		"github.com/munnerz/goautoneg",        // prometheus
		"github.com/prometheus/client_golang", // the metrics
		"github.com/prometheus/client_model",
		"github.com/prometheus/common",
		"github.com/prometheus/procfs",
		"github.com/sean-/seed",
		"github.com/vmihailenco/msgpack/v5", // values as bytes
		"github.com/vmihailenco/tagparser/v2",
		"golang.org/x/net", // miekg/dns
		"golang.org/x/sys",
		"google.golang.org/protobuf", // prometheus
	}
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
			t.Errorf("tier and peer import %s no more: take it off the list", m)
		}
	}
}
