package roster_test

import (
	"fmt"
	"testing"
	"time"
)

// answers reports an answer of a member that shows another view, or the same one.
func (n *node) answers(name string, same bool) {
	m, ok := n.View().Member(name)
	if !ok {
		m.Name, m.Addr = name, "10.0.0.99:7946"
	}
	n.Compare(m, n.View().Fingerprint(), same)
}

// TestViewsThatDiffer checks that a member whose answers show another view for long is reported, and that the node is not
// ready if most members do.
func TestViewsThatDiffer(t *testing.T) {
	const long, forgotten = 10 * time.Second, 30 * time.Second
	bubble(t, func(t *testing.T) {
		r := with(t, 3)
		began, ended := 0, 0
		step := func(after time.Duration, long string, most bool) {
			t.Helper()
			pause(after)
			r.Refresh()
			if got := fmt.Sprint(r.Differing()); got != long || (r.MostlyDiffering() != nil) != most {
				t.Errorf("%v (most %v), want %v (most %v)", got, r.MostlyDiffering(), long, most)
			}
			if a, b := r.lines("members have had a different view"), r.lines("all members have the same view again"); a != began || b != ended {
				t.Errorf("%v: the log has %d lines of a difference and %d of none, want %d and %d", long, a, b, began, ended)
			}
		}
		r.answers("b", false) // the view is brand new
		step(time.Second, "[]", false)
		for _, name := range []string{"b", "c", "gone"} {
			r.answers(name, false)
		}
		step(long-1, "[]", false)
		r.answers("b", false)
		step(1, "[]", false) // the last answer of b came less than ten seconds after its first
		r.answers("b", false)
		began++
		step(0, "[b]", false)
		step(0, "[b]", false)
		r.answers("c", false)
		began++
		step(0, "[b c]", true)
		r.answers("c", true)
		began++
		step(0, "[b]", false)
		step(forgotten, "[b]", false)
		ended++
		step(1, "[]", false) // no answer from it for longer
		step(0, "[]", false)
	})
	bubble(t, func(t *testing.T) {
		r := with(t, 2)
		pause(time.Second)
		r.answers("b", false)
		pause(long)
		r.answers("b", false)
		if r.Refresh(); len(r.Differing()) != 1 || r.MostlyDiffering() != nil {
			t.Errorf("%v differs, which is half of the others; most: %v", r.Differing(), r.MostlyDiffering())
		}
		r.answers("b", true)
		if r.Refresh(); len(r.Differing()) != 0 || r.lines("all members have the same view again") != 1 {
			t.Errorf("%v differs, and its last answer shows the same view; the log has %s", r.Differing(), r.log)
		}
	})
}
