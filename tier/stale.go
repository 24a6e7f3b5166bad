package tier

import "time"

// Stale is how long one value may be served after its soft expiry.
type Stale struct {
	WhileRevalidate time.Duration // while one refresh runs
	IfError         time.Duration // if the refill fails or gets no permit
}

// SetStale shortens Freshness.StaleWhileRevalidate and Freshness.StaleIfError for this value. A longer duration has
// no effect. The zero Stale keeps the value from being served after its soft expiry. On a member that got a copy from
// the key's owner, Freshness.StaleWhileRevalidate applies for as long as the longer of the two allows.
func (f *Fill[V]) SetStale(s Stale) { f.stale = &s }

// lifespan holds the times of one value that replace those of the contract.
type lifespan struct {
	ttl   time.Duration // 0: Freshness.TTL
	stale *Stale        // nil: as in Freshness
}

// windows returns how long the value may be served stale, never longer than the contract allows.
func (l lifespan) windows(contract *Freshness) Stale {
	s := Stale{WhileRevalidate: contract.StaleWhileRevalidate, IfError: contract.StaleIfError}
	if l.stale != nil {
		s.WhileRevalidate = max(min(s.WhileRevalidate, l.stale.WhileRevalidate), 0)
		s.IfError = max(min(s.IfError, l.stale.IfError), 0)
	}
	return s
}
