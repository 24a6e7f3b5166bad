package tier

import (
	"context"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/store"
)

// With Config.Replicas an owner keeps copies of its hottest keys at their successors. When it is lost, those answer with
// them at once, and own them when the view has changed: what was hot does not cost a load. It is the owner that pushes, every
// few seconds, what is fresh and not yet there, with the tokens of a hand-over (handoff.go).
//
// A replica is a copy as any other, in the owned tier, where it obeys the one rule: no invalidation that covers it was
// applied here after its load began. Its token says that it does when it comes; from then on this member is told
// like any other, and fences, tags and versions end it like any other entry. It differs in three things: it is served only
// to who could not reach its owner; this member neither refreshes it ahead, nor lists, nor counts, nor hands it over as its
// own; and it takes no more than a part of the tier. A view that gives this member the key makes it an entry like the rest.
//
// The guarantees, each:
//
//   - One load for a key and owner (G1): a replica adds none. That the successor serves it takes away the one that it would
//     have begun in the owner's place.
//   - Invalidate (G2): the successor is a member of the view, so it is waited for, or named. CleanBy counts with
//     entries of the owned tier on every member, by their hard expiry.
//   - Age (G3, MaxAge): counted from a moment before the owner looked, so never too low, and soft and hard expiry come no later
//     than at the owner. If the owner lives, and only the asker cannot reach it, it may have a newer value that
//     nobody has invalidated anything for: a refreshed one. The older one is within the contract, like a near copy. But
//     MaxAge 0 asks for the owner's word: a replica is none, and the successor fills, as without.
//   - Concurrency (G4), cancels (G5): no flight and no load of its own. If it is past its soft expiry the successor
//     refreshes it under the governor, as what it fills itself, for a short time.
//   - Near copies (G6): given out with a lease that ends by successorTTL, like what the successor fills.
//   - Heals (G7): no push is taken before the pusher has what the receiver has applied.
//   - Hops (G8): a push is answered at once. A replica is served where the successor would have filled.
//   - Hostile bytes (G10): the frames and limits of a hand-over, and a part of the tier at most.
//   - Close (G11): one goroutine, which ends with the cache's context, and Close waits for it.
//
// Versions: a copy that is older than a version told with At is neither taken nor kept; ReadOptions.After sends the
// mark along, as to an owner.
const (
	// replicaEvery is about how often an owner looks for what to push, and how long it pushes at most.
	replicaEvery = 2 * time.Second
	// replicaEffort: looking takes at most one part in so many of a goroutine's time.
	replicaEffort = 64
	// replicaAgain is after how long a copy is pushed once more: it may have been evicted, or flushed.
	replicaAgain = int64(5 * time.Minute)
	// replicaRate is the part of Config.HandoffRate that they may take: one in replicaRate.
	replicaRate = 8
	// An owner keeps copies of one in replicasOut of Config.OwnedBytes, and as a successor takes one in replicasIn.
	replicasOut = 8
	replicasIn  = 4
	// maxReplicas is of how many keys an owner keeps copies.
	maxReplicas = 10_000
)

// replicated is what has been pushed of a key.
type replicated struct {
	loaded int64  // the entry's
	to     uint64 // stands for the member and its start
	at     int64
}

// replicas is keepReplicas's own.
type replicas struct {
	pace *pacer
	sent map[uint64]replicated // by hash of the key, of those that are hottest now
}

// keepReplicas pushes this owner's hottest entries to their successors, and makes what others pushed this node's own when
// the view says so. It ends with c.ctx; Close waits for it.
func (c *Cache[V]) keepReplicas() {
	defer c.life.end()
	r := replicas{pace: &pacer{rate: max(c.cfg.HandoffRate/replicaRate, 1)}}
	changed := c.cfg.Cluster.ViewChanged()
	c.adopt(c.cfg.Cluster.View())
	var due <-chan time.Time
	wait := time.NewTimer(time.Hour)
	defer wait.Stop()
	rest := func(took time.Duration) {
		wait.Reset(time.Duration((0.75 + c.dice.float64()/2) * float64(max(replicaEvery, replicaEffort*took))))
	}
	if c.cfg.Replicas > 0 {
		due = wait.C
		rest(0)
	}
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-changed:
			changed = c.cfg.Cluster.ViewChanged()
			c.adopt(c.cfg.Cluster.View())
		case <-due:
			rest(c.replicate(&r))
		}
	}
}

// replicate pushes what is hot and fresh and not at its successor yet. It returns how long it took to find that.
func (c *Cache[V]) replicate(r *replicas) (took time.Duration) {
	view := c.cfg.Cluster.View()
	if view.Len() < 2 || !contains(view, c.self) || c.leaving.Load() || c.isolation.Cut.Load() {
		return 0
	}
	now := c.clock.Now()
	best := c.mostSparing(maxReplicas, func(e *store.Entry, asked bool) bool { return asked && !e.Replica && now < e.Soft })
	before, room := r.sent, c.cfg.OwnedBytes/replicasOut
	r.sent = make(map[uint64]replicated, len(best))
	var list []hot
	for _, x := range best {
		if room -= store.Weight(x.key, x.e); room < 0 {
			break
		}
		hash := ring.Hash(x.key)
		to, _ := view.Successor(x.key)
		is := replicated{x.e.Loaded, ring.Hash(to.Name) ^ to.Incarnation, now}
		if was, ok := before[hash]; ok && was.loaded == is.loaded && was.to == is.to && now-was.at < replicaAgain {
			r.sent[hash] = was
			continue
		}
		r.sent[hash] = is
		list = append(list, hot{x.key, x.heat})
	}
	took = time.Duration(c.clock.Now() - now)
	if len(list) == 0 {
		return took
	}
	ctx, cancel := context.WithTimeout(c.ctx, replicaEvery)
	defer cancel()
	successor := func(key string) int {
		to, _ := view.Successor(key)
		return view.Index(to.Name)
	}
	left, _ := c.pushParts(ctx, view, list, successor, r.pace, true) // who leaves is no successor in the next view
	for _, x := range left {
		delete(r.sent, ring.Hash(x.key))
	}
	return took
}

// roomFor reports whether e may be taken as a replica.
func (c *Cache[V]) roomFor(key string, e *store.Entry) bool {
	_, bytes := c.owned.Replicas()
	if old, ok := c.owned.Get(key); ok && old.Replica {
		bytes -= store.Weight(key, old)
	}
	return bytes+store.Weight(key, e) <= c.cfg.OwnedBytes/replicasIn
}

// adopt makes the replicas of the keys that are this node's in the view, and what it has filled in
// their owner's place, entries like the rest.
func (c *Cache[V]) adopt(view *ring.View) {
	stood := c.stood.Swap(false)
	if n, _ := c.owned.Replicas(); n == 0 && !stood {
		return
	}
	type mine struct {
		key string
		e   *store.Entry
	}
	var list []mine
	now, later := c.clock.Now(), false
	c.owned.Ranked(func(key string, e *store.Entry, _ uint8) {
		switch {
		case !e.Replica && e.Full() == nil || e.AsOwned(now) == nil:
		case view.Owner(key).Name == c.self:
			list = append(list, mine{key, e})
		default:
			later = later || e.Full() != nil
		}
	})
	if later {
		c.stood.Store(true)
	}
	for _, x := range list {
		own := *x.e.AsOwned(now)
		own.Replica = false
		if x.e.Full() != nil {
			c.log.lives.stored(own.Hard - own.Loaded)
		}
		c.replace(x.key, ring.Hash(x.key), x.e, &own)
	}
}
