package roster

import (
	"cmp"
	"slices"
	"time"
)

// A State says what is known of a member.
type State string

// The states of a member.
const (
	Alive   State = "alive"   // gossip says so
	Leaving State = "leaving" // it has said that it leaves, or a later start of its name has
	Lost    State = "lost"    // it vanished without leaving
	Refused State = "refused" // it cannot be in the view
)

// An Info is what is known of one start of a member.
type Info struct {
	Name        string
	Addr        string // "" if only its name is known
	Incarnation uint64
	State       State
	Zone        string        // as it reports
	RTT         time.Duration // of gossip probes, smoothed; 0: unknown
	Reason      string        // why it is refused, or that the process of a lost one has ended
	Since       *time.Time    // when a lost one was lost
}

// list returns all members, sorted by name and incarnation.
func (t *table) list() []Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Info, 0, len(t.records)+len(t.losses.lost))
	for name, rec := range t.records {
		m := Info{Name: rec.id.Name, Addr: rec.addr, Incarnation: rec.id.Incarnation, State: Alive, Zone: rec.id.Zone, RTT: rec.rtt, Reason: rec.refused}
		switch {
		case rec.refused != "":
			m.State = Refused
			m.Name = cmp.Or(m.Name, name)
		case rec.departing():
			m.State = Leaving
		}
		out = append(out, m)
	}
	for at, l := range t.losses.lost {
		m := Info{Name: at.name, Addr: l.addr, Incarnation: at.incarnation, State: Lost, Since: &l.at}
		if !l.ended.IsZero() {
			m.Reason = "its process has ended"
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return out
}
