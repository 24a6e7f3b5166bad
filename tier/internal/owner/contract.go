package owner

import (
	"fmt"
	"time"
)

// Contract is the public Freshness, defaults filled in.
type Contract struct {
	TTL                  time.Duration
	MaxTTL               time.Duration
	StaleWhileRevalidate time.Duration
	StaleIfError         time.Duration
	SoftTimeout          time.Duration
	NegativeTTL          time.Duration
	ErrorTTL             time.Duration
	NearTTL              time.Duration
	Jitter               float64
	RefreshAhead         float64
}

// Bound returns the greatest age of an answer.
func (f Contract) Bound() time.Duration {
	return max(f.TTL, f.MaxTTL) + max(f.StaleWhileRevalidate, f.StaleIfError)
}

// Allows returns an error that wraps ErrTTLTooLong if the contract forbids this TTL for a single value.
func (f Contract) Allows(ttl time.Duration) error {
	if f.MaxTTL == 0 || ttl <= f.MaxTTL {
		return nil
	}
	return fmt.Errorf("%w: it is %v, the most is %v: give the value less, or raise Freshness.MaxTTL on every member", ErrTTLTooLong, ttl, f.MaxTTL)
}

// Staleness is how long one value may be served after its soft expiry.
type Staleness struct {
	WhileRevalidate time.Duration // while one refresh runs
	IfError         time.Duration // if the refill fails or gets no permit
}

// lifespan holds the times of one value that replace those of the contract.
type lifespan struct {
	ttl   time.Duration // 0: Freshness.TTL
	stale *Staleness    // nil: as in Freshness
}

// windows returns how long the value may be served stale, never longer than the contract allows.
func (l lifespan) windows(in *Contract) Staleness {
	s := Staleness{WhileRevalidate: in.StaleWhileRevalidate, IfError: in.StaleIfError}
	if l.stale != nil {
		s.WhileRevalidate = max(min(s.WhileRevalidate, l.stale.WhileRevalidate), 0)
		s.IfError = max(min(s.IfError, l.stale.IfError), 0)
	}
	return s
}
