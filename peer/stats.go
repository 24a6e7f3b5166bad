package peer

import (
	"time"

	"github.com/weircache/weir/peer/internal/roster"
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
	share := n.roster.Share()
	reason := n.unready()
	s := Stats{
		Schema: StatsSchema,
		Node: NodeStats{
			Name: n.id.Name, Addr: n.Addr(), Cluster: n.id.Cluster, Incarnation: n.id.Incarnation,
			Version: Version(), Uptime: int64(time.Since(n.eyes.started).Seconds()),
			RingVersion: ring.Version, Ready: reason == "", Reason: reason,
			Members: share.Members, Rank: share.Rank, Refused: endpoint{n}.refused(), Trust: n.trust.Kind(), SecretID: n.trust.ID,
		},
		View:        ViewStats{Fingerprint: hex16(n.View().Fingerprint()), Changes: n.roster.Changes(), Members: n.Members(), Differing: n.roster.Differing()},
		Namespaces:  make(map[string]any),
		Connections: peerStats(n.data),
		Events:      n.eyes.book.list(),
	}
	for name, h := range n.spaces.all() {
		s.Namespaces[name] = statsOf(h)
	}
	return s
}

// refused returns how many connections were closed before they were used.
func (e endpoint) refused() int64 { return e.n.port.refused.Load() + e.n.data.Totals().Refused }

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

// infos returns what the roster knows of each member, with its share of a view.
func infos(members []roster.Info, view *ring.View) []MemberInfo {
	out := make([]MemberInfo, 0, len(members))
	for _, m := range members {
		i := MemberInfo{
			Name: m.Name, Addr: m.Addr, Incarnation: m.Incarnation, State: State(m.State), Zone: m.Zone, RTT: m.RTT, Reason: m.Reason, Since: m.Since,
		}
		if in, ok := view.Member(m.Name); ok && in.Incarnation == m.Incarnation && m.State == roster.Alive {
			i.Share, i.Resting = view.Share(m.Name), in.Resting
		}
		out = append(out, i)
	}
	return out
}
