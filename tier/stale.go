package tier

import (
	"time"

	"github.com/weircache/weir/tier/internal/owner"
)

// Stale is how long one value may be served after its soft expiry.
type Stale struct {
	WhileRevalidate time.Duration // while one refresh runs
	IfError         time.Duration // if the refill fails or gets no permit
}

// SetStale shortens Freshness.StaleWhileRevalidate and Freshness.StaleIfError for this value. A longer duration has
// no effect. The zero Stale keeps the value from being served after its soft expiry. On a member that got a copy from
// the key's owner, Freshness.StaleWhileRevalidate applies for as long as the longer of the two allows.
func (f *Fill[V]) SetStale(s Stale) { f.run.Stale = (*owner.Staleness)(&s) }
