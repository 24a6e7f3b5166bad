package tier

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/ring"
)

// cause says why a fill was needed, as the ledger of misses counts it.
type cause uint8

const (
	causeCold         cause = iota // no trace of an earlier copy
	causeExpired                   // the copy was past soft or hard expiry
	causeEvicted                   // the copy had to make room for others
	causeFenced                    // the copy was invalidated
	causeMoved                     // the key lately had another owner, who is still a member
	causeOwnerLost                 // the key's owner is gone, or could not be reached
	causeIsolated                  // this node was cut off from the owner's side
	causeRefreshAhead              // the copy was fresh: a refresh before soft expiry
	causeDrill                     // a drill wanted a miss
	causes
)

var causeNames = [causes]string{"cold", "expired", "evicted", "fenced", "moved", "owner_lost", "isolated", "refresh_ahead", "drill"}

// whyMissing tells why this node has no valid copy of a key, as far as it can know. A key that
// changed owner and was never loaded before counts as moved: an upper bound.
func (c *Cache[V]) whyMissing(key string, hash uint64, standIn bool) cause {
	if standIn {
		return causeOwnerLost
	}
	if c.fences.Fenced(key, hash) {
		return causeFenced
	}
	if e, ok := c.owned.Get(key); ok {
		if c.fences.Tagged(e.Tags) {
			return causeFenced
		}
		return causeExpired
	}
	if c.evicted.has(hash) {
		return causeEvicted
	}
	if c.cfg.Cluster != nil {
		return c.views.why(hash, c.self, c.clock.Now())
	}
	return causeCold
}

// evictions remembers the hashes of keys evicted lately. A newer one takes an older one's
// place, so it holds 128 KiB for any number of keys.
type evictions struct {
	hashes [1 << 14]atomic.Uint64
}

func (v *evictions) add(hash uint64)      { v.hashes[hash%(1<<14)].Store(hash) }
func (v *evictions) has(hash uint64) bool { return v.hashes[hash%(1<<14)].Load() == hash }

// ownLoads remembers when this node last loaded keys itself, to a millisecond. A newer one takes an older one's place:
// 128 KiB for any number of keys. Of one key in 16 million it may say so wrongly.
type ownLoads struct {
	last [1 << 14]atomic.Uint64 // 24 bits of the key's hash, 40 of the time; 0: nothing
}

// ownLoadMask is for the bits of the time, which wrap around after 34 years.
const ownLoadMask = 1<<40 - 1

func ownLoadTime(loaded int64) uint64 { return uint64(loaded/int64(time.Millisecond)) & ownLoadMask }

// add notes a load that began at loaded, ns on the cache's clock.
func (o *ownLoads) add(hash uint64, loaded int64) {
	o.last[hash%(1<<14)].Store(hash&^ownLoadMask | ownLoadTime(loaded))
}

// newer reports whether one began later than loaded, by more than what a copy's age may be wrong by after a
// previous owner was asked for it.
func (o *ownLoads) newer(hash uint64, loaded int64) bool {
	x := o.last[hash%(1<<14)].Load()
	later := (x - ownLoadTime(loaded+int64(previousWait))) & ownLoadMask
	return x != 0 && x&^ownLoadMask == hash&^ownLoadMask && later != 0 && later < ownLoadMask/2
}

// viewHistory remembers the view before the present one, and which member each partition came from.
type viewHistory struct {
	self    string
	mu      sync.Mutex // guards the rest
	now     *ring.View
	before  *ring.View
	changed int64 // when, ns on the cache's clock
	// Where partitions came from: by a change of view, or with the first one.
	moves   []move
	first   *ring.View
	firstAt int64
	settled *ring.View         // see settledView
	formers map[string]*former // by name
}

func (h *viewHistory) note(v *ring.View, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == v {
		return
	}
	if h.now == nil || h.now.Fingerprint() != v.Fingerprint() {
		h.movedTo(v, now)
		h.before, h.changed = h.now, now
	}
	h.now = v
}

// why tells what a change of view has to do with a miss of self's.
func (h *viewHistory) why(hash uint64, self string, now int64) cause {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.before == nil || now-h.changed > int64(movedFor) {
		return causeCold
	}
	owner := h.before.OwnerOf(h.before.PartitionOf(hash))
	if owner.Name == self {
		return causeCold
	}
	if h.now.Index(owner.Name) >= 0 {
		return causeMoved
	}
	return causeOwnerLost
}
