// Package peer is the network of a weir cluster: it finds the members, agrees with them on who is
// in the view, and carries requests between them.
//
// # The story of a member
//
//  1. Start opens one port and lists this node in a view of its own. Then it resolves the seeds
//     (Config.Join, and what Config.Discover finds) and exchanges states with those that answer;
//     none answering is no error, the node goes on alone and tries again.
//  2. Gossip (hashicorp/memberlist) spreads who is there. Each node's meta says its stable name,
//     which start of it this is (the incarnation), and how it places keys. A member that places
//     keys differently gossips, but stays out of the view; one of another cluster is turned away at
//     the port.
//  3. One goroutine turns what gossip tells into a view, and publishes it behind an atomic pointer:
//     View is one load, ViewChanged tells of the next. Members that heard the same build the same
//     view, in whatever order they heard it.
//  4. A node that restarts has a new incarnation under its old name: it gets its keys back at once,
//     and calls to the earlier start fail.
//  5. A member that refuses or is silent is bypassed within half a second, or somewhat later while its machine
//     acknowledges what it is sent: calls to it fail at once while one goroutine probes it, so that every node
//     turns to the same successor. Gossip
//     probes, suspects and drops it within seconds. It goes on counting in Divisor, as it may be
//     alive on the other side of a split, until its address refuses connections: its process has ended.
//  6. Every Config.RejoinInterval the seeds are resolved anew, and joined if one of their addresses
//     is no member: that is how a split heals.
//  7. Leave tells the others, who drop the node from their views and forget it; Close just goes.
//
// # One port
//
// Gossip over UDP, gossip over TCP and data over TCP share one port number: an operator opens one
// port in the firewall, names one in the seeds, and a node cannot be half reachable. A TCP
// connection tells by its first bytes what it is: data starts with "WEIR", with TLS right behind
// it, gossip with "WEIG" and TLS, in which memberlist's label header follows, which has the cluster's name in
// it; without a secret it is the label header alone. Everything else
// (an HTTP request, a port scan, silence for three seconds) is closed, and the log says what it
// was. How many may be undecided at once is bounded.
//
// # Trust
//
// Config.Secret is shared by the members and nobody else. Derived from it are the keys that encrypt
// gossip and a certificate authority, the same on every node: each node makes a certificate of its
// own with its name in it, valid for a day and renewed by the half. Gossip streams are TLS 1.3 with these
// certificates, so that memberlist reads nothing of a stranger. Data connections are TLS 1.3
// with certificates on both sides: the dialling node checks that it reached the member that it
// meant, the other one that the hello's name is the certificate's. Config.TLS takes the place of
// the derived authority for who has one. Without a secret Config.Bind must be on the loopback. What
// strangers can hold is bounded at the port, what members can hold by their connections and the
// budget of bytes in flight; see SECURITY.md.
//
// The hellos on a data connection compare versions, placement, cluster name and limits; what
// differs closes the connection with a reason on both sides. A namespace that differs is refused by
// itself, request by request, which its cache takes for misses.
//
// # What others see of it
//
// Node.Handler serves a page, statistics, Prometheus metrics, health and readiness over HTTP,
// wherever the service mounts it; STATS.md documents the JSON. Any node tells of all: it asks the
// others over the data connections, in a namespace that no cache can have. What has happened to the
// members is a list of events, which are lines of the log with a stable name. What changes
// something needs Config.OperatorToken. A node is ready once a seed has answered or there was none
// to ask: names that do not resolve yet stand for nobody, so the first node of a cluster becomes
// ready by itself. Seeds behind a name that only lists ready nodes (a Kubernetes service without
// publishNotReadyAddresses) are found once they are ready. Its caches must also have compared with
// every member which invalidations each has applied, for which it waits for 15 seconds at most:
// Node.Ready.
//
// A Network takes the place of the operating system's in tests: with an in-memory one, a whole
// cluster runs inside a testing/synctest bubble. memberlist's last probe outlasts Close by up to
// four probe intervals; a bubble must let that time pass before it ends.
package peer
