// Package netsim is a network in memory for tests: hosts with addresses, packets and
// connections, and faults that a seed decides. A [Host] satisfies peer.Network, so real
// nodes run over it, and in a testing/synctest bubble minutes of their life take
// fractions of a second. peertest builds whole clusters on it.
//
// # Faults
//
// What happens to the n-th packet or write of a link depends on the seed, the link and n
// alone: packets are dropped, doubled, delayed and overtaken; writes are delayed, stalled, and
// break or half-close their connection. On top of that come the faults that a test makes:
// [Network.Cut] and [Network.Isolate] clog links, one way or both, and hold what is in a
// connection back, as a network does that loses packets; [Network.Pause] holds all of a host's
// input and output, as SIGSTOP does; [Network.Crash] ends its sockets at once.
package netsim
