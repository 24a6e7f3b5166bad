package peer

import (
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/ring"
)

var (
	// ErrUnreachable says that a member could not be reached, or was lost before it answered. It wraps the cause.
	ErrUnreachable = wire.ErrUnreachable
	// ErrBusy says that the queue to a member, or this node's budget of bytes in flight, is full.
	ErrBusy = wire.ErrBusy
	// ErrClosed says that the node is closed.
	ErrClosed = wire.ErrClosed
)

// PeerStats is what the data plane reports about one peer.
type PeerStats struct {
	Name      string `json:"name"`
	Addr      string `json:"addr"`
	Connected int    `json:"connected"`      // connections that are up
	InFlight  int    `json:"in_flight"`      // calls that wait for an answer
	Queued    int    `json:"queued_bytes"`   // bytes that wait to be sent
	Calls     int64  `json:"calls"`          // since this node first called the peer
	Errors    int64  `json:"errors"`         // calls that were not answered
	BytesIn   int64  `json:"bytes_received"` // on connections that this node opened
	BytesOut  int64  `json:"bytes_sent"`     // likewise
	Dials     int64  `json:"dials"`          // connection attempts
	// Breaker is "closed", "open" while the peer refuses or is silent and is not called, or "half_open" while such a peer
	// is being probed.
	Breaker  string `json:"breaker"`
	Openings int64  `json:"breaker_openings"` // how often it has opened
}

// peerStats returns the statistics of each peer, by name.
func peerStats(data *wire.Plane) []PeerStats {
	out := []PeerStats{}
	for _, p := range data.Peers() {
		out = append(out, PeerStats(p))
	}
	return out
}

// planeConfig returns the configuration of a node's data plane.
func planeConfig(n *Node, seed uint64) wire.Config {
	return wire.Config{
		Name:        n.id.Name,
		Incarnation: n.id.Incarnation,
		Cluster:     n.id.Cluster,
		Connections: n.cfg.Connections,
		Sessions:    2 * MaxConnections, // as many again for those that a restart leaves behind
		ValueLimit:  n.cfg.ValueLimit,
		Budget:      n.cfg.InFlightBytes,
		Dial:        n.cfg.Network.Dial,
		Logger:      n.logger,
		Seed:        seed,
		Placement:   n.id.Placement,
		Trust:       n.trust,
		Hearing:     n.hearing,
		Returned:    func(member string) { n.roster.Answered(member) },
		Ended:       func(m ring.Member) { n.roster.Proven(m) },
	}
}
