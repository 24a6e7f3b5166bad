// Command chaos runs a few nodes as separate processes, each in its own network namespace, injects faults from a seed, and
// checks from outside what clients and the origin saw.
//
// The nodes are real: real sockets, real processes, real time. This process is the origin, the clients and the checker. It
// records each read, load and invalidation in a peertest.History, and checks the history with the rules of the simulator.
// It never asks a node whether it kept a guarantee. It needs Linux, root and the command ip.
//
//	make chaos                                   two minutes of faults, from a seed that the clock gives
//	make chaos CHAOSFLAGS='-seed 7 -for 10m'
//	make chaos CHAOSFLAGS='-faults cut,oneway,stop -nodes 3 -ttl 1h'
//
// # Faults
//
// The kinds in faults.go are the names that -faults accepts. Faults overlap. At the end of each round all faults end. Then
// the cluster must return to one view with nothing in flight, and each node must serve its clients what the latest
// invalidations left. A seed decides the faults and the clients' calls; the machine decides how processes are scheduled.
//
// # Checks
//
// Each violation is printed with its part of the history, and ends the run with status 1.
//
//   - G2, G7: no read has data older than an invalidation that was acknowledged to a sender that saw all nodes. On members
//     that were told, no read has data older than any other invalidation. No read with a token has data older than the
//     token, even across partitions. After a round no read has data older than any invalidation whose sender is still up.
//   - G3, G6: no value is older than the contract's bound, by the origin's own stamps, nor older than the answer says.
//   - G1, G4: the number of concurrent loads, counted at the origin, is at most the cap. A node does not load a key twice
//     at once.
//   - G5: each read ends by its deadline, with a minute's grace for a busy machine, and any error is a documented one.
//   - G10: no read gets the value of another key.
//   - G11: the goroutines and the heap of a node that is never killed do not grow with the names that have come and gone.
//   - Convergence: within two minutes of the last fault there is one view of exactly the nodes that are up, and the whole
//     cap is divided by them.
package main
