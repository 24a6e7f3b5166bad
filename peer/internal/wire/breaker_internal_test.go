package wire

import (
	"testing"
	"time"
)

func TestBreakerSteps(t *testing.T) {
	whole := func(d time.Duration) time.Duration { return d }
	now := time.Now()
	var b breaker
	for i, want := range []struct {
		open  bool
		pause time.Duration
	}{{false, 50}, {false, 100}, {true, 200}, {true, 400}, {true, 800}, {true, 1600}, {true, 2000}, {true, 2000}} {
		b = b.failed(now, true, whole)
		if b.open != want.open || b.retry.Sub(now) != want.pause*time.Millisecond {
			t.Fatalf("after %d failures: %+v", i+1, b)
		}
	}
	if b = b.answered(); b.open || b.backoff != backoffMax || b.openings != 1 {
		t.Errorf("after an answer: %+v", b)
	}
	if b = b.failed(now, true, whole); b.open || b.row != 1 || b.backoff != backoffMax {
		t.Errorf("after one failure more: %+v", b)
	}
	for range 10 {
		b = b.failed(now, false, whole)
	}
	if b.open {
		t.Error("open although a connection works")
	}
	if b = b.tripped(now).tripped(now); !b.open || b.openings != 2 {
		t.Errorf("after a silence: %+v", b)
	}
	if b = b.renewed(); !b.open || b.backoff != 0 || !b.retry.IsZero() {
		t.Errorf("after a new start: %+v", b)
	}
}
