// Package tier is weir's front door: a tiered cache inside the service that uses it.
//
// A [Cache] serves one namespace. Each node keeps a near tier: decoded values in its own memory. Every key has one owner
// among the members. The owner keeps the key encoded in its owned tier, and it alone reads the origin when the key is
// missing. Without a [Cluster] the process is the only member, and everything else is the same.
//
// # The life of a Get
//
//  1. Near. The near tier returns a copy that is within its lease and not fenced: no lock, no allocation, no system call.
//  2. Route. The view names the key's owner. If the owner is another member, all callers of the key on this node share one
//     request to it. No member forwards a request. A member that does not own the key says so, and the caller retries at
//     most once.
//  3. Owned. The owner serves a fresh copy. Near the soft expiry it serves the copy and refreshes it ahead with the probability that XFetch
//     gives, so that a hot key does not expire into a miss. Past the soft expiry, within StaleWhileRevalidate, it serves the
//     stale copy while one refresh runs.
//  4. Flight. Each key has at most one. The flight checks the owned tier again, waits for a permit of the governor, and runs the loader
//     in its own goroutine, so that cancelling one caller does not affect the others. Every waiting caller gets a panic or a Goexit of
//     the loader as an error. A load that overruns Origin.Timeout fails its callers in time and keeps its permit until it returns.
//  5. Commit. The owner stores the value only if the key was not invalidated since the load started.
//  6. Error. The owner serves a copy within StaleIfError and delays the next attempt. Without a copy it remembers
//     the error for ErrorTTL.
//
// # The rooms
//
// A call enters at the top and goes down. A package imports only packages below it; a test in the bench package checks this.
//
//	                        your service
//	                              |
//	tier                    Cache[V]: Get, GetMany, Put, Invalidate, Follow, Stats; near copies and requests to owners
//	                              |
//	  internal/owner        the keys that this node owns: entries, flights, loads, answers to members, hand-off; knows no V
//	                              |
//	  internal/journal      invalidations: their log, delivery and comparison with the other members
//	  internal/near         a copy in memory: ristretto with a front
//	  internal/placement    who owned the key before, whether this node is isolated
//	  internal/governor     when a load may read the origin
//	  internal/follow       a feed of all writes, applied and acknowledged
//	  internal/hotkeys      the list of the hottest keys in a file
//	  internal/demand       which keys are hot, what another size of the tier would bring
//	  internal/counters     what is counted: reads, loads, ages, costs, dependencies
//	  internal/store        the owned tier and its entries
//	  internal/fence        which copies are valid
//	  internal/clock        time, suspensions of the machine included
//	                              |
//	codec, ring             bytes and versions; the owner of each key
//
// Beside them stands package peer, the Cluster between nodes. It implements the interface [Cluster] and imports codec and ring, not tier.
//
// # Many keys
//
// [Cache.GetMany] reads many keys at once, and [Cache.GetEach] does so in their order. Both return near copies
// first, then send each owner one request for what it has, and a second one for what it must load, so
// that a slow load does not delay a hit. Each key follows every rule of Get. A key that a frame cannot settle is read by
// Get. With a [BatchLoader] the keys that miss at an owner share one call and one permit, and each key commits on its own.
// [Cache.Warm] fills the owners ahead of demand, at the lowest class. With [Config].HotKeysFile a cache keeps a list of its
// hottest keys in a file and warms them after a start.
//
// # What a miss costs, and what the origin is spared
//
// The governor limits the concurrent loads of all members together to [Origin].Concurrency, and their rate if
// one is set. Flights queue for a permit by class: no copy, a stale copy, refresh ahead, then warming
// and drills. A caller that has a deadline and no copy waits its turn as long as it has time. The governor rejects it at once
// if it cannot be served before its deadline. The queue of the other callers is overloaded if it has not been empty for 100 ms: then the newest
// ticket goes first, and tickets older than 5 ms are rejected. A load that waits for other keys, which its loader reads
// through a cache, holds no permit while it waits. An adaptive limit lowers the cap while loads are slow or fail. A breaker stops
// loads from a failing origin and probes it. Errors that the loader marks [Retryable] are retried, at
// most one retry for five loads. A load that overruns its time holds its permit until it returns.
// Caches that read one origin share a [SharedOrigin]. A caller that gets no permit gets a stale copy within
// StaleIfError, or [ErrOverloaded] with a time to retry after. With [Freshness].SoftTimeout it also gets a stale
// copy when a refill takes long.
//
// [Cache.Stats] has the ledger of misses: loads by cause, cost and dependency, and what was rejected and
// why. [Cache.Projection] predicts what the origin would see if the cache vanished now, and whether the origin
// could serve it. [Cache.Drill] tests that prediction.
//
// The breaker and the limit are weir's own small state machines: those of established libraries read the wall
// clock, and their ceiling cannot follow the members.
//
// When an owner cannot be reached, all nodes turn to the same successor, which keeps
// what it fills for a few seconds only. The keys' next owner, if that is another member, asks the successor
// before it loads, so a crash costs one load a key. With [Config].Replicas the successor holds copies
// of the owner's hot keys.
//
// # Invalidation
//
// A copy is valid if and only if no invalidation that covers it was applied on this node after its load
// started. [Cache.Invalidate] leaves a fence for the key on every member and returns nil when all members
// have confirmed. A fence is tested where an entry is stored and at every read. A fence detaches a flight that it overtakes, so
// later callers do not get that flight's value. A node that has a fence tells the owner of it with its next request for the
// key, so a node that is ahead of the owner cannot bring the old value back.
//
// Programs that do not know the cache may write to the origin as well: [Cache.Follow] takes
// invalidations from a [Feed] of all writes, such as an outbox table.
//
// # Ages
//
// Ages count from the start of the load, on the monotonic clock. They cross the network as
// durations, rounded so that no copy looks younger than it is. After the soft expiry a
// refresh is due. After the hard expiry, which [Freshness.Bound] states, a value is never served.
//
// # Choice of the stores
//
// The near tier is ristretto, which may drop or reject what it is given; a near tier tolerates that.
// A front answers most of its hits. The owned tier does not tolerate it, because each dropped value is another load of the
// origin. internal/store tells what was measured and why it is an S3-FIFO.
package tier
