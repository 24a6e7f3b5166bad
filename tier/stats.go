package tier

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// fillResult is how a load ended.
type fillResult uint8

const (
	resultOK fillResult = iota
	resultNotFound
	resultError
	resultTimeout // overran Origin.Timeout
	resultOverran // returned after that; its value was dropped
	resultFenced  // loaded, but invalidated meanwhile: not stored
	resultBehind  // loaded from a lagging replica: not stored
	results
)

var resultNames = [results]string{"ok", "not_found", "error", "timeout", "overran", "fenced", "behind"}

// fillBuckets are the upper bounds of the histogram of fill costs, in seconds.
var fillBuckets = [...]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// stats counts what the slow paths do. The near tier counts its own hits.
type stats struct {
	nearUnused  atomic.Int64 // near copies found that could not be served
	owned       atomic.Int64 // reads answered from an owner's copy
	filled      atomic.Int64 // reads that waited for a fill
	stale       atomic.Int64 // of owned and filled, those past soft expiry
	errors      atomic.Int64 // reads that got an error
	rescued     atomic.Int64 // reads that got a stale copy instead of an error
	undecodable atomic.Int64 // copies that could not be decoded, and were loaded again
	left        atomic.Int64 // reads that gave up waiting for a fill
	asked       atomic.Int64 // requests to other owners
	servedPeers atomic.Int64 // requests answered for other members
	moved       atomic.Int64 // requests answered by a member that does not own the key
	unreachable atomic.Int64 // requests to owners that could not be reached
	bypassed    atomic.Int64 // reads that ended at this node because no other member answered
	doomed      atomic.Int64 // fills whose callers had all left
	batches     atomic.Int64 // calls of the batch loader
	retries     atomic.Int64 // loads that repeated a failed one
	noRetry     atomic.Int64 // retries that the budget did not allow
	soft        atomic.Int64 // reads that got a stale copy after Freshness.SoftTimeout
	served      atomic.Int64 // callers that fills answered
	evicted     atomic.Int64
	invalidated atomic.Int64 // keys that this node started to invalidate
	unconfirmed atomic.Int64 // invalidations that did not reach every member
	fences      atomic.Int64 // invalidations of keys, tags and the namespace applied here
	handoffCounts
	revalidated atomic.Int64 // near copies that their owners confirmed
	putKept     atomic.Int64 // values of Put that their owners kept
	putRefused  atomic.Int64 // values of Put that their owners did not keep
	isolations  atomic.Int64 // times that this node became isolated
	follow      followStats

	shed    [governor.Reasons]atomic.Int64 // fills rejected by the governor
	fills   [placement.Causes]atomic.Int64
	results [results]atomic.Int64
	cost    [len(fillBuckets) + 1]atomic.Int64 // fills by cost
	nanos   atomic.Int64                       // the sum of their costs
	costs   histogram                          // their costs in a finer histogram
	ledger  ledger
	ages    ages

	mu    sync.Mutex // guards steps
	steps map[string]*stepCount
}

type stepCount struct {
	n      int64
	errors int64
	sum    time.Duration
	max    time.Duration
}

const (
	maxSteps  = 64
	otherStep = "other"
)

func newStats() *stats { return &stats{steps: make(map[string]*stepCount)} }

// begun counts a load that begins.
func (s *stats) begun(why placement.Cause, now int64) {
	s.fills[why].Add(1)
	s.ledger.load(+1, now)
}

// observe counts a load that has returned.
func (s *stats) observe(cost time.Duration, now int64) {
	s.ledger.load(-1, now)
	s.took(cost)
}

// took counts how long a key's load took.
func (s *stats) took(cost time.Duration) {
	i := 0
	for i < len(fillBuckets) && cost.Seconds() > fillBuckets[i] {
		i++
	}
	s.cost[i].Add(1)
	s.nanos.Add(int64(cost))
	s.costs.add(int64(cost), 1)
}

// step counts a call to a dependency.
func (s *stats) step(name string, took time.Duration, failed bool) {
	name = strings.ToValidUTF8(name, "?")
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.steps[name]
	if c == nil {
		if len(s.steps) >= maxSteps {
			name = otherStep
		}
		if c = s.steps[name]; c == nil {
			c = &stepCount{}
			s.steps[strings.Clone(name)] = c
		}
	}
	c.n++
	if failed {
		c.errors++
	}
	c.sum += took
	c.max = max(c.max, took)
}

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

