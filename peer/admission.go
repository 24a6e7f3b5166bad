package peer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"

	"github.com/weircache/weir/ring"
)

// MaxMembers is the most members of a view: more were never measured, and a view of so many takes
// half a second to build from nothing. Config.Ring.Partitions, if fewer, is the limit.
const MaxMembers = 1024

// tableFactor is how many incarnations may be known for each member that a view may have:
// after a restart the earlier one is known for a while.
const tableFactor = 2

// memberLimit is the most members of a view that is placed like this.
func memberLimit(cfg ring.Config) int {
	if cfg.Partitions == 0 {
		cfg.Partitions = ring.DefaultPartitions
	}
	return min(MaxMembers, cfg.Partitions)
}

// NotifyAlive refuses members beyond what the table may hold: those that gossip tells of one
// by one. It refuses a start of a member that has left in order, of which only late or recorded packets can
// tell. The error makes memberlist ignore the member, with a line in the log.
func (r *roster) NotifyAlive(n *memberlist.Node) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.departed, n.Name) {
		return errors.New("it has left")
	}
	if r.table[n.Name] == nil && len(r.table) >= tableFactor*r.limit {
		return fmt.Errorf("%d members are known already, and %d may be in the view", len(r.table), r.limit)
	}
	return nil
}

// NotifyMerge refuses another node's members all at once, if there are too many of them.
func (r *roster) NotifyMerge(nodes []*memberlist.Node) error {
	live := 0
	r.mu.Lock()
	for _, n := range nodes {
		if r.table[n.Name] == nil && (n.State == memberlist.StateAlive || n.State == memberlist.StateSuspect) {
			live++
		}
	}
	known := len(r.table)
	r.mu.Unlock()
	if known+live > tableFactor*r.limit {
		return fmt.Errorf("it claims %d members beside the %d known here, and %d may be in the view; nothing of it is taken over", live, known, r.limit)
	}
	return nil
}
