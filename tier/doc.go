// Package tier is weir's front door: a tiered cache inside the service that uses it.
//
// A [Cache] serves one namespace. Each node keeps a near tier, decoded values in its own memory;
// every key has one owner among the members, which keeps the key encoded in its owned tier and
// alone reads the origin when the key is missing. Without a [Cluster] the process is the only
// member and everything else is the same.
//
// # The life of a Get
//
//  1. Near. A copy that is within its lease and not fenced is returned: no lock, no allocation, no
//     system call.
//  2. Route. The view names the key's owner. If that is another member, all callers of the key on
//     this node share one request to it. A request is never forwarded: who is asked and does not
//     own the key says so, and the asker tries once more, at most.
//  3. Owned. Fresh: served. Near its soft expiry: served, and with the probability that XFetch
//     gives, refreshed ahead, so that a hot key does not expire into a miss. Past soft expiry,
//     within StaleWhileRevalidate: served stale while one refresh runs.
//  4. Flight. One for a key. It looks into the owned tier again, waits for a permit of the
//     governor, and runs the loader in a goroutine of its own: a caller who leaves takes only
//     himself along. Panics and Goexit become errors for everyone who waits. A load that overruns
//     Origin.Timeout fails its callers in time and keeps its permit until it returns.
//  5. Commit. The value is stored only if the key was not invalidated since the load began.
//  6. Error. A copy within StaleIfError is served and the next attempt waits a little. Without one
//     the error itself is remembered for ErrorTTL.
//
// # Many keys
//
// [Cache.GetMany] reads many keys at once, and [Cache.GetEach] does so in their order: near copies
// first, then one request to each owner for what it has, and a second one for what it must load, so
// that no slow load keeps a hit waiting. Each key keeps every rule that Get keeps; what a frame
// cannot settle is read as Get reads it. With a [BatchLoader] the keys that miss at an owner are
// one call and one permit, with a commit for each key. [Cache.Warm] fills the owners ahead of
// demand, at the lowest class. With [Config].HotKeysFile a cache does that by itself after a start,
// with the list of its hottest keys that it keeps in a file.
//
// # What a miss costs, and what the origin is spared
//
// The governor holds the loads of all members together to [Origin].Concurrency, and to a rate if
// there is one. Flights queue for a permit by class: no copy, a stale copy, refresh ahead, warming
// and drills. A caller with a deadline and no copy to fall back on waits its turn as long as it has time, and is refused at once
// if it cannot be served before its deadline. The queue of the others is overloaded if it does not empty for 100 ms: then the newest
// goes first, and one that waits for more than 5 ms is refused. A load that waits for other keys, which its loader reads
// through a cache, holds no permit meanwhile. An adaptive limit lowers the cap while loads are slow or fail; a breaker leaves a
// failing origin alone and probes it; errors that the loader marks [Retryable] are tried again, at
// most one retry for five loads. A load that overran its time holds its permit until it returns.
// Caches that read one origin share a [SharedOrigin]. Who gets no permit gets a stale copy within
// StaleIfError, or [ErrOverloaded] with a time to retry after. With [Freshness].SoftTimeout a stale
// copy is served also when a refill takes long.
//
// [Cache.Stats] has the ledger of misses: loads by cause, cost and dependency, what was shed and
// why. [Cache.Projection] says what the origin would see if the cache vanished now, and whether it
// would bear it; [Cache.Drill] tries it out.
//
// Breaker and limit are small state machines of weir's own: those of kept libraries read the wall
// clock, and their ceiling cannot follow the members.
//
// An owner that cannot be reached is passed over by all nodes to the same successor, which keeps
// what it fills for a few seconds only. The keys' next owner, if that is another member, asks it
// before it loads, so that a crash costs one load a key. With [Config].Replicas the successor has the owner's copies
// of what is hot.
//
// # Invalidation
//
// An entry is valid if and only if no invalidation covering it was applied here after its load
// started. [Cache.Invalidate] leaves a fence for the key on every member and returns nil when all
// have confirmed. Fences are looked at where an entry is stored and at every read; a flight that a
// fence has overtaken is detached, so that nobody who comes later gets its value; and a node that
// has seen a fence tells the owner of it with its next request for the key, so that a node ahead of
// the owner cannot bring the old value back.
//
// Programs that know nothing of the cache may write to the origin too: [Cache.Follow] takes
// invalidations from a [Feed] of all writes, such as an outbox table.
//
// # Ages
//
// Ages count from the start of the load, on the monotonic clock, and cross the network as
// durations, rounded so that a copy is never taken for younger than it is. From soft expiry on a
// refresh is due; after hard expiry, which [Freshness.Bound] states, a value is never served.
//
// # Choice of the stores
//
// The near tier is ristretto, which may drop or refuse what it is given: a near tier can bear that.
// A table of what was found there last answers most hits without it. The owned tier cannot, as each
// refusal is another load of the origin; near.go and owned.go tell what was measured and chosen.
package tier
