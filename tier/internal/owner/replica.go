package owner

import (
	"context"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/store"
)

// With Config.Replicas an owner keeps copies of its hottest keys at their successors. When the owner is lost, the
// successors answer with these copies at once, and own them when the view has changed. So the loss of an owner costs
// no load for a hot key. The owner pushes, every few seconds, what is fresh and not yet at the successor, with the
// tokens of a handoff (handoff.go).
//
// A replica is a copy like any other. It is in the owned tier and obeys the one rule: no invalidation that covers it
// was applied here after its load began. Its token guarantees that when the copy arrives. From then on this member is
// informed like any other, and fences, tags and versions end the replica like any other entry. It differs in three
// ways. It is served only to callers that could not reach its owner. This member does not refresh it ahead, list it,
// count it, or hand it off as its own. It takes no more than a part of the tier. A view that gives this member the
// key turns it into an ordinary entry.
//
// The guarantees, one by one:
//
//   - One load for a key and owner (G1): a replica adds none. A successor that serves a replica saves the load that
//     it would otherwise have begun as the stand-in owner.
//   - Invalidate (G2): the successor is a member of the view, so an Invalidate waits for it or names it. CleanBy
//     takes entries of the owned tier on every member into account, by their hard expiry.
//   - Age (G3, MaxAge): counted from a moment before the owner looked, so never too low. Soft and hard expiry come no
//     later than at the owner. If the owner is alive and only the caller cannot reach it, the owner may have a newer
//     value without any invalidation: a refreshed one. The older one is within the contract, like a near copy. But
//     MaxAge 0 demands the owner's word, which a replica is not: the successor fills, as it does without replicas.
//   - Concurrency (G4), cancels (G5): a replica has no flight and no load of its own. If it is past its soft expiry,
//     the successor refreshes it under the governor and keeps the result for a short time, like anything that it
//     fills as a stand-in owner.
//   - Near copies (G6): given out with a lease that ends by SuccessorTTL, like what the successor fills.
//   - Heals (G7): the receiver takes no push before the pusher has applied what the receiver has applied.
//   - Hops (G8): a push is answered at once. A replica is served where the successor would have filled.
//   - Hostile bytes (G10): a push has the frames and limits of a handoff, and takes a part of the tier at most.
//   - Close (G11): one goroutine, which ends with the cache's context. Close waits for it.
//
// Versions: a copy older than a version set with At is neither taken nor kept. ReadOptions.After sends the mark with
// the request, as it does to an owner.
const (
	// replicaEvery is about how often an owner looks for entries to push. It also bounds the time of one push.
	replicaEvery = 2 * time.Second
	// replicaEffort limits the search: it takes at most one part in replicaEffort of a goroutine's time.
	replicaEffort = 64
	// ReplicaAgain is how long after a push a copy is pushed again: it may have been evicted, or flushed.
	ReplicaAgain = int64(5 * time.Minute)
	// replicaRate is the part of Config.HandoffRate that replicas may take: one in replicaRate.
	replicaRate = 8
	// An owner keeps replicas of at most one in replicasOut of Config.OwnedBytes. As a successor it takes at most one
	// in replicasIn.
	replicasOut = 8
	replicasIn  = 4
	// maxReplicas is the largest number of keys of which an owner keeps replicas.
	maxReplicas = 10_000
)

// replicated records what was pushed for a key.
type replicated struct {
	loaded int64  // the entry's
	to     uint64 // identifies the member and its start
	at     int64
}

// Replicas is the state of keepReplicas.
type Replicas struct {
	Pace *Pacer
	sent map[uint64]replicated // by hash of the key, for the keys that are hottest now
}

