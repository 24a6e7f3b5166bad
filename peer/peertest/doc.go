// Package peertest runs whole clusters of real nodes in one process, over the network in memory of
// package netsim, and checks what they did.
//
// A [Cluster] starts nodes and a cache on each, lets clients read and write, and makes faults from
// a seed: packets that are lost, connections that stall and break, hosts that are cut off, one way
// or both, paused, killed and started again, also under new names and several at once, second nodes with names in use, values that
// arrive long after they were put, clocks that are fast, slow or set ahead, and an origin that is slow, fails, hangs or panics, and
// whose loads may read other keys. [Cluster.Run] plays a whole schedule; a test may as well
// make its own with Start, Crash, Leave, Get, Read, Write, [Cluster.Net], [Cluster.Origin] and
// [Cluster.Clock]. Run it in a [Bubble], and minutes take less than a second:
//
//	peertest.Bubble(t, func(t *testing.T) {
//		c := peertest.New(peertest.Options{Seed: 7})
//		if err := c.Run(t.Context(), peertest.Plan{}); err != nil {
//			t.Error(err)
//		}
//		for _, v := range c.History.Check(c.Rules()) {
//			t.Error(v)
//		}
//	})
//
// # Guarantees
//
// Everything that loaders and clients see goes into a [History], and [History.Check] looks for
// broken guarantees in it: those that the README states, by the numbers that Check gives them. weir
// is available under partition, so both sides of a split may load a key; the [Rules] ask for no
// more than the README promises. Tests of the checker break each guarantee on purpose, and see it
// found.
//
// # Seeds
//
// A seed decides the faults: which nodes are cut off, stopped or written to, when, for how long, and
// what becomes of the n-th packet of a way. It does not decide how goroutines take turns. There are
// two ways to run a seed:
//
//   - Natively, with the race detector: go test -race ./peer/peertest -run '^TestSim$' -seed N. It finds
//     data races, and what needs several instructions to be cut in two. A violation may need its seed
//     played more than once.
//   - Repeatably, by the module in the directory replay: make sim SEED=N SCHEDULE=M. A second seed
//     decides how goroutines take turns, so the pair decides everything: [Cluster.Digest] is the
//     same each time. After a violation faults are left out as long as it still shows
//     ([Plan].Without), and the shortest history that shows it is printed.
//
// When a native seed fails, make sim SEED=N SCHEDULES=200 tries schedules of it until one
// fails, and prints the pair. make soak draws pairs until it is stopped, make soak-native seeds; both
// keep what failed in bin/soak-failed.txt.
package peertest
