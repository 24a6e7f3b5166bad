package loglimit

import (
	"sync"
	"time"
)

const (
	interval    = time.Minute // a line about a subject is not repeated within it
	maxSubjects = 256         // remembered subjects; strangers choose them, so their number is bounded
)

// A Limiter allows one line a minute for each subject.
type Limiter struct {
	mu   sync.Mutex // guards last
	last map[string]time.Time
}

// Allow reports whether a line about subject may be written now.
func (l *Limiter) Allow(subject string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.last[subject]; ok && now.Sub(t) < interval {
		return false
	}
	if l.last == nil {
		l.last = make(map[string]time.Time)
	}
	if len(l.last) >= maxSubjects {
		for k, t := range l.last {
			if now.Sub(t) >= interval {
				delete(l.last, k)
			}
		}
		if len(l.last) >= maxSubjects {
			return false
		}
	}
	l.last[subject] = now
	return true
}
