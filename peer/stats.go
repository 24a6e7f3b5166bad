package peer

import (
	"cmp"
	"slices"
	"time"

	"github.com/weircache/weir/ring"
)

// StatsSchema is the version of the stats document. It rises when a field changes its meaning or is removed, not when one
// is added.
const StatsSchema = 1

// Stats is the document that the stats endpoint serves as JSON. It contains no keys and no values of the cache.
type Stats struct {
	Schema      int            `json:"schema"` // StatsSchema
	Node        NodeStats      `json:"node"`
	View        ViewStats      `json:"view"`
	Namespaces  map[string]any `json:"namespaces"`  // each handler's own statistics, by namespace
	Connections []PeerStats    `json:"connections"` // the data plane's, by peer
	Events      []Event        `json:"events"`      // the newest, oldest first
}

// NodeStats describes this node in Stats.
type NodeStats struct {
	Name        string `json:"name"`
	Addr        string `json:"addr"`    // "ip:port" that others dial
	Cluster     string `json:"cluster"` // name of the cluster
	Version     string `json:"version"` // of weir, from the build information
	Uptime      int64  `json:"uptime_seconds"`
	Incarnation uint64 `json:"incarnation,string"` // which start of the node this is
	RingVersion int    `json:"ring_version"`
	Ready       bool   `json:"ready"`            // as /readyz reports
	Reason      string `json:"reason,omitempty"` // why it is not ready
	Members     int    `json:"divisor_members"`  // what Divisor divides by
	Rank        int    `json:"divisor_rank"`     // of this node, from 0
	Refused     int64  `json:"refused"`          // connections closed at the port or in their handshake
	Trust       string `json:"trust"`            // what protects data connections: "none", "secret" or "tls"
	SecretID    string `json:"secret_id"`        // distinguishes one Config.Secret from another without revealing it; "": none
}

// ViewStats describes the view in Stats, together with the members that are not in it.
type ViewStats struct {
	Fingerprint string       `json:"fingerprint"` // hexadecimal; equal on members that agree
	Changes     int64        `json:"changes"`     // views published since the start
	Members     []MemberInfo `json:"members"`
	Differing   []string     `json:"differing,omitempty"` // members that have had another view for more than ten seconds
}

// Stats returns the document that the stats endpoint serves. It calls the Stats methods of the handlers. It is safe for
// concurrent use; the result belongs to the caller.
func (n *Node) Stats() Stats {
	share := n.roster.share.Load()
	reason := n.unready()
	s := Stats{
		Schema: StatsSchema,
		Node: NodeStats{
			Name: n.id.name, Addr: n.Addr(), Cluster: n.id.cluster, Incarnation: n.id.incarnation,
			Version: Version(), Uptime: int64(time.Since(n.eyes.started).Seconds()),
			RingVersion: ring.Version, Ready: reason == "", Reason: reason,
			Members: share.members, Rank: share.rank, Refused: n.refused(), Trust: n.trust.Kind(), SecretID: n.trust.ID,
		},
		View:        ViewStats{Fingerprint: hex16(n.View().Fingerprint()), Changes: n.roster.changes.Load(), Members: n.Members(), Differing: n.roster.differ.listed()},
		Namespaces:  make(map[string]any),
		Connections: n.data.stats(),
		Events:      n.eyes.book.list(),
	}
	if s.Connections == nil {
		s.Connections = []PeerStats{}
	}
	for name, h := range n.handlers() {
		s.Namespaces[name] = statsOf(h)
	}
	return s
}

// refused returns how many connections were closed before they were used.
func (n *Node) refused() int64 { return n.port.refused.Load() + n.data.totals().refused }

// A State says what this node knows of a member.
type State string

// The states of a member.
const (
	StateAlive   State = "alive"   // in the view
	StateLeaving State = "leaving" // has announced that it leaves: owns nothing, still answers
	StateLost    State = "lost"    // gone without announcing it: dead, or cut off and alive
	StateRefused State = "refused" // gossips with this node, but cannot be in the view; the log says why
)

// A MemberInfo is what this node knows of one member.
type MemberInfo struct {
	Name        string        `json:"name"`
	Addr        string        `json:"addr"`                 // "ip:port" of gossip and data
	Incarnation uint64        `json:"incarnation,string"`   // which start of the member
	State       State         `json:"state"`                // see the constants
	Zone        string        `json:"zone,omitempty"`       // as it reports; "": not stated
	Share       float64       `json:"share"`                // of the partitions, 0 to 1
	Resting     bool          `json:"resting,omitempty"`    // it has flapped: alive, and owns nothing for a while
	RTT         time.Duration `json:"rtt_ns,omitempty"`     // of gossip probes, smoothed; 0: unknown
	Reason      string        `json:"reason,omitempty"`     // why a member is refused, or that the process of a lost one has ended
	Since       *time.Time    `json:"lost_since,omitempty"` // of a lost member
}

// list returns all members with their states, sorted by name and incarnation.
func (t *table) list(view *ring.View) []MemberInfo {
	t.mu.Lock()
	out := make([]MemberInfo, 0, len(t.records)+len(t.vanished))
	for name, rec := range t.records {
		m := MemberInfo{Name: rec.id.name, Addr: rec.addr, Incarnation: rec.id.incarnation, State: StateAlive, Zone: rec.id.zone, RTT: rec.rtt, Reason: rec.refused}
		switch {
		case rec.refused != "":
			m.State = StateRefused
			m.Name = cmp.Or(m.Name, name)
		case rec.id.leaving, rec.retired:
			m.State = StateLeaving
		}
		out = append(out, m)
	}
	for at, l := range t.vanished {
		m := MemberInfo{Name: at.name, Addr: l.addr, Incarnation: at.incarnation, State: StateLost, Since: &l.at}
		if !l.ended.IsZero() {
			m.Reason = "its process has ended"
		}
		out = append(out, m)
	}
	t.mu.Unlock()
	for i := range out {
		m := &out[i]
		if in, ok := view.Member(m.Name); ok && in.Incarnation == m.Incarnation && m.State == StateAlive {
			m.Share, m.Resting = view.Share(m.Name), in.Resting
		}
	}
	slices.SortFunc(out, func(a, b MemberInfo) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return out
}
