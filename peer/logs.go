package peer

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"sync"
	"time"
)

// gossipLogger is a *log.Logger for memberlist that hands its lines to logger.
func gossipLogger(logger *slog.Logger) *log.Logger {
	return log.New(gossipLines{logger}, "", 0)
}

// gossipLines takes memberlist's log lines apart: "[WARN] memberlist: text".
type gossipLines struct{ logger *slog.Logger }

func (g gossipLines) Write(line []byte) (int, error) {
	level, text := parseLine(line)
	if ctx := context.Background(); g.logger.Enabled(ctx, level) {
		g.logger.Log(ctx, level, string(text), "from", "gossip")
	}
	return len(line), nil
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
