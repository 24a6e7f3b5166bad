// Package member starts weir for measurements: nodes of one cluster over real sockets, each with one cache. The harness,
// the rivals' table and the benchmarks measure weir through it, so that all of them start, await and end it in the same
// way.
//
//   - A member has the defaults of peer and tier, except that its logs are discarded unless its configuration names a
//     logger: what is measured is weir as it comes.
//   - Start and Group leave nothing behind after an error.
//   - There are three ways to end a member: Leave announces it first and answers until the others know, Kill is
//     noticed by the others only as silence, and Close is for members whose cluster ends as well.
package member
