// Package roster knows who the members of a cluster are.
//
// A Roster gossips (hashicorp/memberlist), joins the seeds, and publishes a view whenever what it knows of the members has
// changed. It knows nothing of requests, and sees its node as a Host of four methods: which members may be called, how long
// a load may take, and whether a lost start has ended. The node in turn tells it what it hears on the data connections: that
// an answer came from a member with another view (Compare), that a silent member answers again (Answered), and that a start
// has ended (Proven).
//
// A start is one incarnation of a member's name. The table has a record of each start that gossip names, and remembers those
// that are lost or ended. What a start is, and what moves it:
//
//	state    in the view   counts in Share             next
//	live     the newest    yes; an earlier start only  doubted or lost: gossip says that it is dead
//	                       at another address          leaving: it says that it leaves
//	                                                   retired: a later start of its name leaves
//	doubted  as before     yes                         live: any sign of life
//	                                                   lost: this node could listen, or it has ended
//	leaving  no            yes                         gone: gossip says that it has left; it never returns
//	retired  no            yes                         live: any sign of life; gone: gossip says that it is dead
//	lost     no            yes                         live: gossip says so
//	                                                   ended: a refused connection, another member at its
//	                                                   address, or a member that knows
//	ended    no            yes, while loads may run    forgotten; live: gossip says so
//
// The tables in start.go, verdict.go and ended.go have the details and the reasons. Each decision is a function of the state,
// the event and the time, and reads no clock.
//
// Invariants:
//
//   - The order in which gossip's reports of live starts arrive does not matter to the view. A start's own word that it
//     leaves counts only if the start is already known; gossip brings it again.
//   - A view has the newest start of each name, and never one that has said that it leaves or that places keys otherwise.
//   - Host.Allow comes before a view with a new member, Host.Confine after one without an old member.
//   - Time alone proves no end. A lost start counts in Share until there is evidence, or for Config.GiveUp, or until more
//     starts are lost than the largest view had members: then the oldest one is forgotten. A share grows only after it has
//     been due for settleTime, and shrinks at once.
//   - A member that is lost and comes back again and again rests: it is in the view and owns nothing (flap.go).
//   - Everything that others can make a node remember is bounded: records, lost and ended starts, announcements, penalties,
//     seeds, log lines.
//   - memberlist calls the table under its own lock, so the table only records, and signals the one goroutine that looks at
//     it and publishes (watch.go). Nothing is logged, dialled or told under a lock.
package roster
