package tier

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/governor"
)

// Defaults of Origin.
const (
	// DefaultConcurrency is Origin.Concurrency where it is 0.
	DefaultConcurrency = 256
	// DefaultTimeout is Origin.Timeout where it is 0.
	DefaultTimeout = 10 * time.Second
	// DefaultQueue is Origin.Queue where it is 0.
	DefaultQueue = 16384
	// DefaultQueueTarget is Origin.QueueTarget where it is 0.
	DefaultQueueTarget = 5 * time.Millisecond
	// DefaultQueueInterval is Origin.QueueInterval where it is 0.
	DefaultQueueInterval = 100 * time.Millisecond
	// DefaultBreakerFailures is Breaker.Failures where it is 0.
	DefaultBreakerFailures = 0.5
	// DefaultBreakerMinimum is Breaker.Minimum where it is 0.
	DefaultBreakerMinimum = 20
	// DefaultBreakerWindow is Breaker.Window where it is 0.
	DefaultBreakerWindow = 10 * time.Second
	// DefaultBreakerPause is Breaker.Pause where it is 0.
	DefaultBreakerPause = 5 * time.Second
	// DefaultBreakerProbes is Breaker.Probes where it is 0.
	DefaultBreakerProbes = 3
	// DefaultRetryBudget is Retry.Budget where it is 0.
	DefaultRetryBudget = 0.2
	// DefaultRetries is Retry.Most where it is 0.
	DefaultRetries = 2
	// DefaultRetryBackoff is Retry.Backoff where it is 0.
	DefaultRetryBackoff = 50 * time.Millisecond
)

// Origin limits how much may be asked of the origin. Config.Origin belongs to one cache. If several caches read the
// same database, give them one SharedOrigin instead.
type Origin struct {
	// Concurrency is the most loads that the whole cluster runs at once. It is divided among the members, including
	// members that vanished and may still live. If it is below the number of members, some get no share and reject
	// fills with ErrOverloaded. A new member's fills queue until the other members' loads fit their lower shares. A
	// load that has overrun its Timeout counts until it returns. 0: DefaultConcurrency.
	Concurrency int
	// MinConcurrency is the floor of the adaptive limit, which lowers Concurrency while loads are slower than usual or
	// fail. Set it to Concurrency to turn that limit off. 0: a quarter of Concurrency, at least 1.
	MinConcurrency int
	// Rate is the most loads a second that the whole cluster begins, divided among the members. 0: no limit other than
	// Concurrency.
	Rate float64
	// Burst is how many loads the whole cluster may begin at once after it was idle, if Rate is set. A member's part is
	// at least 1. 0: a tenth of a second's worth, at least 1.
	Burst int
	// Timeout is how long one load may take, retries included. A flight whose callers have no deadlines may wait as
	// long for a permit before that. 0: DefaultTimeout.
	Timeout time.Duration
	// Queue is how many flights may wait for a permit on this node; further ones are rejected at once. 0: DefaultQueue.
	Queue int
	// NewestFirst applies QueueInterval and QueueTarget to callers with a deadline as well. Otherwise a caller with a
	// deadline that finds no copy waits its turn as long as it has time. It is rejected only if the queue is full or if
	// it cannot be served before its deadline, and at once if that can be foreseen.
	NewestFirst bool
	// QueueInterval is how long flights for callers without a deadline, or with a stale copy, may queue without a break
	// before their queue counts as overloaded. Then the newest flight is served first, and flights that wait longer
	// than QueueTarget are rejected. Both times are raised for an origin so slow that permits become free more rarely
	// than that. 0: DefaultQueueInterval. Below 0: the oldest flight is always served first.
	QueueInterval time.Duration
	// QueueTarget is how long a flight may wait in an overloaded queue. 0: DefaultQueueTarget.
	QueueTarget time.Duration
	// Breaker stops loads while the origin fails.
	Breaker Breaker
	// Retry is for errors that the loader returns through Retryable.
	Retry Retry
}

// Breaker says when a member stops asking a failing origin. It counts only the member's own loads.
type Breaker struct {
	// Failures is the fraction of loads that must fail, within Window, for the breaker to open. 0:
	// DefaultBreakerFailures. Below 0: it never opens.
	Failures float64
	// Minimum is how many loads must have ended within Window before the breaker can open. 0: DefaultBreakerMinimum.
	Minimum int
	// Window is how far back loads count. 0: DefaultBreakerWindow.
	Window time.Duration
	// Pause is how long an open breaker lets nothing through before it probes. 0: DefaultBreakerPause.
	Pause time.Duration
	// Probes is how many loads probe the origin after a pause. All of them must succeed to close the breaker. 0:
	// DefaultBreakerProbes.
	Probes int
}

