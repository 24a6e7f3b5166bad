// Package clock is the time that a cache uses: nanoseconds since the cache was made, suspensions of the machine
// included.
//
// Invariants:
//
//   - A reading is never less than an earlier one, as long as the source of the time is monotonic.
//   - A suspension counts from the first Tick after it, once. Differences below SleptLeast do not count.
//   - A suspension that ended before the clock was made does not count.
//   - If the system cannot tell the suspension, the clock continues without it, and a later Tick may know it.
package clock
