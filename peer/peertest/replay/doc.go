// Command replay runs the simulator of package peertest so that a run repeats to the instruction.
//
// The seed of a simulation decides its faults; Go's scheduler decides how goroutines are scheduled. Here the test binary is
// compiled for WebAssembly, where it has one thread and no preemption. wazero runs it with an rng that the schedule seed
// initialises, a clock that counts its readings, and sleeps that only advance that clock. So the pair of a fault seed and a
// schedule seed decides everything. A digest of a run's history and packets shows whether two runs were the same.
//
// # Choice
//
// Left to itself such a program has few schedules: goroutines run in the order in which they became ready, and each runs
// until it blocks. So the program is built with a changed runtime and changed copies of weir's packages, which take choices
// from the rng:
//
//   - order: which of the ready goroutines runs next;
//   - locks: whether a goroutine lets others run before it takes a lock, after it releases one, and before it uses a
//     channel;
//   - lines: whether it lets others run before the next statement of packages peer and tier and of those inside them. That
//     finds bugs that need a pause between two atomic operations.
//
// The frequency is itself drawn for each run: from one pause in 16 such places to one in 2048.
//
// The changes are made at build time from the installed Go and the work tree. The build fails if a place to change is
// missing. No other build contains the changes.
//
// # Use
//
// make sim SEED=7 SCHEDULE=3 repeats a run. make sim SEED=7 SCHEDULES=200 tries schedules until one breaks a guarantee. It
// then drops faults as long as the guarantee is still broken, and prints the shortest history that shows it. make soak
// draws pairs until it is stopped, and appends those that failed to bin/soak-failed.txt, as "seed schedule".
//
// # Controls
//
// make controls runs what is broken on purpose, and prints how soon the checker sees it: with choice, and without it, that
// is, with goroutines that run first in, first out. There are two kinds. The controls of package peertest make a member or a
// loader lie. The faults are mistakes in weir itself, each one forgotten check, which only this build contains (faults.go).
// CONTROLS.md has the table.
package main