// keepReplicas pushes this owner's hottest entries to their successors. It also turns replicas into this node's own
// entries when the view says so. It ends with c.Ctx; Close waits for it.
func (c *Owner) keepReplicas() {
	r := Replicas{Pace: &Pacer{Rate: max(c.Config.HandoffRate/replicaRate, 1)}}
	changed := c.Config.Cluster.ViewChanged()
	c.adopt(c.Config.Cluster.View())
	var due <-chan time.Time
	wait := time.NewTimer(time.Hour)
	defer wait.Stop()
	rest := func(took time.Duration) {
		wait.Reset(time.Duration((0.75 + c.Random.Float64()/2) * float64(max(replicaEvery, replicaEffort*took))))
	}
	if c.Config.Replicas > 0 {
		due = wait.C
		rest(0)
	}
	for {
		select {
		case <-c.Ctx.Done():
			return
		case <-changed:
			changed = c.Config.Cluster.ViewChanged()
			c.adopt(c.Config.Cluster.View())
		case <-due:
			rest(c.Replicate(&r))
		}
	}
}

// Replicate pushes the entries that are hot, fresh and not yet at their successors. It returns how long the search
// took.
func (c *Owner) Replicate(r *Replicas) (took time.Duration) {
	view := c.Config.Cluster.View()
	if view.Len() < 2 || !contains(view, c.Self) || c.Leaving.Load() || c.Isolation.Cut.Load() {
		return 0
	}
	now := c.Clock.Now()
	best := c.MostSparing(maxReplicas, func(e *store.Entry, asked bool) bool { return asked && !e.Replica && now < e.Soft })
	before, room := r.sent, c.Config.OwnedBytes/replicasOut
	r.sent = make(map[uint64]replicated, len(best))
	var list []hotEntry
	for _, x := range best {
		if room -= store.Weight(x.Key, x.e); room < 0 {
			break
		}
		hash := ring.Hash(x.Key)
		to, _ := view.Successor(x.Key)
		is := replicated{x.e.Loaded, ring.Hash(to.Name) ^ to.Incarnation, now}
		if was, ok := before[hash]; ok && was.loaded == is.loaded && was.to == is.to && now-was.at < ReplicaAgain {
			r.sent[hash] = was
			continue
		}
		r.sent[hash] = is
		list = append(list, hotEntry{x.Key, x.heat})
	}
	took = time.Duration(c.Clock.Now() - now)
	if len(list) == 0 {
		return took
	}
	ctx, cancel := context.WithTimeout(c.Ctx, replicaEvery)
	defer cancel()
	successor := func(key string) int {
		to, _ := view.Successor(key)
		return view.Index(to.Name)
	}
	left, _ := c.pushParts(ctx, view, list, successor, r.Pace, true) // a leaving member is not a successor in the next view
	for _, x := range left {
		delete(r.sent, ring.Hash(x.Key))
	}
	return took
}

// roomFor reports whether e may be taken as a replica.
func (c *Owner) roomFor(key string, e *store.Entry) bool {
	_, bytes := c.Owned.Replicas()
	if old, ok := c.Owned.Get(key); ok && old.Replica {
		bytes -= store.Weight(key, old)
	}
	return bytes+store.Weight(key, e) <= c.Config.OwnedBytes/replicasIn
}

// adopt turns replicas, and entries that this node filled as a stand-in owner, into ordinary entries if their keys
// are this node's in the view.
func (c *Owner) adopt(view *ring.View) {
	stood := c.stoodIn.Swap(false)
	if n, _ := c.Owned.Replicas(); n == 0 && !stood {
		return
	}
	type mine struct {
		key string
		e   *store.Entry
	}
	var list []mine
	now, later := c.Clock.Now(), false
	c.Owned.Ranked(func(key string, e *store.Entry, _ uint8) {
		switch {
		case !e.Replica && e.Full() == nil || e.AsOwned(now) == nil:
		case view.Owner(key).Name == c.Self:
			list = append(list, mine{key, e})
		default:
			later = later || e.Full() != nil
		}
	})
	if later {
		c.stoodIn.Store(true)
	}
	for _, x := range list {
		own := *x.e.AsOwned(now)
		own.Replica = false
		if x.e.Full() != nil {
			c.Journal.StoredLife(own.Hard - own.Loaded)
		}
		c.Replace(x.key, ring.Hash(x.key), x.e, &own)
	}
}
