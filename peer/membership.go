package peer

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/weircache/weir/ring"
)

// label returns what keeps this cluster's gossip apart from that of others.
func (n *Node) label() string { return "weir/" + n.cfg.ClusterName }

// rosterConfig returns the configuration of the roster, which gossips over pc and owns rnd from now on.
func (n *Node) rosterConfig(pc net.PacketConn, rnd *rand.Rand) rosterConfig {
	s := &n.cfg
	return rosterConfig{
		self: n.id, addr: n.addr, ring: s.Ring, minMembers: s.MinMembers, giveUp: s.GiveUp, holdDown: s.Gossip.HoldDown,
		gossip: gossipConfig{
			label: n.label(), packets: pc, dial: n.trust.GossipDialer(s.Network.Dial), keyring: n.trust.Keyring,
			probeInterval: s.Gossip.ProbeInterval, probeTimeout: s.Gossip.ProbeTimeout, suspicionMult: s.Gossip.SuspicionMult,
		},
		seeds:   seedConfig{fixed: s.Join, discover: s.Discover, interval: s.RejoinInterval, network: s.Network},
		hearing: n.hearing, logger: n.logger, rnd: rnd,
	}
}

// rosterHost is the node as its roster sees it.
type rosterHost struct{ n *Node }

// Allow implements host.
func (h rosterHost) Allow(members map[string]uint64) { h.n.data.allow(members) }

// Confine implements host.
func (h rosterHost) Confine(members map[string]uint64) { h.n.data.confine(members) }

// LongestLoad implements host.
func (h rosterHost) LongestLoad() time.Duration {
	_, longest := h.n.loads()
	return longest
}

// HasEnded implements host.
func (h rosterHost) HasEnded(ctx context.Context, start ring.Member) bool {
	conn, err := h.n.cfg.Network.Dial(ctx, start.Addr)
	if err == nil {
		_, err = h.n.data.connectTo(ctx, conn, start)
		_ = conn.Close()
	}
	return provesEnd(err)
}
