package store

import (
	"sync/atomic"
	"time"
)

// Evictions remembers the hashes of recently evicted keys. A newer hash replaces an older one in its place, so it
// takes 128 KiB for any number of keys.
type Evictions struct {
	hashes [1 << 14]atomic.Uint64
}

// Add records the eviction of a key with this hash.
func (v *Evictions) Add(hash uint64) { v.hashes[hash%(1<<14)].Store(hash) }

// Has reports whether the hash was added and has not been displaced since.
func (v *Evictions) Has(hash uint64) bool { return v.hashes[hash%(1<<14)].Load() == hash }

// OwnLoads remembers when this node last loaded keys itself, to a millisecond. A newer load replaces an older one in
// its place, so it takes 128 KiB for any number of keys. It is wrong about one key in 16 million.
type OwnLoads struct {
	last [1 << 14]atomic.Uint64 // 24 bits of the key's hash, 40 of the time; 0: nothing
}

// ownLoadMask covers the bits of the time, which wrap around after 34 years.
const ownLoadMask = 1<<40 - 1

func ownLoadTime(loaded int64) uint64 { return uint64(loaded/int64(time.Millisecond)) & ownLoadMask }

// Add records a load that began at loaded, ns on the cache's clock.
func (o *OwnLoads) Add(hash uint64, loaded int64) {
	o.last[hash%(1<<14)].Store(hash&^ownLoadMask | ownLoadTime(loaded))
}

// Newer reports whether this node began a load of the key more than tolerance, in ns, later than loaded.
func (o *OwnLoads) Newer(hash uint64, loaded, tolerance int64) bool {
	x := o.last[hash%(1<<14)].Load()
	later := (x - ownLoadTime(loaded+tolerance)) & ownLoadMask
	return x != 0 && x&^ownLoadMask == hash&^ownLoadMask && later != 0 && later < ownLoadMask/2
}
