package counters

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
)

// Result is how a load ended.
type Result uint8

// How a load ended.
const (
	ResultOK       Result = iota // a value
	ResultNotFound               // the origin has no value for the key
	ResultError                  // of the loader or the codec
	ResultTimeout                // overran Origin.Timeout
	ResultOverran                // returned after that; its value was dropped
	ResultFenced                 // loaded, but invalidated meanwhile: not stored
	ResultBehind                 // loaded from a lagging replica: not stored
	Results                      // how many there are
)

// ResultNames are the names in statistics and metrics.
var ResultNames = [Results]string{"ok", "not_found", "error", "timeout", "overran", "fenced", "behind"}

// CostBounds are the upper bounds of the histogram of fill costs, in seconds.
var CostBounds = [...]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// Counters counts what the slow paths do. The near tier counts its own hits.
type Counters struct {
	NearUnused  atomic.Int64 // near copies found that could not be served
	Owned       atomic.Int64 // reads answered from an owner's copy
	Filled      atomic.Int64 // reads that waited for a fill
	Stale       atomic.Int64 // of owned and filled, those past soft expiry
	Errors      atomic.Int64 // reads that got an error
	Rescued     atomic.Int64 // reads that got a stale copy instead of an error
	Undecodable atomic.Int64 // copies that could not be decoded, and were loaded again
	Left        atomic.Int64 // reads that gave up waiting for a fill
	Asked       atomic.Int64 // requests to other owners
	ServedPeers atomic.Int64 // requests answered for other members
	Moved       atomic.Int64 // requests answered by a member that does not own the key
	Unreachable atomic.Int64 // requests to owners that could not be reached
	Bypassed    atomic.Int64 // reads that ended at this node because no other member answered
	Doomed      atomic.Int64 // fills whose callers had all left
	Batches     atomic.Int64 // calls of the batch loader
	Retries     atomic.Int64 // loads that repeated a failed one
	NoRetry     atomic.Int64 // retries that the budget did not allow
	Soft        atomic.Int64 // reads that got a stale copy after Freshness.SoftTimeout
	Served      atomic.Int64 // callers that fills answered
	Evicted     atomic.Int64
	Invalidated atomic.Int64 // keys that this node started to invalidate
	Unconfirmed atomic.Int64 // invalidations that did not reach every member
	Fences      atomic.Int64 // invalidations of keys, tags and the namespace applied here

	// the copies that members give one another
	PreviousAsked atomic.Int64 // requests to a previous owner
	PreviousHits  atomic.Int64 // of those, requests that brought a copy
	Given         atomic.Int64 // copies given to new owners that asked
	Pushed        atomic.Int64 // copies pushed to other members
	PushesKept    atomic.Int64 // copies pushed by other members and kept here
	PushesRefused atomic.Int64 // copies pushed by other members and rejected here

	ReplicasSent    atomic.Int64 // copies pushed to successors
	ReplicasKept    atomic.Int64 // replicas pushed by other members and kept here
	ReplicasRefused atomic.Int64 // replicas pushed by other members and rejected here
	ReplicasServed  atomic.Int64 // reads answered with a replica instead of by its owner

	Revalidated atomic.Int64 // near copies that their owners confirmed
	PutKept     atomic.Int64 // values of Put that their owners kept
	PutRefused  atomic.Int64 // values of Put that their owners did not keep
	Isolations  atomic.Int64 // times that this node became isolated

	Shed    [governor.Reasons]atomic.Int64 // fills rejected by the governor
	Fills   [placement.Causes]atomic.Int64
	Results [Results]atomic.Int64
	Cost    [len(CostBounds) + 1]atomic.Int64 // fills by cost
	Nanos   atomic.Int64                      // the sum of their costs
	Costs   Histogram                         // their costs in a finer histogram
	Ledger  Ledger
	Ages    Ages

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
	MaxSteps  = 64      // dependencies that are counted on their own
	OtherStep = "other" // all others
)

// New returns counters at zero.
func New() *Counters { return &Counters{steps: make(map[string]*stepCount)} }

// Begun counts a load that begins.
func (s *Counters) Begun(why placement.Cause, now int64) {
	s.Fills[why].Add(1)
	s.Ledger.Running(+1, now)
}

// Observe counts a load that has returned.
func (s *Counters) Observe(cost time.Duration, now int64) {
	s.Ledger.Running(-1, now)
	s.Took(cost)
}

// Took counts how long a key's load took.
func (s *Counters) Took(cost time.Duration) {
	i := 0
	for i < len(CostBounds) && cost.Seconds() > CostBounds[i] {
		i++
	}
	s.Cost[i].Add(1)
	s.Nanos.Add(int64(cost))
	s.Costs.Add(int64(cost), 1)
}

// Step counts a call to a dependency.
func (s *Counters) Step(name string, took time.Duration, failed bool) {
	name = strings.ToValidUTF8(name, "?")
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.steps[name]
	if c == nil {
		if len(s.steps) >= MaxSteps {
			name = OtherStep
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

// StepStats is what the loads spent on one dependency.
type StepStats struct {
	Calls   int64
	Errors  int64
	Seconds float64 // in total
	Max     float64 // of the longest call
}

// StepStats returns what the loads spent on each dependency.
func (s *Counters) StepStats() map[string]StepStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]StepStats, len(s.steps))
	for name, c := range s.steps {
		out[name] = StepStats{Calls: c.n, Errors: c.errors, Seconds: c.sum.Seconds(), Max: c.max.Seconds()}
	}
	return out
}

// Loads counts the loads that have begun.
func (s *Counters) Loads() (n int64) {
	for i := range s.Fills {
		n += s.Fills[i].Load()
	}
	return n
}

// MeanCost returns the average duration, in seconds, of the loads that have returned.
func (s *Counters) MeanCost() float64 {
	n := int64(0)
	for i := range s.Cost {
		n += s.Cost[i].Load()
	}
	if n == 0 {
		return 0
	}
	return time.Duration(s.Nanos.Load() / n).Seconds()
}

// OwnedReads counts the reads that reached this node's owned tier, from callers here and from other members.
func (s *Counters) OwnedReads() int64 {
	return max(s.Owned.Load()+s.Filled.Load()+s.Errors.Load()-s.Asked.Load(), 0) + s.ServedPeers.Load()
}
