// Package peertest runs whole clusters of real nodes in one process, over the network in
// memory of package netsim, and checks what they did.
//
// A [Cluster] starts nodes and a cache on each, lets clients read and write, and makes faults
// from a seed: packets that are lost, connections that stall and break, hosts that are cut off,
// one way or both, paused, killed and started again, and an origin that is slow, fails, hangs or panics. Run it in a
// testing/synctest bubble, on one processor (see [Bubble]), and minutes take less than a second.
//
// Everything that loaders and clients see goes into a [History], and [History.Check] looks for
// broken guarantees in it: G1 to G6 of the README. Tests of the checker break each guarantee on
// purpose, and see it found.
package peertest
