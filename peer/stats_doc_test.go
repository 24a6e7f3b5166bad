package peer

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestStatsDocumented checks that STATS.md documents each field of the documents and each event.
func TestStatsDocumented(t *testing.T) {
	b, err := os.ReadFile("STATS.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, doc := range []any{Stats{}, NodeStats{}, ViewStats{}, MemberInfo{}, PeerStats{}, Event{}, ClusterStats{}, MemberStats{}, MissingMember{}} {
		for f := range reflect.TypeOf(doc).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, "`"+name+"[]`") {
				t.Errorf("%T.%s: %q is not in STATS.md", doc, f.Name, name)
			}
		}
	}
	for _, name := range eventNames() {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("event %q is not in STATS.md", name)
		}
	}
}
