package peer

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// gossipLogger is a *log.Logger for memberlist that hands its lines to logger.
func gossipLogger(logger *slog.Logger) *log.Logger {
	return log.New(&gossipLines{logger: logger}, "", 0)
}

// gossipLines takes memberlist's log lines apart: "[WARN] memberlist: text". Of the
// warnings, which strangers can cause, it passes on one a minute of each sort for each host.
type gossipLines struct {
	logger *slog.Logger
	noise  sparse
}

func (g *gossipLines) Write(line []byte) (int, error) {
	level, text := parseLine(line)
	ctx := context.Background()
	if !g.logger.Enabled(ctx, level) || level >= slog.LevelWarn && !g.noise.allow(lineSubject(text), time.Now()) {
		return len(line), nil
	}
	g.logger.Log(ctx, level, explainGossip(string(text)), "from", "gossip")
	return len(line), nil
}

// lineSort is how much of a line's front tells of what sort it is, in bytes: what
// strangers may put into it comes later.
const lineSort = 16

// lineSubject is the sort of a line, and the host that it is about, if it names one.
func lineSubject(text []byte) string {
	subject := string(text[:min(len(text), lineSort)])
	if i := bytes.LastIndex(text, []byte("from=")); i >= 0 {
		from, _, _ := bytes.Cut(text[i+len("from="):], []byte(" "))
		subject += " " + hostOf(string(from))
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

// parseLine splits a line of memberlist's log into its level and its text. A line
// without a level is information.
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
				// What memberlist calls an error is a peer that could not be reached or
				// understood: the node lives on.
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

const (
	sparseInterval = time.Minute // a line about one subject is not repeated within it
	sparseSubjects = 256         // remembered; strangers choose them, so they are bounded
)

// sparse keeps strangers from filling the log: one line a minute for each subject.
type sparse struct {
	mu   sync.Mutex // guards last
	last map[string]time.Time
}

// allow reports whether a line about subject may be written now.
func (s *sparse) allow(subject string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.last[subject]; ok && now.Sub(t) < sparseInterval {
		return false
	}
	if s.last == nil {
		s.last = make(map[string]time.Time)
	}
	if len(s.last) >= sparseSubjects {
		for k, t := range s.last {
			if now.Sub(t) >= sparseInterval {
				delete(s.last, k)
			}
		}
		if len(s.last) >= sparseSubjects {
			return false
		}
	}
	s.last[subject] = now
	return true
}
