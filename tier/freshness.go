package tier

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weircache/weir/tier/internal/owner"
)

// Freshness is a namespace's contract: how old an answer may be. It must be the same
// on every member. All ages count from the start of the load.
type Freshness struct {
	// TTL is the age of the soft expiry: from then on a refresh is due. Required.
	TTL time.Duration
	// MaxTTL, if it is not 0, is the longest TTL that a loader may give a single value with Fill.SetTTL, or a Put with
	// PutOptions.TTL; a longer one fails with ErrTTLTooLong. With MaxTTL, Bound holds for those values as well, and
	// InvalidateError.CleanBy is exact: without it a member that is cut off may hold a copy for longer than the others
	// have heard. At least TTL. 0: no limit.
	MaxTTL time.Duration
	// StaleWhileRevalidate is how long after soft expiry a copy is still served while one refresh runs. 0: not at all,
	// callers wait for the refill.
	StaleWhileRevalidate time.Duration
	// StaleIfError is how long after soft expiry a copy is served if the refill fails or gets no permit. 0: not at all.
	StaleIfError time.Duration
	// SoftTimeout is how long a caller waits for a refill when there is a copy within StaleIfError: then the caller
	// gets the copy, and the fill goes on. 0: until the fill ends.
	SoftTimeout time.Duration
	// NegativeTTL is how long ErrNotFound is remembered. 0: five seconds or TTL, whichever is less. Below 0: not at
	// all.
	NegativeTTL time.Duration
	// ErrorTTL is how long a failed fill is remembered if no copy can be served, and how long a stale copy waits for
	// the next attempt. 0: one second. Below 0: not at all.
	ErrorTTL time.Duration
	// NearTTL is how long a near copy is served without asking the owner again. 0: one second or TTL, whichever is
	// less. Below 0: no near tier.
	NearTTL time.Duration
	// Jitter is the largest fraction by which a TTL is shortened at random, so that
	// keys loaded together do not expire together. 0: 0.1. Below 0: none. At most 0.9.
	Jitter float64
	// RefreshAhead is XFetch's beta: how eagerly a hot key is refreshed before soft expiry. 0: 1.
	// Below 0: never. See Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede
	// Prevention, VLDB 2015.
	RefreshAhead float64
}

// Bound is the greatest age, counted from the start of its load, at which a value may be served: its hard expiry.
// Without MaxTTL, Fill.SetTTL and PutOptions.TTL change it for a single value.
func (f Freshness) Bound() time.Duration { return owner.Contract(f).Bound() }

// String states the contract in a sentence.
func (f Freshness) String() string {
	f = f.withDefaults()
	var b strings.Builder
	fmt.Fprintf(&b, "Fresh for %v after its load began", f.TTL)
	if f.StaleWhileRevalidate > 0 {
		fmt.Fprintf(&b, ", then for %v served stale while it is refreshed", f.StaleWhileRevalidate)
	}
	if f.StaleIfError > 0 {
		fmt.Fprintf(&b, ", for %v if the origin fails", f.StaleIfError)
		if f.SoftTimeout > 0 {
			fmt.Fprintf(&b, " or takes longer than %v", f.SoftTimeout)
		}
	}
	if f.MaxTTL > f.TTL {
		fmt.Fprintf(&b, "; a value may be given up to %v of its own", f.MaxTTL)
	}
	fmt.Fprintf(&b, "; never older than %v", f.Bound())
	if f.NearTTL > 0 {
		fmt.Fprintf(&b, "; a near copy asks its owner again after %v", f.NearTTL)
	}
	if f.NegativeTTL > 0 {
		fmt.Fprintf(&b, "; not-found is remembered for %v", f.NegativeTTL)
	}
	b.WriteByte('.')
	return b.String()
}

func (f Freshness) withDefaults() Freshness {
	if f.NegativeTTL == 0 {
		f.NegativeTTL = min(f.TTL, 5*time.Second)
	}
	if f.ErrorTTL == 0 {
		f.ErrorTTL = time.Second
	}
	if f.NearTTL == 0 {
		f.NearTTL = min(f.TTL, time.Second)
	}
	if f.Jitter == 0 {
		f.Jitter = 0.1
	}
	if f.RefreshAhead == 0 {
		f.RefreshAhead = 1
	}
	f.NegativeTTL = max(f.NegativeTTL, 0)
	f.ErrorTTL = max(f.ErrorTTL, 0)
	f.NearTTL = max(f.NearTTL, 0)
	f.Jitter = max(f.Jitter, 0)
	f.RefreshAhead = max(f.RefreshAhead, 0)
	return f
}

// maxTTL keeps sums of durations far from overflow; about 100 years.
const maxTTL = 100 * 365 * 24 * time.Hour

func (f Freshness) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.TTL <= 0 {
		bad("Freshness.TTL is %v: say how long a value is fresh, a duration above 0", f.TTL)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
		neg  bool // a negative one means "not at all"
	}{
		{"TTL", f.TTL, true}, // its sign is checked above
		{"MaxTTL", f.MaxTTL, false},
		{"StaleWhileRevalidate", f.StaleWhileRevalidate, false},
		{"StaleIfError", f.StaleIfError, false},
		{"SoftTimeout", f.SoftTimeout, false},
		{"NegativeTTL", f.NegativeTTL, true},
		{"ErrorTTL", f.ErrorTTL, true},
		{"NearTTL", f.NearTTL, true},
	} {
		if d.d < 0 && !d.neg {
			bad("Freshness.%s is %v: it must be 0 or more", d.name, d.d)
		}
		if d.d > maxTTL {
			bad("Freshness.%s is %v: the most is %v", d.name, d.d, maxTTL)
		}
	}
	if f.MaxTTL > 0 && f.MaxTTL < f.TTL {
		bad("Freshness.MaxTTL is %v, below TTL %v: it limits what single values may be given, at least TTL; 0 sets no limit", f.MaxTTL, f.TTL)
	}
	if f.NearTTL > f.TTL && f.TTL > 0 {
		bad("Freshness.NearTTL is %v, above TTL %v: a near copy cannot outlive its value; lower it or leave it 0", f.NearTTL, f.TTL)
	}
	if f.SoftTimeout > 0 && f.StaleIfError == 0 && f.StaleWhileRevalidate == 0 {
		bad("Freshness.SoftTimeout is %v, but no copy may be stale: set StaleIfError", f.SoftTimeout)
	}
	if !(f.Jitter <= 0.9) { // also catches NaN
		bad("Freshness.Jitter is %v: it is a fraction of at most 0.9", f.Jitter)
	}
	if !(f.RefreshAhead <= 100) {
		bad("Freshness.RefreshAhead is %v: it must be at most 100, 1 is usual", f.RefreshAhead)
	}
	return errors.Join(errs...)
}
