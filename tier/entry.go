package tier

import (
	"time"

	"github.com/weircache/weir/tier/internal/fence"
)

// entry is one key of the owned tier. It is immutable once stored: a change is a new
// entry. Times are ns on the cache's clock.
type entry struct {
	value []byte        // encoded; nil with entryNotFound and entryFailed
	stamp uint64        // fence clock when its load began
	tags  *fence.TagSet // nil: none
	etag  uint64        // stands for value and tags, within this cache instance
	// version is the origin's, 0: unknown.
	version uint64
	loaded  int64         // start of the load
	soft    int64         // soft expiry
	swr     int64         // until when it is served stale while one refresh runs
	hard    int64         // hard expiry
	cost    time.Duration // what the fill took
	rare    *rare         // nil: all of it is zero
	flags   uint8
	handed  bool // another member gave it, or a fill there brought it
	replica bool // its owner keeps it here in case that it is lost, see replica.go
}

// rare is what few entries have. It is immutable too.
type rare struct {
	err   error       // with entryFailed
	retry int64       // after a failed refill: no other before this, the copy is served meanwhile
	full  *expiry     // what the times are if this node owns the key; nil: those that are there
	why   staleReason // with retry: why the refill brought nothing
}

// change applies f to what e has of the rare. Nobody else has e yet; what it was copied from does not change.
func (e *entry) change(f func(*rare)) {
	var r rare
	if e.rare != nil {
		r = *e.rare
	}
	f(&r)
	if e.rare = nil; r != (rare{}) {
		e.rare = &r
	}
}

func (e *entry) err() error {
	if e.rare == nil {
		return nil
	}
	return e.rare.err
}

func (e *entry) retry() int64 {
	if e.rare == nil {
		return 0
	}
	return e.rare.retry
}

func (e *entry) full() *expiry {
	if e.rare == nil {
		return nil
	}
	return e.rare.full
}

// expiry are the times of an entry that a stand-in keeps for a shorter time.
type expiry struct{ soft, swr, hard int64 }

// standInFor is for how long, in ns, after a load in the owner's place its result may become the next owner's: it
// takes some seconds until that is one, and the key may be read only then. Of an older one the owner that was
// lost may have had a newer copy.
const standInFor = int64(time.Minute)

// asOwned returns e with the times that it has at the key's owner. nil: it is too old to become the owner's.
func (e *entry) asOwned(now int64) *entry {
	full := e.full()
	switch {
	case full == nil && now < e.hard:
		return e
	case full == nil || now >= full.hard || now >= e.hard && now-e.loaded >= standInFor:
		return nil
	}
	own := *e
	own.soft, own.swr, own.hard = full.soft, full.swr, full.hard
	own.change(func(r *rare) { r.full = nil })
	return &own
}

// staleReason is why an answer past its soft expiry was given.
type staleReason uint8

const (
	staleRefresh  staleReason = iota // within StaleWhileRevalidate
	staleError                       // the refill failed
	staleShed                        // the governor refused the refill
	staleSoft                        // the caller's SoftTimeout was over
	staleIsolated                    // any of these, while this node had lost sight of most members
	staleDrill                       // a drill's load brought nothing
	staleReasons
)

var staleNames = [staleReasons]string{"revalidating", "error", "shed", "soft_timeout", "isolated", "drill"}

const (
	entryNotFound uint8 = 1 << iota // the origin has no value
	entryFailed                     // the fill failed; remembered until hard
	entryPassing                    // for the callers that wait: in no tier
)

// verdict is what may be done with an entry now.
type verdict uint8

const (
	mustFill   verdict = iota // nothing to serve before a fill
	serve                     // fresh enough
	serveStale                // past soft expiry; serve, and refresh
	serveLate                 // past soft expiry and a refill failed lately; serve
)

// whyStale is why e is served if it is past its soft expiry.
func (e *entry) whyStale(late bool) staleReason {
	if late && e.rare != nil {
		return e.rare.why
	}
	return staleRefresh
}

// refreshAge as a read's MaxAge accepts nothing whose load began before the read.
const refreshAge = time.Microsecond

// judge says what may be done with e, which is valid and not past hard expiry, for a read
// that accepts maxAge.
func (e *entry) judge(now int64, maxAge time.Duration) verdict {
	if e.flags&entryFailed != 0 {
		if maxAge == refreshAge {
			return mustFill
		}
		return serve
	}
	if maxAge == 0 {
		if now < e.soft {
			return serve
		}
		return mustFill
	}
	if maxAge == refreshAge || maxAge > 0 && now-e.loaded > int64(maxAge) {
		return mustFill
	}
	switch {
	case now < e.soft:
		return serve
	case now < e.retry():
		return serveLate
	case now < e.swr:
		return serveStale
	}
	return mustFill
}
