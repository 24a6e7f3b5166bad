package peer

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestEventTexts checks that each text that names an event is one that this package, or one of its internal packages, logs.
// A text that is changed without the table would lose its event.
func TestEventTexts(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{"*.go", "internal/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f == "events.go" || strings.HasSuffix(f, "_test.go") {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(b)
		}
	}
	for text := range eventNames() {
		if !strings.Contains(source.String(), `"`+text) {
			t.Errorf("nothing logs %q", text)
		}
	}
}

func TestEventLog(t *testing.T) {
	log := &testlog.Log{}
	book := newEventBook()
	book.node = "n"
	l := slog.New(eventLog{slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}), book}).With("node", "n")
	l.Info("a member has joined", "member", "m1", "address", "1.2.3.4:5")
	l.Warn("a member is lost", "member", "m1")
	l.Warn("something else")
	l.Debug("a member is lost")
	l.WithGroup("g").Warn("the breaker has opened", "event", "breaker_opened", "namespace", "product")
	got := book.list()
	if len(got) != 3 || got[0].Name != "member_joined" || got[0].Member != "m1" || got[0].Text != "a member has joined, member m1, address 1.2.3.4:5" ||
		got[1].Name != "member_lost" || got[1].Level != "WARN" || got[1].Node != "n" || got[2].Name != "breaker_opened" || got[2].Text != "the breaker has opened, namespace product" {
		t.Errorf("%+v", got)
	}
	text := log.String()
	if strings.Contains(text, "has joined") || !strings.Contains(text, "event=member_lost") || !strings.Contains(text, "something else") || !strings.Contains(text, "node=n") {
		t.Error(text)
	}
	for range 2 * maxEvents {
		l.Warn("a member is lost", "member", strings.Repeat("x", 1000))
	}
	if got = book.list(); len(got) != maxEvents || len(got[0].Text) > maxEventText+3 || len(got[0].Member) > maxEventText+3 {
		t.Errorf("%d events, %d bytes", len(got), len(got[0].Text))
	}
}

// TestEventsOfMembers checks that a node lists joins, leaves and losses, and that most of the members are lost.
func TestEventsOfMembers(t *testing.T) {
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	c := start(t, quick("c", a.Addr()))
	awaitNames(t, "a b c", a, b, c)
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := start(t, quick("d", a.Addr()))
	awaitNames(t, "a c d", a, c, d)
	_ = c.Close()
	_ = d.Close()
	awaitNames(t, "a", a)
	has := func(name, member string) bool {
		return slices.ContainsFunc(a.Stats().Events, func(e Event) bool { return e.Name == name && e.Member == member && e.Node == "a" })
	}
	wiretest.Until(t, "for the events", func() bool {
		return has("node_started", "") && has("member_joined", "b") && has("member_left", "b") && has("member_lost", "c") && has("member_lost", "d") && has("view_split", "")
	})
	c = start(t, quick("c", a.Addr()))
	awaitNames(t, "a c", a, c)
	wiretest.Until(t, "for the end of the split", func() bool { return has("view_healed", "") })
}
