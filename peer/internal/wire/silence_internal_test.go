package wire

import (
	"testing"
	"time"
)

// TestSilenceCounts checks that a tick without a byte counts if the node is able to listen and the peer's machine is silent
// as well, or if that has lasted for long.
func TestSilenceCounts(t *testing.T) {
	now := time.Now()
	var s silence
	for i, c := range []struct {
		after   time.Duration
		able    bool
		acked   bool
		counted bool
		ticks   int
	}{
		{0, true, false, true, 1}, {linkTick, true, false, true, 2}, {linkTick, false, false, false, 2}, {time.Second, false, false, false, 2},
		{linkTick, true, false, true, 3}, {linkTick, true, true, false, 3}, {deafMost - time.Second - 5*linkTick, false, false, false, 3},
		{linkTick, false, false, true, 4}, {linkTick, false, true, false, 4}, {linkTick, false, false, true, 5}, {linkTick, true, false, true, 6},
		{linkTick, true, true, false, 6}, // the second spared tick: what counts is not the time but how long this node could listen
		{starvedMost - deafMost - 5*linkTick, false, true, false, 6}, {linkTick, false, true, true, 7},
	} {
		now = now.Add(c.after)
		var counted bool
		if s, counted = s.afterTick(now, c.able, c.acked); counted != c.counted || s.ticks != c.ticks {
			t.Errorf("tick %d: counted %v, %d ticks; want %v, %d", i, counted, s.ticks, c.counted, c.ticks)
		}
	}
	s = silence{ticks: silentAfter - 1}
	for n := 1; ; n++ {
		var counted bool
		if s, counted = s.afterTick(now, true, true); counted || n > int(deafMost/linkTick) {
			if n != int(deafMost/linkTick) {
				t.Errorf("a stopped peer is spared for %d ticks", n)
			}
			break
		}
	}
}

// TestWhichTicksNeedAnAcknowledgement checks that the peer's machine is looked at only where that decides whether a tick
// counts: before the last one that the breaker waits for, and when the time of a node that cannot listen is over.
func TestWhichTicksNeedAnAcknowledgement(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) silence { return silence{since: now.Add(-d)} }
	for _, c := range []struct {
		s    silence
		able bool
		want bool
	}{
		{silence{}, true, false}, {silence{ticks: silentAfter - 2}, true, false}, {silence{ticks: silentAfter - 1}, true, true}, {silence{ticks: silentAfter}, true, false},
		{silence{}, false, false}, {ago(deafMost - 1), false, false}, {ago(deafMost), false, true}, {ago(2 * deafMost), false, true}, {ago(2 * deafMost), true, false},
	} {
		if got := c.s.needsAck(now, c.able); got != c.want {
			t.Errorf("%+v, able %v: %v", c.s, c.able, got)
		}
	}
}
