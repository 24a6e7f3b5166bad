// Package governor decides when a load may read the origin. It combines a concurrency cap, a rate limit, a queue that
// sheds under overload, an adaptive limit, a circuit breaker and a retry budget.
//
// A Ticket stands for one load. Acquire waits for its permit, and Release returns the permit when the load has truly
// returned. A load that overruns its timeout keeps its permit until then.
//
// Invariants, for one Governor:
//
//   - A permit is granted only while fewer than Snapshot.Limit are in use. A load that returns from a nested read after its time has
//     ended is the one exception: it counts as holding a permit, above the limit if need be.
//   - No load holds a permit while it waits for another load. See Nesting.
//   - A free permit goes to a returning load first, then to the most urgent lane: misses with a deadline and other misses in turns,
//     then stale copies, refreshes and warming. Promote can only make a ticket more urgent.
//   - Every ticket leaves its queue: with a permit, with a Refusal, or when its context ends.
//   - A member's share can shrink at any time. No load begins under a share that is older than the last
//     result of FitsShare or Running.
//   - An open breaker admits nothing; a half-open one admits Probes loads. A load that began before the breaker changed its
//     state does not count towards the new state.
//   - Retries are at most RetryBudget of the admitted loads, plus RetryReserve.
//
// All decisions are values with pure methods of (state, event, now): breaker, limit, bucket and queuePolicy. The Governor holds
// them, the queues and the timer under one mutex. It calls its share function without that mutex.
package governor
