// Package hearing tells whether this node is able to listen to others.
//
// A node that cannot serve its own sockets hears nothing from anyone: it has no processor time, it was stopped, or
// ten thousand goroutines wait ahead of its readers. That looks like the death of all the others, at the moment at
// which the origin can bear it least. The evidence is local: the node's own timers come late as well. So the data
// connections do not count the silence of a peer, and the node does not believe gossip that a member is dead, while a
// Monitor says that the node cannot listen.
//
//   - A timer that fires 50 ms late is evidence. The garbage collector and a busy processor cost less.
//   - The node is hard of hearing from a late timer until CatchUp later, because what arrived meanwhile still waits
//     to be read.
//   - One Monitor serves the whole node, because the evidence of one timer holds for all. Watch provides evidence
//     even while no call waits; whatever else has a timer adds to it with Fired.
//   - A Monitor never says how long silence may be excused. Its users bound that, because a node must not wait
//     forever for a dead peer.
//
// A Monitor is safe for concurrent use and takes no lock. The package imports no other package of weir.
package hearing
