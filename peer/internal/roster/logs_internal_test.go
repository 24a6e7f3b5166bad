package roster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestParseLine(t *testing.T) {
	for _, c := range []struct {
		line, text string
		level      slog.Level
	}{
		{"[DEBUG] memberlist: Stream connection from=1.2.3.4:5\n", "Stream connection from=1.2.3.4:5", slog.LevelDebug},
		{"[INFO] memberlist: Suspect x has failed", "Suspect x has failed", slog.LevelInfo},
		{"[WARN] memberlist: Refuting", "Refuting", slog.LevelWarn},
		{"[ERR] memberlist: no", "no", slog.LevelWarn},
		{"[ERR] Failed to shutdown", "Failed to shutdown", slog.LevelWarn},
		{"Err: Could not set the deadline", "Err: Could not set the deadline", slog.LevelInfo},
		{"[10.0.0.1] memberlist: x", "[10.0.0.1] memberlist: x", slog.LevelInfo},
		{"[", "[", slog.LevelInfo},
		{"", "", slog.LevelInfo},
	} {
		if level, text := parseLine([]byte(c.line)); level != c.level || string(text) != c.text {
			t.Errorf("%q: %v %q", c.line, level, text)
		}
	}
}

func TestGossipLogger(t *testing.T) {
	var book bytes.Buffer
	gossipLogger(slog.New(slog.NewTextHandler(&book, nil))).Printf("[WARN] memberlist: %d\nlines", 2)
	if got := book.String(); !strings.Contains(got, `level=WARN msg="2\nlines" from=gossip`) {
		t.Errorf("the log has %s", got)
	}
}
