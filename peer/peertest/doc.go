// Package peertest runs whole clusters of real nodes in one process, over the in-memory network of package netsim, and
// checks what they did.
//
// A [Cluster] starts nodes with a cache each, lets clients read and write, and injects faults from a seed:
//
//   - Packets are lost; connections stall and break.
//   - Hosts are cut off in one direction or both, paused, killed and started again, under new names as well and several at
//     once. Second nodes with names in use come and go.
//   - Values arrive long after they were put.
//   - Clocks are fast, slow or set ahead.
//   - The origin is slow, fails, hangs or panics, and its loads may read other keys.
//
// [Cluster.Run] plays a whole schedule. A test may also compose its own with Start, Crash, Leave, Get, Read, Write,
// [Cluster.Net], [Cluster.Origin] and [Cluster.Clock]. Run it in a [Bubble], where minutes take less than a second:
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
// Everything that loaders and clients see goes into a [History]. [History.Check] looks in it for violations of the
// guarantees that the README states, under the numbers that Check gives them. weir is available under partition, so both
// sides of a split may load a key; the [Rules] require no more than the README promises. Tests of the checker break each
// guarantee on purpose and expect the checker to find it; CONTROLS.md says how soon it does.
//
// # Seeds
//
// A seed decides the faults: which nodes are cut off, stopped or written to, when, for how long, and the fate of the n-th
// packet of a link. It does not decide how goroutines are scheduled. There are two ways to run a seed:
//
//   - Natively, with the race detector: go test -race ./peer/peertest -run '^TestSim$' -seed N. It finds data races, and
//     bugs that need preemption between two instructions. A violation may need several runs of its seed.
//   - Repeatably, by the module in the directory replay: make sim SEED=N SCHEDULE=M. A second seed decides how goroutines
//     are scheduled, so the pair decides everything: [Cluster.Digest] is the same each time. After a violation, replay
//     drops faults as long as the violation persists ([Plan].Without), and prints the shortest history that shows it.
//
// When a native seed fails, make sim SEED=N SCHEDULES=200 tries schedules of it until one fails, and prints the pair. make
// soak draws pairs until it is stopped, make soak-native draws seeds. Both append failures to bin/soak-failed.txt.
package peertest