// Retry says how failed loads are retried. Only errors that the loader marks with Retryable are retried, within
// Origin.Timeout, and each retry passes the governor like any other load.
type Retry struct {
	// Budget is how many retries each admitted load allows, as a fraction. It keeps retries from multiplying the load
	// of a failing origin. 0: DefaultRetryBudget. Below 0: no retries.
	Budget float64
	// Most is the most retries of one fill. 0: DefaultRetries.
	Most int
	// Backoff is the longest wait before the first retry. It doubles with each retry. The wait is a random part of it.
	// 0: DefaultRetryBackoff.
	Backoff time.Duration
}

// limits returns o, with its defaults filled in, as the governor takes it.
func (o Origin) limits() governor.Limits {
	return governor.Limits{
		Concurrency: o.Concurrency, MinConcurrency: o.MinConcurrency, Rate: o.Rate, Burst: o.Burst,
		Timeout: o.Timeout, Queue: o.Queue, NewestFirst: o.NewestFirst,
		QueueInterval: o.QueueInterval, QueueTarget: o.QueueTarget,
		Breaker: governor.BreakerRules(o.Breaker), RetryBudget: o.Retry.Budget,
	}
}

func (o Origin) withDefaults() Origin {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	setN := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	setN(&o.Concurrency, DefaultConcurrency)
	setN(&o.MinConcurrency, max(o.Concurrency/4, 1))
	setN(&o.Burst, max(int(min(o.Rate/10, math.MaxInt32)), 1))
	set(&o.Timeout, DefaultTimeout)
	setN(&o.Queue, DefaultQueue)
	set(&o.QueueInterval, DefaultQueueInterval)
	set(&o.QueueTarget, DefaultQueueTarget)
	b := &o.Breaker
	if b.Failures == 0 {
		b.Failures = DefaultBreakerFailures
	}
	setN(&b.Minimum, DefaultBreakerMinimum)
	set(&b.Window, DefaultBreakerWindow)
	set(&b.Pause, DefaultBreakerPause)
	setN(&b.Probes, DefaultBreakerProbes)
	if o.Retry.Budget == 0 {
		o.Retry.Budget = DefaultRetryBudget
	}
	setN(&o.Retry.Most, DefaultRetries)
	set(&o.Retry.Backoff, DefaultRetryBackoff)
	return o
}

// check finds every problem at once. It is called before withDefaults.
func (o Origin) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("Origin."+format, args...)) }
	if o.Concurrency < 0 || o.Concurrency > math.MaxInt32 {
		bad("Concurrency is %d: say how many loads at once the origin bears, from 1 up; 0 means %d", o.Concurrency, DefaultConcurrency)
	}
	most := o.Concurrency
	if most == 0 {
		most = DefaultConcurrency
	}
	if o.MinConcurrency < 0 || o.MinConcurrency > most && most > 0 {
		bad("MinConcurrency is %d: it must be from 1 to Concurrency, which is %d; 0 means a quarter of that", o.MinConcurrency, most)
	}
	if !(o.Rate >= 0 && o.Rate <= 1e9) { // also catches NaN
		bad("Rate is %v: it is loads a second, up to a billion; 0 means no limit but Concurrency", o.Rate)
	}
	if o.Burst < 0 || o.Burst > math.MaxInt32 {
		bad("Burst is %d: it must be 1 or more; 0 means a tenth of a second's worth of Rate", o.Burst)
	}
	if o.Burst > 0 && o.Rate == 0 {
		bad("Burst is %d without a Rate: say how many loads a second there may be", o.Burst)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
		def  time.Duration
		off  bool // may be negative
	}{
		{"Timeout", o.Timeout, DefaultTimeout, false},
		{"QueueInterval", o.QueueInterval, DefaultQueueInterval, true},
		{"QueueTarget", o.QueueTarget, DefaultQueueTarget, false},
		{"Breaker.Window", o.Breaker.Window, DefaultBreakerWindow, false},
		{"Breaker.Pause", o.Breaker.Pause, DefaultBreakerPause, false},
		{"Retry.Backoff", o.Retry.Backoff, DefaultRetryBackoff, false},
	} {
		if d.d < 0 && !d.off || d.d > time.Hour {
			bad("%s is %v: it must be above 0 and at most an hour; 0 means %v", d.name, d.d, d.def)
		}
	}
	if o.Queue < 0 || o.Queue > math.MaxInt32 {
		bad("Queue is %d: it must be 1 or more; 0 means %d", o.Queue, DefaultQueue)
	}
	if !(o.Breaker.Failures <= 1) {
		bad("Breaker.Failures is %v: it is a fraction of at most 1; 0 means %v, below 0 turns the breaker off", o.Breaker.Failures, DefaultBreakerFailures)
	}
	if o.Breaker.Minimum < 0 || o.Breaker.Minimum > math.MaxInt32 {
		bad("Breaker.Minimum is %d: it must be 1 or more; 0 means %d", o.Breaker.Minimum, DefaultBreakerMinimum)
	}
	if o.Breaker.Probes < 0 || o.Breaker.Probes > math.MaxInt32 {
		bad("Breaker.Probes is %d: it must be 1 or more; 0 means %d", o.Breaker.Probes, DefaultBreakerProbes)
	}
	if !(o.Retry.Budget <= 1) {
		bad("Retry.Budget is %v: it is a fraction of at most 1; 0 means %v, below 0 means no retries", o.Retry.Budget, DefaultRetryBudget)
	}
	if o.Retry.Most < 0 || o.Retry.Most > 10 {
		bad("Retry.Most is %d: it must be from 1 to 10; 0 means %d; for none set Retry.Budget below 0", o.Retry.Most, DefaultRetries)
	}
	return errors.Join(errs...)
}

