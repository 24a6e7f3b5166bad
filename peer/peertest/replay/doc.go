// Command replay runs the simulator of package peertest so that a run repeats to the instruction.
//
// The seed of a simulation decides its faults; how goroutines take turns is up to Go's scheduler. Here the test binary
// is compiled for WebAssembly, where it has one thread and no preemption, and wazero runs it with a random source that the
// schedule seed starts, a clock that counts its readings, and sleeps that only move that clock. So the pair of a fault seed
// and a schedule seed decides everything. The history of a run and its packets have a digest that says so.
//
// # Choice
//
// Left to itself such a program has few schedules: goroutines run in the order in which they became ready, and each
// until it waits. So the program is built with a changed runtime, and changed copies of weir's packages, which
// take choices from the random source:
//
//   - order: which of the goroutines that are ready runs next;
//   - locks: whether a goroutine lets others run before it takes a lock, after it gave one up, and before it uses a channel;
//   - lines: whether it lets others run before the next statement of packages peer and tier. That finds what
//     needs a pause between two atomic operations.
//
// How often is itself drawn for each run: between one pause in 16 such places, and one in 2048.
//
// The changes are made at build time from the installed Go and the work tree; the build fails if a place that it changes is
// not there. Nothing of them is in any other build.
//
// # Use
//
// make sim SEED=7 SCHEDULE=3 repeats a run. make sim SEED=7 SCHEDULES=200 tries schedules until one breaks a guarantee,
// then leaves out faults as long as it still does, and prints the shortest history that shows it. make soak
// draws pairs until it is stopped, and keeps those that failed in bin/soak-failed.txt, as "seed schedule".
package main