// GovernorStats is the governor's state. With a SharedOrigin it covers all its caches.
type GovernorStats struct {
	Share   int `json:"share"`   // this node's part of Origin.Concurrency
	Limit   int `json:"limit"`   // what the adaptive limit leaves of the share
	InUse   int `json:"in_use"`  // permits held by loads
	Peak    int `json:"peak"`    // the most held at once
	Waiting int `json:"waiting"` // flights and loads waiting for a permit

	WaitingBy       map[string]int `json:"waiting_by_class"`
	Overloaded      bool           `json:"overloaded"`          // a queue has not been empty for QueueInterval
	Breaker         string         `json:"breaker"`             // closed, open or half_open
	BreakerOpenings int64          `json:"breaker_openings"`    // number of times it has opened
	LoadSeconds     float64        `json:"recent_load_seconds"` // recent mean duration of a load
	RetriesLeft     int            `json:"retries_left"`        // retries left in the budget
	OriginSeconds   float64        `json:"origin_seconds"`      // permits in use, integrated over time
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
	s := c.stats
	near := c.nearTier.Stats()
	spare, spareBytes := c.owned.Replicas()
	out := Stats{
		Contract: c.cfg.Freshness.String(),
		Near:     max(near.Hits-s.nearUnused.Load(), 0), Owned: s.owned.Load(), Fill: s.filled.Load(), Stale: s.stale.Load(),
		Errors: s.errors.Load(), Rescued: s.rescued.Load(), Undecodable: s.undecodable.Load(), Left: s.left.Load(),
		Asked: s.asked.Load(), ServedPeers: s.servedPeers.Load(), Moved: s.moved.Load(),
		Unreachable: s.unreachable.Load(), Bypassed: s.bypassed.Load(),
		StaleNear: s.ages.near.Load(), StaleBy: make(map[string]int64), Ages: s.ages.stats(), Bound: c.cfg.Freshness.Bound().Seconds(),
		LoadsBy: make(map[string]int64), ResultsBy: make(map[string]int64),
		LoadSeconds: time.Duration(s.nanos.Load()).Seconds(), FillServed: s.served.Load(), Ledger: c.ledger(), Batches: s.batches.Load(), Projection: c.projection(), Drill: c.drillStats(),
		Governor: GovernorStats(c.gov.Snapshot()), Steps: make(map[string]Step),
		Invalidated: s.invalidated.Load(), Unconfirmed: s.unconfirmed.Load(), Fences: s.fences.Load(), FencesKept: c.fences.Len(),
		Exchanges: c.journal.Counts().Exchanges.Load(), Replayed: c.journal.Counts().Replayed.Load(), Relayed: c.journal.Counts().Relayed.Load(), Flushed: c.journal.Counts().Flushed.Load(),
		Revalidated: s.revalidated.Load(), PutKept: s.putKept.Load(), PutRefused: s.putRefused.Load(),
		Isolated: c.isolation.IsIsolated(), Isolations: s.isolations.Load(), WhenIsolated: c.cfg.WhenIsolated.String(),
		PreviousAsked: s.previousAsked.Load(), PreviousHits: s.previousHits.Load(), Given: s.given.Load(),
		Pushed: s.pushed.Load(), PushesKept: s.pushesKept.Load(), PushesRefused: s.pushesRefused.Load(),
		Follow: s.follow.snapshot(c.clock.Now()), HotKeys: c.hot.stats(),
		NearBytes: near.Bytes, NearDropped: near.Dropped + near.Rejected, NearEvicted: near.Evicted,
		OwnedBytes: max(c.owned.Bytes()-spareBytes, 0), OwnedEntries: max(c.owned.Len()-spare, 0), OwnedEvicted: s.evicted.Load(),
		Replicas: spare, ReplicaBytes: spareBytes, ReplicasSent: s.replicasSent.Load(), ReplicasKept: s.replicasKept.Load(),
		ReplicasRefused: s.replicasRefused.Load(), ReplicasServed: s.replicasServed.Load(),
	}
	out.Flights, out.Running = c.flights.size()
	for i := range s.shed {
		out.Shed += s.shed[i].Load()
	}
	for i := range s.ages.stale {
		out.StaleBy[store.StaleNames[i]] = s.ages.stale[i].Load()
	}
	for i := range s.fills {
		n := s.fills[i].Load()
		out.LoadsBy[placement.CauseNames[i]] = n
		out.Loads += n
	}
	for i := range s.results {
		out.ResultsBy[resultNames[i]] = s.results[i].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.steps {
		out.Steps[name] = Step{Calls: c.n, Errors: c.errors, Seconds: c.sum.Seconds(), Max: c.max.Seconds()}
	}
	return out
}
