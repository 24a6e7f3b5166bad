// Package peer is the network of a weir cluster. It finds the members, agrees with them on the view, and carries requests
// between them.
//
// # The life of a member
//
//  1. Start opens one port and lists this node in a view of its own. Then it resolves the seeds (Config.Join, and what
//     Config.Discover finds) and exchanges states with those that answer. If none answers, that is not an error: the node
//     runs alone and tries again.
//  2. Gossip (hashicorp/memberlist) spreads which members exist. Each node's meta states its stable name, its incarnation
//     (which start of the node this is), and how it places keys. A member that places keys differently gossips, but stays
//     out of the view. A node of another cluster is rejected at the port.
//  3. One goroutine turns what gossip reports into a view, and publishes it behind an atomic pointer: View is one load,
//     ViewChanged signals the next one. Members that have received the same reports build the same view, in whatever order
//     the reports arrived.
//  4. A node that restarts has a new incarnation under its old name. It gets its keys back at once, and calls to the
//     earlier incarnation fail.
//  5. A member that refuses connections or is silent is bypassed within half a second, or somewhat later while its machine
//     acknowledges what it is sent. Calls to it fail at once while one goroutine probes it, so that every node turns to the
//     same successor. Gossip probes, suspects and drops it within seconds. It still counts in Divisor, because it may be
//     alive on the other side of a split, until its address refuses connections, which proves that its process has ended.
//  6. Every Config.RejoinInterval the seeds are resolved again, and joined if one of their addresses is not a member. This
//     is how a split heals.
//  7. Leave tells the others, which drop the node from their views and forget it. Close stops without telling them.
//
// # One port
//
// Gossip over UDP, gossip over TCP and data over TCP share one port number. An operator opens one port in the firewall and
// names one in the seeds, and a node cannot be half reachable. The first bytes of a TCP connection identify it. Data starts
// with "WEIR", followed directly by TLS. Gossip starts with "WEIG" and TLS; inside follows memberlist's label header, which
// contains the cluster's name. Without a secret, gossip starts with the label header alone. Everything else (an HTTP
// request, a port scan, silence for three seconds) is closed, and the log says what it was. The number of connections that
// are undecided at once is bounded.
//
// # Trust
//
// The members share Config.Secret, and nobody else has it. From it each node derives the keys that encrypt gossip, and a
// certificate authority that is the same on every node. Each node issues itself a certificate with its name in it, valid
// for a day and renewed after half of that. Gossip streams are TLS 1.3 with these certificates, so memberlist reads nothing
// from a stranger. Data connections are TLS 1.3 with certificates on both sides: the dialling node checks that it reached
// the member that it meant, and the accepting node checks that the name in the hello is the name in the certificate.
// Config.TLS replaces the derived authority for services that have their own. Without a secret Config.Bind must be on the
// loopback. What strangers can hold is bounded at the port; what members can hold is bounded by their connections and the
// budget of bytes in flight. See SECURITY.md.
//
// The hellos on a data connection compare versions, placement, cluster name and limits. A difference closes the connection
// with a reason on both sides. A namespace that differs is rejected on its own, request by request, which its cache treats
// as misses.
//
// # What others see of it
//
// Node.Handler serves a page, statistics, Prometheus metrics, health and readiness over HTTP, wherever the service mounts
// it; STATS.md documents the JSON. Any node can report on all of them: it asks the others over the data connections, in a
// namespace that no cache can have. What has happened to the members is a list of events, which are log lines with a stable
// name. Requests that change something need Config.OperatorToken.
//
// A node is ready once a seed has answered or there was none to ask. Names that do not resolve yet do not count as seeds,
// so the first node of a cluster becomes ready by itself. Seeds behind a name that only lists ready nodes (a Kubernetes
// service without publishNotReadyAddresses) are found once they are ready. In addition, the node's caches must have
// compared with every member which invalidations each has applied. The node waits at most 15 seconds for this: see
// Node.Ready.
//
// # Where things are
//
// Package peer has the Node, its configuration, the port, and what operators see. The rest is in packages of its own, each
// with its invariants in its doc.go:
//
//	internal/roster    who the members are: gossip, views, seeds, shares
//	internal/wire      how requests reach them: connections, frames, breakers
//	internal/trust     how members recognize one another: keys and certificates
//	internal/hearing   whether silence is this node's own fault
//	internal/loglimit  how many lines strangers can cause in the log
//
// roster and wire do not know each other. The Node tells the wire which members the roster names, and the roster what is
// heard on the wire.
//
// In tests a Network replaces the operating system's network. With an in-memory one, a whole cluster runs inside a
// testing/synctest bubble. memberlist's last probe outlasts Close by up to four probe intervals; a bubble must let that
// time pass before it ends.
package peer