// A SharedOrigin is an origin that several caches of a process read, with one governor for all of them. They share
// its Concurrency, Rate, queue, breaker and retry budget. Give the same one to each as Config.SharedOrigin. All
// members create it with the same settings. It does not need to be closed and is safe for concurrent use.
type SharedOrigin struct {
	name string
	o    Origin // with the defaults filled in
	gov  *governor.Governor

	mu      sync.Mutex // guards the rest
	cluster Cluster    // of the attached caches
	caches  int
}

// NewSharedOrigin makes an origin for several caches. Messages and statistics use the name. The error names every
// field that is wrong.
func NewSharedOrigin(name string, o Origin) (*SharedOrigin, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("weir: origin %q: %w", name, err)
	}
	return newSharedOrigin(name, o, nil), nil
}

func newSharedOrigin(name string, o Origin, now func() time.Time) *SharedOrigin {
	s := &SharedOrigin{name: name, o: o.withDefaults()}
	c := clock.New(now)
	s.gov = governor.New(s.o.limits(), c.Now, s.share)
	return s
}

// Name returns the name given to NewSharedOrigin.
func (s *SharedOrigin) Name() string { return s.name }

// Stats returns the state of the governor, which covers all caches together.
func (s *SharedOrigin) Stats() GovernorStats { return GovernorStats(s.gov.Snapshot()) }

var errTwoClusters = errors.New("SharedOrigin is in use by a cache with another Cluster: caches that share an origin share the Cluster that its limits are divided in")

// attach counts one more cache.
func (s *SharedOrigin) attach(c Cluster) error {
	s.mu.Lock()
	if s.caches > 0 && s.cluster != c {
		s.mu.Unlock()
		return errTwoClusters
	}
	s.cluster = c
	s.caches++
	s.mu.Unlock()
	s.gov.Open()
	return nil
}

// detach removes one cache from the count. The last one waits for the governor's timer.
func (s *SharedOrigin) detach() {
	s.mu.Lock()
	s.caches--
	s.mu.Unlock()
	s.gov.Close()
}

// share returns this node's part of the cluster-wide cap and the number of members.
func (s *SharedOrigin) share() (permits, members int) {
	s.mu.Lock()
	c := s.cluster
	s.mu.Unlock()
	if c == nil {
		return s.o.Concurrency, 1
	}
	members, rank := c.Divisor()
	return governor.Divide(s.o.Concurrency, members, rank), members
}

// GovernorStats is the governor's state. With a SharedOrigin it covers all its caches.
type GovernorStats struct {
	Share   int `json:"share"`   // this node's part of Origin.Concurrency
	Limit   int `json:"limit"`   // what the adaptive limit leaves of the share
	InUse   int `json:"in_use"`  // permits held by loads
	Peak    int `json:"peak"`    // the most held at once
	Waiting int `json:"waiting"` // flights and loads waiting for a permit

	WaitingBy       map[string]int `json:"waiting_by_class"`
	Overloaded      bool           `json:"overloaded"`          // a queue has not been empty for QueueInterval
	Breaker         string         `json:"breaker"`             // closed, open or half_open
	BreakerOpenings int64          `json:"breaker_openings"`    // number of times it has opened
	LoadSeconds     float64        `json:"recent_load_seconds"` // recent mean duration of a load
	RetriesLeft     int            `json:"retries_left"`        // retries left in the budget
	OriginSeconds   float64        `json:"origin_seconds"`      // permits in use, integrated over time
}
