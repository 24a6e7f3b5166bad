package roster

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/weircache/weir/peer/internal/loglimit"
)

// gossipLogger returns a *log.Logger for memberlist that passes its lines to logger.
func gossipLogger(logger *slog.Logger) *log.Logger {
	return log.New(&gossipLines{logger: logger}, "", 0)
}

// gossipLines parses memberlist's log lines, "[WARN] memberlist: text". Strangers can cause warnings, so it passes on only
// one a minute of each kind for each host.
type gossipLines struct {
	logger *slog.Logger
	noise  loglimit.Limiter
}

func (g *gossipLines) Write(line []byte) (int, error) {
	level, text := parseLine(line)
	ctx := context.Background()
	if !g.logger.Enabled(ctx, level) || level >= slog.LevelWarn && !g.noise.Allow(lineSubject(text), time.Now()) {
		return len(line), nil
	}
	g.logger.Log(ctx, level, explainGossip(string(text)), "from", "gossip")
	return len(line), nil
}

// lineSort is how many bytes at the start of a line tell its kind. What strangers may put into a line comes later.
const lineSort = 16

// lineSubject returns the kind of a line, and the host that it is about if it names one.
func lineSubject(text []byte) string {
	subject := string(text[:min(len(text), lineSort)])
	if i := bytes.LastIndex(text, []byte("from=")); i >= 0 {
		from, _, _ := bytes.Cut(text[i+len("from="):], []byte(" "))
		host, _, err := net.SplitHostPort(string(from))
		if err != nil {
			host = string(from)
		}
		subject += " " + host
	}
	return subject
}

// explainGossip adds to a text of memberlist what it means for an operator.
func explainGossip(text string) string {
	switch {
	case strings.Contains(text, "no installed keys could decrypt"), strings.Contains(text, "Decrypt packet failed"):
		return text + ": it has another Secret, or none"
	case strings.Contains(text, "encryption is not configured"):
		return text + ": it has a Secret, and this node has none"
	case strings.HasSuffix(text, "EOF"), strings.HasSuffix(text, "connection reset by peer"):
		return text + ": it closed the connection; its log says why"
	}
	return text
}

// parseLine splits a line of memberlist's log into its level and its text. A line without a level gets level Info.
func parseLine(line []byte) (slog.Level, []byte) {
	level := slog.LevelInfo
	line = bytes.TrimSpace(line)
	if rest, ok := bytes.CutPrefix(line, []byte("[")); ok {
		if name, text, ok := bytes.Cut(rest, []byte("] ")); ok {
			known := true
			switch string(name) {
			case "DEBUG", "TRACE":
				level = slog.LevelDebug
			case "INFO":
				level = slog.LevelInfo
			case "WARN":
				level = slog.LevelWarn
			case "ERR", "ERROR":
				// What memberlist calls an error is a peer that could not be reached or understood. This node continues.
				level = slog.LevelWarn
			default:
				known = false
			}
			if known {
				line = text
			}
		}
	}
	line = bytes.TrimPrefix(line, []byte("memberlist: "))
	return level, line
}
