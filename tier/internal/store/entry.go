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
	Etag  uint64        // stands for value and tags, within this cache instance
	// version is the origin's, 0: unknown.
	Version uint64
	Loaded  int64         // start of the load
	Soft    int64         // soft expiry
	Swr     int64         // until when it is served stale while one refresh runs
	Hard    int64         // hard expiry
	Cost    time.Duration // what the fill took
	Rare    *Rare         // nil: all of it is zero
	Flags   uint8
	Handed  bool // another member gave it, or a fill there brought it
	Replica bool // its owner keeps it here in case that it is lost, see replica.go
}

// Rare is what few entries have. It is immutable too.
type Rare struct {
	Err   error       // with Failed
	Retry int64       // after a failed refill: no other before this, the copy is served meanwhile
	Full  *Expiry     // what the times are if this node owns the key; nil: those that are there
	Why   StaleReason // with retry: why the refill brought nothing
}

// Change applies f to what e has of the rare. Nobody else has e yet; what it was copied from does not change.
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

// Err is the error of a failed fill, with Failed.
func (e *Entry) Err() error {
	if e.Rare == nil {
		return nil
	}
	return e.Rare.Err
}

// Retry is when the next refill may start after one that failed; 0: at any time.
func (e *Entry) Retry() int64 {
	if e.Rare == nil {
		return 0
	}
	return e.Rare.Retry
}

// Full returns the times that the entry has at the key's owner, nil: those that are there.
func (e *Entry) Full() *Expiry {
	if e.Rare == nil {
		return nil
	}
	return e.Rare.Full
}

// Expiry are the times of an entry that a stand-in keeps for a shorter time.
type Expiry struct{ Soft, SWR, Hard int64 }

// StandInFor is for how long, in ns, after a load in the owner's place its result may become the next owner's: it
// takes some seconds until that is one, and the key may be read only then. Of an older one the owner that was
// lost may have had a newer copy.
const StandInFor = int64(time.Minute)

// Outlived reports whether e was past its hard expiry when its load returned.
func (e *Entry) Outlived() bool { return e.Loaded+int64(e.Cost) >= e.Hard }

// AsOwned returns e with the times that it has at the key's owner. nil: it is too old to become the owner's.
func (e *Entry) AsOwned(now int64) *Entry {
	full := e.Full()
	switch {
	case full == nil && now < e.Hard:
		return e
	case full == nil || now >= full.Hard || now >= e.Hard && now-e.Loaded >= StandInFor:
		return nil
	}
	own := *e
	own.Soft, own.Swr, own.Hard = full.Soft, full.SWR, full.Hard
	own.Change(func(r *Rare) { r.Full = nil })
	return &own
}

// StaleReason is why an answer past its soft expiry was given.
type StaleReason uint8

const (
	staleRefresh  StaleReason = iota // within StaleWhileRevalidate
	StaleError                       // the refill failed
	StaleShed                        // the governor refused the refill
	StaleSoft                        // the caller's SoftTimeout was over
	StaleIsolated                    // any of these, while this node had lost sight of most members
	StaleDrill                       // a drill's load brought nothing
	StaleReasons                     // how many there are
)

// StaleNames are the reasons as labels.
var StaleNames = [StaleReasons]string{"revalidating", "error", "shed", "soft_timeout", "isolated", "drill"}

const (
	NotFound uint8 = 1 << iota // the origin has no value
	Failed                     // the fill failed; remembered until hard
	Passing                    // for the callers that wait: in no tier
)

// Verdict is what may be done with an entry now.
type Verdict uint8

const (
	MustFill   Verdict = iota // nothing to serve before a fill
	Serve                     // fresh enough
	ServeStale                // past soft expiry; serve, and refresh
	ServeLate                 // past soft expiry and a refill failed lately; serve
)

// WhyStale is why e is served if it is past its soft expiry.
func (e *Entry) WhyStale(late bool) StaleReason {
	if late && e.Rare != nil {
		return e.Rare.Why
	}
	return staleRefresh
}

// RefreshAge as a read's MaxAge accepts nothing whose load began before the read.
const RefreshAge = time.Microsecond

// Judge says what may be done with e, which is valid and not past hard expiry, for a read
// that accepts maxAge.
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
	case now < e.Swr:
		return ServeStale
	}
	return MustFill
}
