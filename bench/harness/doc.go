// Package harness runs a scenario on a system, weir or a rival, and measures what callers and
// the origin saw of it.
//
// One Run is a number of rounds, and in each round every system runs the same scenario in turn,
// with the same seed, against the same model of an origin and the same faults at the same
// times. What a system cannot do is in its result; it is not passed over in silence.
//
// # Who is measured
//
// A System starts a Cluster. Weir and Processes are weir's; Existing is services that
// run already and are asked over HTTP; the rivals' adapters are in bench/rivals.
//
// # What is measured
//
// Each value says which key it is of, which of the origin's versions it is and when its load
// began. So it can be told of every answer, of any system, how old it is, whether it is
// the right one, and whether the origin had replaced it before the call. An ideal
// cache runs along, with room for everything and shared by all nodes: the loads that it
// would have made are those that were due, and amplification is the origin's calls to these.
//
// In an open loop a request's latency counts from when it was due, not from when a caller was
// free for it: a system that stands still cannot hide it by not being asked. Measures.Late says how late the
// harness itself was.
//
// # When it goes wrong
//
// A system that dies, panics or does not start ends its own rounds alone; an interrupt ends all.
// What was measured until then is kept, and marked as partial.
package harness
