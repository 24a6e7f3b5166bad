// Package netsim is an in-memory network for tests: hosts with addresses, packets and connections, and faults that a seed
// decides. A [Host] satisfies peer.Network, so real nodes run over it. In a testing/synctest bubble, minutes of their life
// take fractions of a second. Package peertest builds whole clusters on it.
//
// # Faults
//
// The fate of the n-th packet or write of a link depends only on the seed, the link and n. Packets are dropped, duplicated,
// delayed and reordered. Writes are delayed and stalled, and they break or half-close their connection. A test can add
// further faults. [Network.Cut] and [Network.Isolate] block links, in one direction or both, and hold back the data in
// connections, as a network that loses packets does. [Network.Pause] holds all input and output of a host, as SIGSTOP does.
// [Network.Crash] ends its sockets at once.
package netsim
