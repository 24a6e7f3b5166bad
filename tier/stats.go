package tier

import (
	"time"

	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// Stats is a snapshot of a cache's counters. They count since the cache was made and cover this node alone.
type Stats struct {
	Contract string `json:"contract"` // Freshness in words

	Near  int64 `json:"near"`  // reads answered from the near tier
	Owned int64 `json:"owned"` // reads answered from an owner's copy, here or on another member
	Fill  int64 `json:"fill"`  // reads that waited for a fill, here or on another member
	Stale int64 `json:"stale"` // of Owned and Fill, those past soft expiry
	// StaleNear counts the near hits past soft expiry, estimated from one in 100.
	StaleNear int64            `json:"stale_near"`
	StaleBy   map[string]int64 `json:"stale_by_reason"` // of Stale and StaleNear, by the reason for serving them
	Ages      map[string]Ages  `json:"ages"`            // of the answers to callers on this node, by source
	Bound     float64          `json:"max_age_seconds"` // Freshness.Bound: no answer is older, except, without Freshness.MaxTTL, values with a TTL of their own
	// Errors counts reads that got an error other than not found.
	Errors  int64 `json:"errors"`
	Rescued int64 `json:"rescued"` // reads that got a stale copy instead of an error
	// Undecodable counts copies that this node could not decode. They were dropped and loaded again.
	Undecodable int64 `json:"undecodable"`
	Left        int64 `json:"left"` // reads whose context ended while they waited for a fill

	Asked       int64 `json:"asked"`       // requests sent to other owners
	ServedPeers int64 `json:"served"`      // requests answered for other members
	Moved       int64 `json:"moved"`       // requests answered by a member that does not own the key
	Unreachable int64 `json:"unreachable"` // requests to owners that did not answer
	Bypassed    int64 `json:"bypassed"`    // reads loaded here because no other member answered

	Loads       int64            `json:"loads"`            // loads begun here; each key of a batch counts
	Batches     int64            `json:"batches"`          // calls of BatchLoader for more than one key
	LoadsBy     map[string]int64 `json:"loads_by_cause"`   // by what caused them
	ResultsBy   map[string]int64 `json:"loads_by_result"`  // by how they ended
	LoadSeconds float64          `json:"load_seconds"`     // spent in loads that have returned
	FillServed  int64            `json:"callers_by_fills"` // callers on this node, and other members, that fills answered
	Shed        int64            `json:"shed"`             // fills that the governor rejected
	Flights     int              `json:"flights"`          // fills in progress
	Running     int              `json:"running"`          // loads that have not returned
	Governor    GovernorStats    `json:"governor"`
	Steps       map[string]Step  `json:"steps"` // dependencies of the loader
	Ledger      Ledger           `json:"ledger"`
	Projection  Projection       `json:"projection"` // what would happen if the cache vanished now
	Drill       DrillStats       `json:"drill"`      // the drill that runs, or the last one

	Invalidated int64 `json:"invalidated"` // keys that this node started to invalidate
	Unconfirmed int64 `json:"unconfirmed"` // invalidations that did not reach every member
	Fences      int64 `json:"fences"`      // invalidations of keys, tags and the namespace applied here
	FencesKept  int   `json:"fences_kept"` // fences remembered now
	Exchanges   int64 `json:"exchanges"`   // exchanges of positions with other members
	Replayed    int64 `json:"replayed"`    // invalidations that exchanges sent to other members
	Relayed     int64 `json:"relayed"`     // batches sent through another member
	Flushed     int64 `json:"flushed"`     // times that this node treated everything as invalidated
	Revalidated int64 `json:"revalidated"` // near copies that their owners confirmed
	PutKept     int64 `json:"put_kept"`    // values that this node put and their owners kept
	PutRefused  int64 `json:"put_refused"` // values that owners did not keep: a newer one may exist, or the owner could not be reached

	Isolated     bool   `json:"isolated"`      // this node has lost contact with most members
	Isolations   int64  `json:"isolations"`    // times that this node became isolated
	WhenIsolated string `json:"when_isolated"` // what the cache does while isolated

	PreviousAsked int64        `json:"previous_asked"` // requests to a key's previous owner, instead of the origin
	PreviousHits  int64        `json:"previous_hits"`  // of those, requests that brought a copy
	Given         int64        `json:"given"`          // copies given to new owners that asked
	Pushed        int64        `json:"pushed"`         // copies pushed to the new owners of their keys because this node leaves
	PushesKept    int64        `json:"pushes_kept"`    // pushed copies kept here
	PushesRefused int64        `json:"pushes_refused"` // pushed copies rejected here, as too old or in doubt
	Follow        FollowStats  `json:"follow"`         // the feeds followed on this node
	HotKeys       HotKeysStats `json:"hot_keys"`       // the hot-keys file, and the progress of warming its keys

	NearBytes    int64 `json:"near_bytes"`    // in use
	NearDropped  int64 `json:"near_dropped"`  // stores that the near tier did not accept
	NearEvicted  int64 `json:"near_evicted"`  // near copies evicted to make room
	OwnedBytes   int64 `json:"owned_bytes"`   // in use, without replicas
	OwnedEntries int   `json:"owned_entries"` // in the owned tier, without replicas
	OwnedEvicted int64 `json:"owned_evicted"` // entries evicted to make room

	Replicas        int   `json:"replicas"`         // entries of other owners kept here in case those owners are lost
	ReplicaBytes    int64 `json:"replica_bytes"`    // bytes that replicas take
	ReplicasSent    int64 `json:"replicas_sent"`    // copies of this node's own entries pushed to their successors
	ReplicasKept    int64 `json:"replicas_kept"`    // replicas pushed by other members and kept here
	ReplicasRefused int64 `json:"replicas_refused"` // replicas pushed by other members and rejected here, for lack of room, or as too old or in doubt
	ReplicasServed  int64 `json:"replicas_served"`  // reads answered with a replica because the owner did not answer
}

// Step is what the loads spent on one dependency.
type Step struct {
	Calls   int64   `json:"calls"`
	Errors  int64   `json:"errors"`      // calls that the loader reported as failed
	Seconds float64 `json:"seconds"`     // in total
	Max     float64 `json:"max_seconds"` // of the longest call
}

// Stats returns the counters. It is safe for concurrent use. The counters are read one after the other, so they may
// differ by what happens in between.
func (c *Cache[V]) Stats() Stats { return c.allStats() }

func (c *core) allStats() Stats {
	s := c.own.Stats
	near := c.nearTier.Stats()
	spare, spareBytes := c.own.Owned.Replicas()
	out := Stats{
		Contract: c.cfg.Freshness.String(),
		Near:     max(near.Hits-s.NearUnused.Load(), 0), Owned: s.Owned.Load(), Fill: s.Filled.Load(), Stale: s.Stale.Load(),
		Errors: s.Errors.Load(), Rescued: s.Rescued.Load(), Undecodable: s.Undecodable.Load(), Left: s.Left.Load(),
		Asked: s.Asked.Load(), ServedPeers: s.ServedPeers.Load(), Moved: s.Moved.Load(),
		Unreachable: s.Unreachable.Load(), Bypassed: s.Bypassed.Load(),
		StaleNear: s.Ages.Near.Load(), StaleBy: make(map[string]int64), Ages: make(map[string]Ages), Bound: c.cfg.Freshness.Bound().Seconds(),
		LoadsBy: make(map[string]int64), ResultsBy: make(map[string]int64),
		LoadSeconds: time.Duration(s.Nanos.Load()).Seconds(), FillServed: s.Served.Load(), Ledger: c.ledger(), Batches: s.Batches.Load(), Projection: c.projection(), Drill: c.drillStats(),
		Governor: GovernorStats(c.own.Governor.Snapshot()), Steps: make(map[string]Step),
		Invalidated: s.Invalidated.Load(), Unconfirmed: s.Unconfirmed.Load(), Fences: s.Fences.Load(), FencesKept: c.own.Fences.Len(),
		Exchanges: c.own.Journal.Counts().Exchanges.Load(), Replayed: c.own.Journal.Counts().Replayed.Load(), Relayed: c.own.Journal.Counts().Relayed.Load(), Flushed: c.own.Journal.Counts().Flushed.Load(),
		Revalidated: s.Revalidated.Load(), PutKept: s.PutKept.Load(), PutRefused: s.PutRefused.Load(),
		Isolated: c.own.Isolation.IsIsolated(), Isolations: s.Isolations.Load(), WhenIsolated: c.cfg.WhenIsolated.String(),
		PreviousAsked: s.PreviousAsked.Load(), PreviousHits: s.PreviousHits.Load(), Given: s.Given.Load(),
		Pushed: s.Pushed.Load(), PushesKept: s.PushesKept.Load(), PushesRefused: s.PushesRefused.Load(),
		Follow: FollowStats(c.followed.Snapshot(c.own.Clock.Now())), HotKeys: HotKeysStats(c.hot.Stats()),
		NearBytes: near.Bytes, NearDropped: near.Dropped + near.Rejected, NearEvicted: near.Evicted,
		OwnedBytes: max(c.own.Owned.Bytes()-spareBytes, 0), OwnedEntries: max(c.own.Owned.Len()-spare, 0), OwnedEvicted: s.Evicted.Load(),
		Replicas: spare, ReplicaBytes: spareBytes, ReplicasSent: s.ReplicasSent.Load(), ReplicasKept: s.ReplicasKept.Load(),
		ReplicasRefused: s.ReplicasRefused.Load(), ReplicasServed: s.ReplicasServed.Load(),
	}
	out.Flights, out.Running = c.own.Flights.Size()
	for i := range s.Shed {
		out.Shed += s.Shed[i].Load()
	}
	for i := range s.Ages.Stale {
		out.StaleBy[store.StaleNames[i]] = s.Ages.Stale[i].Load()
	}
	for i := range s.Fills {
		n := s.Fills[i].Load()
		out.LoadsBy[placement.CauseNames[i]] = n
		out.Loads += n
	}
	for i := range s.Results {
		out.ResultsBy[counters.ResultNames[i]] = s.Results[i].Load()
	}
	for i, a := range s.Ages.Stats() {
		out.Ages[(SourceNear + Source(i)).String()] = Ages(a)
	}
	for name, x := range s.StepStats() {
		out.Steps[name] = Step(x)
	}
	return out
}

// Ages says how old the answers from one source were, counted from the start of their loads.
type Ages struct {
	// Answers is the number of answers since the cache was made. Near hits are counted by a sample of one in 100.
	Answers int64   `json:"answers"`
	P50     float64 `json:"p50_seconds"` // over the last 30 to 60 seconds, accurate to about a tenth
	P99     float64 `json:"p99_seconds"`
	Max     float64 `json:"max_seconds"` // over all counted answers
}

// countNearHit counts a near hit with the given weight.
func (c *Cache[V]) countNearHit(b *nearEntry[V], now, weight int64, why store.StaleReason) {
	a := &c.own.Stats.Ages
	a.Served(counters.Near, max(now-b.loaded, 0), weight)
	if now >= b.soft {
		a.Near.Add(weight)
		c.staleServed(why, weight)
	}
}

// countAnswer counts a read that a tier below the near tier has answered.
func (c *Cache[V]) countAnswer(a *answer[V]) {
	s := c.own.Stats
	switch a.source {
	case SourceOwned:
		s.Owned.Add(1)
	case SourceFill:
		s.Filled.Add(1)
	}
	s.Ages.Served(int(a.source-SourceNear), a.age, 1)
	if a.stale {
		s.Stale.Add(1)
		c.staleServed(a.why, 1)
	}
}

func (c *core) staleServed(why store.StaleReason, weight int64) {
	if c.own.Isolation.Lost.Load() {
		why = store.StaleIsolated
	}
	c.own.Stats.Ages.Stale[why].Add(weight)
}

// CostBucket is one bucket of the histogram of load times.
type CostBucket struct {
	Seconds float64 `json:"seconds"` // the longest in it; 0 for the last one, which has no bound
	Loads   int64   `json:"loads"`   // in this bucket alone
}

// Ledger is what this node's misses have cost and what they cost now.
type Ledger struct {
	Costs          []CostBucket     `json:"costs"`            // loads that have returned, by the time they took
	OriginSeconds  float64          `json:"origin_seconds"`   // spent in loads, including those that run now
	OriginBusy     float64          `json:"origin_busy"`      // origin-seconds a second over the last 10 s: loads that ran at once
	LoadRate       float64          `json:"loads_a_second"`   // over the last 10 s
	ReadRate       float64          `json:"reads_a_second"`   // over the last 10 s
	CallersPerLoad float64          `json:"callers_per_load"` // callers that fills answered, on this node and on other members, divided by loads
	Doomed         int64            `json:"doomed"`           // fills that ended after all their callers had left
	ShedBy         map[string]int64 `json:"shed_by_reason"`   // fills that the governor rejected
	Retries        int64            `json:"retries"`          // loads that retried a failed one
	RetriesDenied  int64            `json:"retries_denied"`   // retries that the budget did not allow
	SoftTimeouts   int64            `json:"soft_timeouts"`    // reads that took a stale copy after SoftTimeout
}

// ledger returns the current ledger.
func (c *core) ledger() Ledger {
	s, loads := c.own.Stats, c.own.Stats.Loads()
	r := s.Ledger.Rates(c.own.Reads(), loads, c.own.Clock.Now())
	out := Ledger{
		OriginSeconds: r.Total, OriginBusy: r.Busy, LoadRate: r.Loads, ReadRate: r.Reads,
		Doomed: s.Doomed.Load(), ShedBy: make(map[string]int64), Retries: s.Retries.Load(), RetriesDenied: s.NoRetry.Load(),
		SoftTimeouts: s.Soft.Load(),
	}
	if loads > 0 {
		out.CallersPerLoad = float64(s.Served.Load()) / float64(loads)
	}
	for i := range s.Cost {
		b := CostBucket{Loads: s.Cost[i].Load()}
		if i < len(counters.CostBounds) {
			b.Seconds = counters.CostBounds[i]
		}
		out.Costs = append(out.Costs, b)
	}
	for i := range s.Shed {
		out.ShedBy[governor.Reason(i).Name()] = s.Shed[i].Load()
	}
	return out
}

// FollowStats says what Follow does. With more than one feed the counters are totals, and the other fields are those of
// the feed that moved last.
type FollowStats struct {
	Following   int64  `json:"following"`    // calls of Follow that run
	Position    uint64 `json:"position_max"` // of the newest event that was applied here
	Acked       uint64 `json:"acked_max"`    // up to which every member has applied everything
	Applied     int64  `json:"applied"`      // events
	Repeated    int64  `json:"repeated"`     // events that had been applied before, and were skipped
	Refused     int64  `json:"refused"`      // keys and tags that no value can have
	Flushes     int64  `json:"flushes"`      // of the namespace, because the feed could not tell everything
	Failures    int64  `json:"failures"`     // calls of a feed that failed
	Unconfirmed int64  `json:"unconfirmed"`  // times that an acknowledgement had to wait for a member
	// LagSeconds is the time from the newest event's write to its application here, if the feed gives times.
	LagSeconds float64 `json:"lag_seconds_max"`
	// DownSeconds is how long the feed has been failing; 0: it works. While it fails, copies are as old as the
	// Freshness allows. When it works again, the missing events are applied or the namespace is flushed.
	DownSeconds float64 `json:"down_seconds_max"`
}

// HotKeysStats describes the file that Config.HotKeysFile names.
type HotKeysStats struct {
	Total    int   `json:"total"`    // keys that the file had at the start
	Done     int   `json:"done"`     // of those, the ones that were warmed, or that the origin does not have
	Failed   int   `json:"failed"`   // of those, the ones that were given up
	Finished bool  `json:"finished"` // all are done or failed, or there is nothing to warm
	Damaged  int64 `json:"damaged"`  // 1: there was a file and it could not be used; the log says why
	Listed   int   `json:"listed"`   // keys in the file written last
	Saved    int64 `json:"saved"`    // times that it was written
	Unsaved  int64 `json:"unsaved"`  // times that it could not be written
}
