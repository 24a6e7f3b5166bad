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
