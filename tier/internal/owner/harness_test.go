package owner_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

var background = context.Background()

// loader reads the origin for one key.
type loader func(ctx context.Context, r *owner.Run, key string) ([]byte, error)

// bytesRuns make the runs of one loader.
type bytesRuns struct {
	of   *owner.Owner
	load loader
}

func (v *bytesRuns) NewFill(f *owner.Flight) owner.Loading {
	return &bytesRun{run: owner.NewRun(v.of, f), key: f.Key, load: v.load}
}

func (v *bytesRuns) LoadBatch(ctx context.Context, fills []owner.Loading) error {
	for _, f := range fills {
		s := f.State()
		s.Err, s.Done = f.Load(ctx), true
	}
	return nil
}

// bytesRun is a run of a loader whose values are bytes.
type bytesRun struct {
	run   owner.Run
	key   string
	load  loader
	value []byte
}

func (x *bytesRun) State() *owner.Run { return &x.run }

func (x *bytesRun) Load(ctx context.Context) (err error) {
	x.value, err = x.load(ctx, &x.run, x.key)
	return err
}

func (x *bytesRun) Pack() ([]byte, error) { return x.value, nil }

func (x *bytesRun) Unpack(b []byte) error { x.value = b; return nil }

// noNear is a near tier that has nothing, and calls to members of which none is in flight.
type noNear struct{}

func (noNear) Hits() int64                   { return 0 }
func (noNear) Clear()                        {}
func (noNear) Detach(string, uint64, uint64) {}
func (noNear) DetachAll(*fence.Fences)       {}

// failure and denial are typed errors.
type failure struct {
	member string
	err    error
}

func (e *failure) Error() string { return e.err.Error() }
func (e *failure) Unwrap() error { return e.err }

type denial struct{ r *governor.Refusal }

func (e *denial) Error() string        { return e.r.Why.Text() }
func (e *denial) Is(target error) bool { return target == owner.ErrOverloaded }

type plainErrors struct{}

func (plainErrors) Failed(_, member string, err error) error { return &failure{member, err} }

func (plainErrors) AsFailed(err error) (string, error, bool) {
	if e, ok := errors.AsType[*failure](err); ok {
		return e.member, e.err, true
	}
	return "", nil, false
}

func (plainErrors) Panicked(value any, _ []byte) error { return fmt.Errorf("panic: %v", value) }

func (plainErrors) Refused(r *governor.Refusal) error { return &denial{r} }

func (plainErrors) AsRefused(err error) (owner.Refusal, bool) {
	if e, ok := errors.AsType[*denial](err); ok {
		return owner.Refusal{Why: e.r.Why, Text: e.r.Why.Text(), RetryAfter: e.r.After, Bare: err == error(e)}, true
	}
	return owner.Refusal{}, false
}

// A setup is what a node is made of.
type setup struct {
	owner.Config
	Permits governor.Limits
}

// A node is an Owner with the calls that these tests make.
type node struct {
	*owner.Owner
	log *eventCounts
}

// eventCounts counts the lines of a log by their attribute "event", or by their text if they have none.
type eventCounts struct {
	mu sync.Mutex // guards the rest
	by map[string]int
}

func (l *eventCounts) Enabled(context.Context, slog.Level) bool { return true }

func (l *eventCounts) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "event" {
			name = a.Value.String()
		}
		return true
	})
	l.by[name]++
	return nil
}

func (l *eventCounts) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *eventCounts) WithGroup(string) slog.Handler { return l }

func (l *eventCounts) counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.by)
}

// alone returns an Owner without a cluster, which two loads may read the origin for at once.
func alone(t *testing.T, load loader, change func(*setup)) node {
	t.Helper()
	k := clock.New(nil)
	runs := &bytesRuns{of: new(owner.Owner), load: load}
	log := &eventCounts{by: make(map[string]int)}
	s := setup{owner.Config{
		Namespace: "n", OwnedBytes: 1 << 20, ValueLimit: 1 << 10, InvalidateTimeout: time.Second, Logger: slog.New(log),
		Freshness: owner.Contract{TTL: time.Minute, StaleIfError: time.Minute, ErrorTTL: time.Second, NegativeTTL: time.Second, NearTTL: time.Second},
		Origin:    owner.OriginRules{Timeout: 10 * time.Second, Retry: owner.RetryRules{Most: 2, Backoff: time.Millisecond}},
		Clock:     k, Share: func() (int, int) { return 2, 1 }, Values: runs, Near: noNear{}, Calls: noNear{}, Errors: plainErrors{}, OnDrain: func() {},
	}, governor.Limits{
		Concurrency: 2, MinConcurrency: 1, Burst: 1, Queue: 100, QueueInterval: -1, QueueTarget: time.Millisecond,
		Breaker: governor.BreakerRules{Failures: 0.5, Minimum: 1000, Window: time.Minute, Pause: time.Second, Probes: 1}, RetryBudget: 1,
	}}
	if change != nil {
		change(&s)
	}
	c := node{runs.of, log}
	s.Permits.Timeout = s.Origin.Timeout
	s.Governor = governor.New(s.Permits, s.Clock.Now, s.Share)
	c.Init(s.Config)
	c.Governor.Open()
	c.Start(c.Withhold())
	t.Cleanup(func() {
		c.Life.Close()
		c.Cancel()
		if err := c.Life.Wait(background); err != nil {
			t.Error(err)
		}
		c.Governor.Close()
		c.Owned.Close()
	})
	return c
}

// find reads a key as the owner answers it. maxAge is owner.AnyAge, or the age that the read accepts.
func (c node) find(ctx context.Context, key string, maxAge time.Duration) (owner.Found, error) {
	return c.GetOwnedFor(ctx, &owner.Lookup{Key: key, Hash: ring.Hash(key), MaxAge: maxAge})
}

// read reads a key as the owner answers it.
func (c node) read(ctx context.Context, key string) (string, error) {
	f, err := c.GetOwnedFor(ctx, &owner.Lookup{Key: key, Hash: ring.Hash(key), MaxAge: owner.AnyAge})
	if err != nil {
		return "", err
	}
	if f.E.Flags&store.NotFound != 0 {
		return "", owner.ErrNotFound
	}
	return string(f.E.Value), nil
}

// invalidate applies an invalidation of a key.
func (c node) invalidate(key string) {
	c.Journal.Begin(background, nil, 0, journal.Part{Scope: codec.ScopeKeys, Names: []string{key}})
}

// partOf is an invalidation of one key.
func partOf(key string) journal.Part {
	return journal.Part{Scope: codec.ScopeKeys, Names: []string{key}}
}
