// Package near is the near tier: ristretto decides what stays, and a front finds most of it faster.
//
// A box is a value together with its validity. The near tier never looks inside.
//
// # What ristretto does, and why it does not matter here
//
//   - It applies a Set later, or drops or rejects it. A near tier may miss.
//   - While a Set of a key is pending, a second Set is lost and the first value stays. A pending Set can overtake a Del. So
//     Get may return any box that was ever set under the key, and the caller must test the box each time.
//   - A Close that races with a Get or Set panics, hangs or is a data race. So each call passes a gate, which Close
//     shuts before it waits for the calls inside.
//
// # The front
//
// The front is a table of pointers to entries that ristretto has. The key's hash picks the place, and the last key of that place that
// ristretto returned has it. A hit in the front takes no lock and does not touch ristretto, so it needs no gate. The front holds
// only what ristretto holds: ristretto reports each entry that leaves it, Tier marks that entry as gone and then
// takes it from its place, and a goroutine that puts an entry in front looks at the mark afterwards. One of the two sees
// the other. Ristretto must learn of hits to know what to keep; a sample of them is enough.
//
// A key is known by 127 bits of hash, seeded for each Tier, so that nobody can choose keys that find each other's boxes.
//
// # The gate
//
// The gate is a set of cells, and a call uses the cell that its goroutine's stack address picks, so that calls that
// run at the same time rarely share one. A call adds to in, reads closed, uses ristretto, then adds to one of the ways out, which
// also count hits and misses. Close sets closed, then waits for each cell until as many calls are out as in. Go's atomics are
// sequentially consistent: a call that read closed unset had added to in before Close reads it, and Close reads the ways
// out before in. Equal counts therefore mean that no call that read closed unset is still inside, and every later
// call leaves ristretto alone.
package near
