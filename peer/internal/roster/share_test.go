package roster_test

import (
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/weircache/weir/peer/internal/roster"
)

// TestSettling checks that a lower share takes effect at once, and a higher one once it has been due for a while.
func TestSettling(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		step := func(after time.Duration, members, rank int) {
			t.Helper()
			pause(after)
			r.Refresh()
			if got := r.Share(); got != (roster.Share{Members: members, Rank: rank}) {
				t.Errorf("%v, want %d members and rank %d", got, members, rank)
			}
		}
		join := func(incarnation uint64, names string) (joined []*memberlist.Node) {
			for i, name := range names {
				n := gossiped(string(name), incarnation, byte(name)+byte(i), nil)
				r.NotifyJoin(n)
				joined = append(joined, n)
			}
			return joined
		}
		leave := func(nodes []*memberlist.Node) {
			for _, n := range nodes {
				r.NotifyUpdate(leaving(n))
				r.NotifyLeave(n)
			}
		}
		const earlier, later = 10, 0x2000 // than this node's incarnation
		first := join(earlier, "bc")
		step(0, 3, 2)
		leave(first)
		step(0, 3, 2)            // a higher share waits
		step(settleTime-1, 3, 2) // and still waits
		join(later, "d")         //
		step(0, 3, 2)            // a change restarts the time
		step(settleTime-1, 3, 2) //
		step(1, 2, 0)            // and then it takes effect
		second := join(earlier, "efgh")
		step(0, 6, 4) // a lower share takes effect at once
		leave(second)
		join(later, "ijkl")
		step(0, 6, 4) // an earlier rank waits as well
		join(later, "m")
		step(0, 7, 4)
		step(settleTime, 7, 0)
	})
}
