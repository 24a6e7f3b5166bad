package roster

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"

	"github.com/weircache/weir/ring"
)

// MaxMembers is the largest number of members in a view. Larger views were never measured, and building one of this size
// from nothing takes half a second. If Config.Ring.Partitions is lower, that is the limit.
const MaxMembers = 1024

// tableFactor is how many incarnations may be known for each member that a view may have. After a restart the earlier
// incarnation stays known for a while.
const tableFactor = 2

// memberLimit returns the largest number of members in a view with this ring configuration.
func memberLimit(cfg ring.Config) int {
	if cfg.Partitions == 0 {
		cfg.Partitions = ring.DefaultPartitions
	}
	return min(MaxMembers, cfg.Partitions)
}

// NotifyAlive rejects members, announced one by one by gossip, beyond what the table may hold. It also rejects an
// incarnation of a member that has left gracefully; only late or recorded packets can announce one. The error makes
// memberlist ignore the member and log a line.
func (t *table) NotifyAlive(n *memberlist.Node) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.departed, n.Name) {
		return errors.New("it has left")
	}
	if t.records[n.Name] == nil && len(t.records) >= tableFactor*t.limit {
		return fmt.Errorf("%d members are known already, and %d may be in the view", len(t.records), t.limit)
	}
	return nil
}

// NotifyMerge rejects another node's whole member list if it has too many members.
func (t *table) NotifyMerge(nodes []*memberlist.Node) error {
	live := 0
	t.mu.Lock()
	for _, n := range nodes {
		if t.records[n.Name] == nil && (n.State == memberlist.StateAlive || n.State == memberlist.StateSuspect) {
			live++
		}
	}
	known := len(t.records)
	t.mu.Unlock()
	if known+live > tableFactor*t.limit {
		return fmt.Errorf("it claims %d members beside the %d known here, and %d may be in the view; nothing of it is taken over", live, known, t.limit)
	}
	return nil
}
