// Command chaos runs a few nodes as processes of their own, each in a network namespace, makes faults from a seed, and
// checks from outside what clients and the origin saw.
//
// The nodes are real: real sockets, real processes, real time. This process is the origin, the clients and the checker. It
// notes each read, load and invalidation in a peertest.History, and checks it with the rules of the simulator; no node is
// asked whether it kept a guarantee. It needs Linux, root and the command ip.
//
//	make chaos                                   two minutes of faults, from a seed that the clock gives
//	make chaos CHAOSFLAGS='-seed 7 -for 10m'
//	make chaos CHAOSFLAGS='-faults cut,oneway,stop -nodes 3 -ttl 1h'
//
// # Faults
//
// Kinds says what -faults can name. Faults overlap. After each round all of them end, and the cluster has to come back to one
// view, with nothing in flight, and to give each node's clients what the latest invalidations left. A seed decides the
// faults and what clients want; how processes take turns is the machine's.
//
// # Checks
//
// Each violation is shown with the part of the history that belongs to it, and ends the run with status 1.
//
//   - G2, G7: no read has data older than an invalidation that was acknowledged to a sender that saw all nodes, nor, on members
//     that were told, than any other; no read with a token has data older than the token, across partitions too; after a
//     round no read has data older than any invalidation whose sender still lives.
//   - G3, G6: no value is older than the contract's bound, by the origin's own stamps, nor older than the answer says.
//   - G1, G4: loads at once, counted at the origin, are at most the cap; a node does not load a key twice at once.
//   - G5: each read ends by its deadline, with a minute's grace for a machine that is busy, and with an error that is documented.
//   - G10: no read gets the value of another key.
//   - G11: the goroutines and the heap of a node that is never killed do not grow with the names that have come and gone.
//   - Convergence: one view, of exactly the nodes that are up, within two minutes of the last fault, and the whole cap divided
//     by them.
package main
