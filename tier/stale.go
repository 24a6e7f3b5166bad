package tier

import "time"

// Stale is for how long after its soft expiry one value may be served.
type Stale struct {
	WhileRevalidate time.Duration // while one refresh runs
	IfError         time.Duration // if the refill fails or gets no permit
}

// SetStale shortens Freshness.StaleWhileRevalidate and Freshness.StaleIfError for this value; a longer
// duration has no effect. The zero Stale keeps the value from being served after its soft expiry. On a
// member that is given a copy by the key's owner, Freshness.StaleWhileRevalidate counts for as long
// as the longer of the two allows.
func (f *Fill[V]) SetStale(s Stale) { f.stale = &s }

// lifespan is what one value has of its own in place of the contract's times.
type lifespan struct {
	ttl   time.Duration // 0: Freshness.TTL
	stale *Stale        // nil: as Freshness has it
}

// windows are for how long the value may be served stale: never longer than the contract allows.
func (l lifespan) windows(contract *Freshness) Stale {
	s := Stale{WhileRevalidate: contract.StaleWhileRevalidate, IfError: contract.StaleIfError}
	if l.stale != nil {
		s.WhileRevalidate = max(min(s.WhileRevalidate, l.stale.WhileRevalidate), 0)
		s.IfError = max(min(s.IfError, l.stale.IfError), 0)
	}
	return s
}
