package store

import (
	"time"

	"github.com/weircache/weir/tier/internal/fence"
)

// Entry is one key of the owned tier. It is immutable once stored: a change is a new
// entry. Times are ns on the cache's clock.
type Entry struct {
	Value []byte        // encoded; nil with NotFound and Failed
	Stamp uint64        // fence clock when its load began
	Tags  *fence.TagSet // nil: none
	Etag  uint64        // identifies value and tags within this cache instance
	// Version is the origin's version, 0 if unknown.
	Version uint64
	Loaded  int64         // start of the load
	Soft    int64         // soft expiry
	SWR     int64         // it may be served stale until then, while one refresh runs
	Hard    int64         // hard expiry
	Cost    time.Duration // what the fill took
	Rare    *Rare         // nil: all its fields are zero
	Flags   uint8
	Handed  bool // another member gave it, or a fill there produced it
	Replica bool // its owner keeps it here in case that owner is lost, see internal/owner/replica.go
}

// Rare holds the fields that few entries have. It is immutable as well.
type Rare struct {
	Err   error       // with Failed
	Retry int64       // after a failed refill: no other refill before this time; the copy is served until then
	Full  *Expiry     // the times that apply if this node owns the key; nil: those of the entry
	Why   StaleReason // with Retry: why the refill failed
}

// Change applies f to e's rare fields. No other goroutine may have e yet. The entry that e was copied from does not
// change.
func (e *Entry) Change(f func(*Rare)) {
	var r Rare
	if e.Rare != nil {
		r = *e.Rare
	}
	f(&r)
	if e.Rare = nil; r != (Rare{}) {
		e.Rare = &r
	}
}

// Err returns the error of a failed fill, with Failed.
func (e *Entry) Err() error {
	if e.Rare == nil {
		return nil
	}
	return e.Rare.Err
}

// Retry returns when the next refill may start after a failed one; 0: at any time.
func (e *Entry) Retry() int64 {
	if e.Rare == nil {
		return 0
	}
	return e.Rare.Retry
}

// Full returns the times that apply to the entry at the key's owner; nil: the entry's own.
func (e *Entry) Full() *Expiry {
	if e.Rare == nil {
		return nil
	}
	return e.Rare.Full
}

// Expiry holds the times of an entry that a stand-in owner keeps for a shorter time.
type Expiry struct{ Soft, SWR, Hard int64 }

// StandInFor is how long, in ns, after a load by a stand-in owner the result may become the next owner's. The next
// owner takes some seconds to take over, and the key may be read only after that. If the result is older, the lost
// owner may have had a newer copy.
const StandInFor = int64(time.Minute)

// Outlived reports whether e was past its hard expiry when its load returned.
func (e *Entry) Outlived() bool { return e.Loaded+int64(e.Cost) >= e.Hard }

// AsOwned returns e with the times that apply at the key's owner. It returns nil if e is too old to become the
// owner's.
func (e *Entry) AsOwned(now int64) *Entry {
	full := e.Full()
	switch {
	case full == nil && now < e.Hard:
		return e
	case full == nil || now >= full.Hard || now >= e.Hard && now-e.Loaded >= StandInFor:
		return nil
	}
	own := *e
	own.Soft, own.SWR, own.Hard = full.Soft, full.SWR, full.Hard
	own.Change(func(r *Rare) { r.Full = nil })
	return &own
}

// StaleReason says why an answer past its soft expiry was given.
type StaleReason uint8

const (
	staleRefresh  StaleReason = iota // within StaleWhileRevalidate
	StaleError                       // the refill failed
	StaleShed                        // the governor rejected the refill
	StaleSoft                        // the caller's SoftTimeout was over
	StaleIsolated                    // any of these, while this node had lost contact with most members
	StaleDrill                       // a drill's load brought nothing
	StaleReasons                     // how many there are
)

// StaleNames are the reasons as labels.
var StaleNames = [StaleReasons]string{"revalidating", "error", "shed", "soft_timeout", "isolated", "drill"}

const (
	NotFound uint8 = 1 << iota // the origin has no value
	Failed                     // the fill failed; remembered until Hard
	Passing                    // for the waiting callers only: not kept in any tier
)

// Verdict says what may be done with an entry now.
type Verdict uint8

const (
	MustFill   Verdict = iota // nothing to serve before a fill
	Serve                     // fresh enough
	ServeStale                // past soft expiry; serve, and refresh
	ServeLate                 // past soft expiry and a refill failed recently; serve
)

// WhyStale returns why e is served if it is past its soft expiry.
func (e *Entry) WhyStale(late bool) StaleReason {
	if late && e.Rare != nil {
		return e.Rare.Why
	}
	return staleRefresh
}

// RefreshAge, as a read's MaxAge, accepts only values whose load began after the read.
const RefreshAge = time.Microsecond

// Judge returns what a read that accepts maxAge may do with e. e is valid and not past hard expiry.
func (e *Entry) Judge(now int64, maxAge time.Duration) Verdict {
	if e.Flags&Failed != 0 {
		if maxAge == RefreshAge {
			return MustFill
		}
		return Serve
	}
	if maxAge == 0 {
		if now < e.Soft {
			return Serve
		}
		return MustFill
	}
	if maxAge == RefreshAge || maxAge > 0 && now-e.Loaded > int64(maxAge) {
		return MustFill
	}
	switch {
	case now < e.Soft:
		return Serve
	case now < e.Retry():
		return ServeLate
	case now < e.SWR:
		return ServeStale
	}
	return MustFill
}
