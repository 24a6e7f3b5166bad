// Package harness runs a scenario on a system, weir or a rival, and measures what callers and the origin observed.
//
// One Run consists of a number of rounds. In each round every system runs the same scenario in turn, with the same
// seed, against the same model of an origin and with the same faults at the same times. The result of a system
// names what the system cannot do.
//
// # What can be measured
//
// A System starts a Cluster. Weir and Processes are weir's; Existing is running services that receive requests over
// HTTP; the rivals' adapters are in bench/rivals.
//
// # What is measured
//
// Each value contains its key, the origin's version and the time at which its load began. So for every answer of
// any system the harness can tell how old it is, whether it is the right one, and whether the origin had replaced
// it before the call. The harness simulates an ideal cache, with room for everything and shared by all nodes. The
// loads of the ideal cache are the due loads, and amplification is the ratio of the origin's calls to them.
//
// In an open loop a request's latency counts from when it was due, not from when a caller was free for it: a system
// that stalls cannot hide that by receiving fewer requests. The latency of a read that is not answered is Never: a
// system that fails fast does not look fast.
//
// In each round the harness also runs alone, with a system that answers at once. What it uses for a get is subtracted
// from what the systems use, and its latency, or how late it sent requests if that is more, is its own part of theirs.
//
// # Failures
//
// A system that dies, panics or does not start ends only its own rounds; an interrupt ends all of them. The report
// keeps what was measured until then and marks it as partial.
package harness
