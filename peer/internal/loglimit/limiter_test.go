package loglimit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/loglimit"
)

func TestLimiter(t *testing.T) {
	var l loglimit.Limiter
	now := time.Unix(0, 0)
	if !l.Allow("a", now) || l.Allow("a", now.Add(time.Minute-1)) || !l.Allow("b", now) {
		t.Error("want one line for each subject")
	}
	if !l.Allow("a", now.Add(time.Minute)) {
		t.Error("want another line after a minute")
	}
}

// TestSubjectsAreBounded checks that strangers who name ever new subjects neither fill the log nor the memory, and that
// lines are written again once the remembered subjects are old.
func TestSubjectsAreBounded(t *testing.T) {
	var l loglimit.Limiter
	now := time.Unix(0, 0)
	allowed := 0
	for i := range 10_000 {
		if l.Allow(fmt.Sprint(i), now) {
			allowed++
		}
	}
	if allowed != 256 {
		t.Errorf("%d lines were allowed in one moment", allowed)
	}
	if l.Allow("another", now.Add(time.Minute-1)) || !l.Allow("another", now.Add(time.Minute)) {
		t.Error("want lines about other subjects after a minute, and none before")
	}
}
