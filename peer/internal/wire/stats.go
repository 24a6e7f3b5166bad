package wire

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// counters count since the start, over all peers.
type counters struct {
	calls, errors, dials, served, refused, bytesIn, bytesOut atomic.Int64
	opened, shut                                             atomic.Int64 // breakers
}

// The states of a peer's breaker.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"      // the peer refuses or is silent, and is not called
	BreakerHalfOpen = "half_open" // such a peer is being probed
)

// PeerStats is what a Plane reports about one peer.
type PeerStats struct {
	Name      string
	Addr      string
	Connected int    // connections that are up
	InFlight  int    // calls that wait for an answer
	Queued    int    // bytes that wait to be sent
	Calls     int64  // since this node first called the peer
	Errors    int64  // calls that were not answered
	BytesIn   int64  // on connections that this node opened
	BytesOut  int64  // likewise
	Dials     int64  // connection attempts
	Breaker   string // BreakerClosed, BreakerOpen or BreakerHalfOpen
	Openings  int64  // how often the breaker has opened
}

// Totals is what a Plane has counted since the start, over all peers, and what it holds now.
type Totals struct {
	Calls, Errors, Dials int64 // to other members: calls, those without an answer, connection attempts
	Served               int64 // requests from other members
	Refused              int64 // connections from others, closed before they were used
	BytesIn, BytesOut    int64
	Opened, Shut         int64 // changes of breakers
	Accepted             int   // connections from others that are open
	InFlight             int64 // bytes that count toward the budget
}

// Totals returns the totals as of now.
func (d *Plane) Totals() Totals {
	d.mu.Lock()
	accepted := len(d.sessions)
	d.mu.Unlock()
	return Totals{
		Calls: d.calls.Load(), Errors: d.errors.Load(), Dials: d.dials.Load(), Served: d.served.Load(), Refused: d.refused.Load(),
		BytesIn: d.bytesIn.Load(), BytesOut: d.bytesOut.Load(), Opened: d.opened.Load(), Shut: d.shut.Load(),
		Accepted: accepted, InFlight: d.flying.Load(),
	}
}

// Peers returns the statistics of each peer, by name.
func (d *Plane) Peers() []PeerStats {
	var out []PeerStats
	for _, p := range *d.peers.Load() {
		out = append(out, p.stats())
	}
	slices.SortFunc(out, func(a, b PeerStats) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
