package roster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/peer/internal/wiretest"
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

// TestGossipLinesAreLimited checks that of each kind of warning one a minute is passed on for each host, whatever the
// strangers there write into it, and that less than a warning is not limited.
func TestGossipLinesAreLimited(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var book bytes.Buffer
		log := gossipLogger(slog.New(slog.NewTextHandler(&book, nil)))
		for _, c := range []struct {
			line   string
			passes bool
		}{
			{"[WARN] memberlist: Decode failed of 1 from=10.0.0.1:50001", true},
			{"[WARN] memberlist: Decode failed of 2 from=10.0.0.1:50002", false},
			{"[WARN] memberlist: Decode failed of 3 from=10.0.0.2:50001", true},
			{"[WARN] memberlist: Decode failed of from=10.0.0.8:1 from=10.0.0.2:50003", false},
			{"[WARN] memberlist: Decode failed of 4 from=[fd00::1]:50001 later", true},
			{"[WARN] memberlist: Decode failed of 5 from=[fd00::1]:50002", false},
			{"[WARN] memberlist: Decode failed of 6 from=pipe", true},
			{"[WARN] memberlist: Decode failed of 7 from=pipe x", false},
			{"[WARN] memberlist: Decode failed of 8 from=other", true},
			{"[ERR] memberlist: Another kind from=10.0.0.1:50001", true},
			{"[ERR] memberlist: Another kind from=10.0.0.1:50001", false},
			{"[WARN] memberlist: short", true},
			{"[WARN] memberlist: short", false},
			{"[INFO] memberlist: Decode failed of 9 from=10.0.0.1:50001", true},
			{"[INFO] memberlist: Decode failed of 9 from=10.0.0.1:50001", true},
			{"[DEBUG] memberlist: Decode failed of 10 from=10.0.0.1:50001", false}, // the logger's level is higher
		} {
			book.Reset()
			if log.Print(c.line); book.Len() > 0 != c.passes {
				t.Errorf("%s: the log has %q", c.line, &book)
			}
		}
		wiretest.Pause(t.Context(), time.Minute)
		book.Reset()
		if log.Print("[WARN] memberlist: Decode failed of 11 from=10.0.0.1:50001"); book.Len() == 0 {
			t.Error("a minute later nothing is passed on")
		}
	})
}

// TestGossipIsExplained checks what the log adds for an operator.
func TestGossipIsExplained(t *testing.T) {
	for text, want := range map[string]string{
		"no installed keys could decrypt the message": "it has another Secret, or none",
		"Decrypt packet failed: x":                    "it has another Secret, or none",
		"encryption is not configured":                "it has a Secret, and this node has none",
		"read: EOF":                                   "it closed the connection; its log says why",
		"read: connection reset by peer":              "it closed the connection; its log says why",
		"EOF and more":                                "",
	} {
		if want != "" {
			want = ": " + want
		}
		if got := explainGossip(text); got != text+want {
			t.Errorf("%q, want %q", got, text+want)
		}
	}
}
