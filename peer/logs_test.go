package peer

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
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
	book := &logBook{}
	gossipLogger(book.logger()).Printf("[WARN] memberlist: %d\nlines", 2)
	if got := book.String(); !strings.Contains(got, `level=WARN msg="2\nlines" from=gossip`) {
		t.Errorf("the log has %s", got)
	}
}

func TestSparse(t *testing.T) {
	var s sparse
	now := time.Unix(0, 0)
	if !s.allow("a", now) || s.allow("a", now.Add(time.Second)) || !s.allow("b", now) {
		t.Error("want one line for each subject")
	}
	if !s.allow("a", now.Add(sparseInterval)) {
		t.Error("want another line after a while")
	}
	for i := range 10 * sparseSubjects {
		s.allow(fmt.Sprint(i), now)
	}
	if len(s.last) > sparseSubjects {
		t.Errorf("%d subjects are remembered", len(s.last))
	}
}
