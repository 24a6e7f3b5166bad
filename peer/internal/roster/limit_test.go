package roster_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"github.com/weircache/weir/peer/internal/roster"
)

// TestKnownStartsAreBounded checks that twice as many starts may be known as a view may have members, whether gossip brings
// them one by one or in another node's list, and that a small ring lowers both limits.
func TestKnownStartsAreBounded(t *testing.T) {
	const limit, known = 4, 8
	bubble(t, func(t *testing.T) {
		r := start(t, func(c *roster.Config) { c.Ring.Partitions = limit })
		member := func(i int) *memberlist.Node { return gossiped(fmt.Sprint("b", i), 10, byte(2+i), nil) }
		list := func(states ...memberlist.NodeStateType) (nodes []*memberlist.Node) {
			for i, state := range states {
				n := member(i)
				n.State = state
				nodes = append(nodes, n)
			}
			return nodes
		}
		const alive, suspect, dead, left = memberlist.StateAlive, memberlist.StateSuspect, memberlist.StateDead, memberlist.StateLeft
		fits := list(alive, alive, alive, suspect, alive, alive, suspect, dead, left, left)
		if err := r.NotifyMerge(fits); err != nil {
			t.Errorf("seven others are in the list: %v", err)
		}
		err := r.NotifyMerge(append(fits, member(10)))
		if err == nil || !strings.Contains(err.Error(), "it claims 8 members beside the 1 known here, and 4 may be in the view") {
			t.Errorf("eight others are in the list: %v", err)
		}
		for i := range known - 1 {
			if err := r.NotifyAlive(member(i)); err != nil {
				t.Errorf("member %d: %v", i, err)
			}
			r.NotifyJoin(member(i))
		}
		if err := r.NotifyAlive(member(known)); err == nil || !strings.Contains(err.Error(), "8 members are known already, and 4 may be in the view") {
			t.Errorf("one too many: %v", err)
		}
		if err := r.NotifyAlive(member(0)); err != nil {
			t.Errorf("one that is known: %v", err)
		}
		if err := r.NotifyMerge(list(alive, suspect, alive)); err != nil {
			t.Errorf("a list of those that are known: %v", err)
		}
		if err := r.NotifyMerge([]*memberlist.Node{member(known)}); err == nil {
			t.Error("a list with one more")
		}
		for i := range known - 1 {
			r.NotifyLeave(member(i))
		}
		for i := range limit - 1 {
			r.NotifyJoin(member(i))
		}
		if r.Refresh(); r.View().Len() != limit {
			t.Errorf("the view has %s", r.view())
		}
		r.NotifyJoin(member(limit))
		if r.Refresh(); r.View().Len() != limit || r.lines("the view cannot be rebuilt, the old one stays") != 1 {
			t.Errorf("the view has %s; the log %s", r.view(), r.log)
		}
	})
}
