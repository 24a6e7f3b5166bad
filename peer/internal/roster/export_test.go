package roster

import "github.com/hashicorp/memberlist"

// Reports is what memberlist calls to report what gossip says of the members.
type Reports interface {
	memberlist.Delegate
	memberlist.EventDelegate
	memberlist.AliveDelegate
	memberlist.PingDelegate
	memberlist.MergeDelegate
}

// Reports lets a test report what memberlist would.
func (r *Roster) Reports() Reports { return r.table }
