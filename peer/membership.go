package peer

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/ring"
)

// gossipLabel returns what keeps this cluster's gossip apart from that of others.
func (s *settings) gossipLabel() string { return "weir/" + s.ClusterName }

// rosterHost is the node as its roster sees it.
type rosterHost struct{ n *Node }

// config returns the configuration of the roster, which gossips over pc and owns rnd from now on.
func (h rosterHost) config(pc net.PacketConn, rnd *rand.Rand) roster.Config {
	n, s := h.n, &h.n.cfg
	return roster.Config{
		Self: n.id, Addr: n.addr, Ring: s.Ring, MinMembers: s.MinMembers, GiveUp: s.GiveUp, HoldDown: s.Gossip.HoldDown,
		Gossip: roster.Gossip{
			Label: s.gossipLabel(), Packets: pc, Dial: n.trust.GossipDialer(s.Network.Dial), Keyring: n.trust.Keyring,
			ProbeInterval: s.Gossip.ProbeInterval, ProbeTimeout: s.Gossip.ProbeTimeout, SuspicionMult: s.Gossip.SuspicionMult,
		},
		Seeds:   roster.Seeds{Fixed: s.Join, Discover: s.Discover, Interval: s.RejoinInterval, Network: s.Network},
		Hearing: n.hearing, Logger: n.logger, Rand: rnd,
	}
}

// Allow implements roster.Host.
func (h rosterHost) Allow(members map[string]uint64) { h.n.data.Allow(members) }

// Confine implements roster.Host.
func (h rosterHost) Confine(members map[string]uint64) { h.n.data.Confine(members) }

// LongestLoad implements roster.Host.
func (h rosterHost) LongestLoad() time.Duration {
	_, longest := h.n.spaces.loads()
	return longest
}

// HasEnded implements roster.Host.
func (h rosterHost) HasEnded(ctx context.Context, start ring.Member) bool {
	conn, err := h.n.cfg.Network.Dial(ctx, start.Addr)
	if err == nil {
		_, err = h.n.data.Handshake(ctx, conn, start)
		_ = conn.Close()
	}
	return wire.ProvesEnd(err)
}
