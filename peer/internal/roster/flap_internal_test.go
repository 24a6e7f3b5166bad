package roster

import (
	"testing"
	"time"
)

func TestFlapPenalty(t *testing.T) {
	const half = time.Minute
	now := time.Now()
	f := flap{at: now}.more(1)
	if f.rests {
		t.Error("one return makes a member rest")
	}
	if f = f.after(now.Add(50*time.Second), half).more(1); !f.rests || f.penalty < 1.5 || f.penalty > 1.6 {
		t.Errorf("two within a minute: %+v", f)
	}
	left := f.left(half)
	if left < half || left > 70*time.Second {
		t.Errorf("it is to rest for %v", left)
	}
	if f.after(f.at.Add(left), half).rests || !f.after(f.at.Add(left-time.Second), half).rests {
		t.Errorf("it does not wake after %v", left)
	}
	if f = (flap{at: now}).more(1).after(now.Add(61*time.Second), half).more(1); f.rests {
		t.Errorf("two in more than a minute: %+v", f)
	}
	for range 100 {
		f = f.more(1)
	}
	if left := f.left(half); f.penalty != penaltyMax || left != 3*half+time.Millisecond {
		t.Errorf("after a hundred: %+v, to rest for %v", f, left)
	}
}

// TestFlapLimits checks the penalties at which a member begins to rest and wakes, and which of another member's are news.
func TestFlapLimits(t *testing.T) {
	const half = time.Minute
	now := time.Now()
	if f := (flap{penalty: restAt - 1, at: now}).more(1); !f.rests {
		t.Error("the penalty has reached restAt, and the member does not rest")
	}
	if f := (flap{penalty: 2 * wakeAt, at: now, rests: true}); !f.after(now.Add(half), half).rests || f.after(now.Add(half+time.Millisecond), half).rests {
		t.Error("a member rests until its penalty has fallen below wakeAt")
	}
	for _, c := range []struct {
		here    float64
		rests   bool
		penalty float64
		news    bool
	}{
		{0, false, 2, true},
		{2, true, 2, false},
		{2, true, 2 + flapNews/2, false},
		{2, true, 2 + 2*flapNews, true},
		{2, true, 1, false},
		{1.2, false, 1.2, true}, // there it has rested since before
		{1.2, false, 1, true},
		{0, false, wakeAt, false}, // it is about to wake there
		{0, false, wakeAt + flapNews/2, false},
		{0, false, wakeAt + 2*flapNews, true},
	} {
		f := flap{penalty: c.here, at: now, rests: c.rests}
		next, news := f.merged(c.penalty, now, half)
		if news != c.news || !news && next != f || news && (!next.rests || next.penalty != max(c.here, c.penalty)) {
			t.Errorf("%v after a penalty of %v: %+v, news: %v", f, c.penalty, next, news)
		}
	}
}
