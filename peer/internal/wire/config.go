package wire

import (
	"context"
	"log/slog"
	"net"

	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/trust"
	"github.com/weircache/weir/ring"
)

// Config configures a Plane.
type Config struct {
	Name        string // of this node's member
	Incarnation uint64 // which start of it this is
	Cluster     string // its cluster's name
	Placement   uint64 // fingerprint of how this node places keys; nodes that differ do not talk
	ValueLimit  int    // bytes of the longest value; nodes that differ do not talk

	Connections int   // that this node opens to each peer
	Sessions    int   // that each peer may have open to this node
	Budget      int64 // bytes in flight on this node; the package comment says which

	Dial    func(ctx context.Context, addr string) (net.Conn, error)
	Trust   *trust.Trust     // nil, or one without TLS: connections are plaintext
	Hearing *hearing.Monitor // tells whether silence of a peer is this node's own fault
	Logger  *slog.Logger
	Seed    uint64 // of the random parts of pauses

	Returned func(member string) // called when a member that alone was silent answers again; may be nil
	Ended    func(ring.Member)   // called when a member's address proves that its process has ended; may be nil
}
