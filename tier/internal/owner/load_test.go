package owner_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

var errOrigin = errors.New("down")

// What a load returns decides what is stored, for how long, and what is counted.
func TestWhatALoadStores(t *testing.T) {
	const took = time.Second
	tag := fence.TagHash("t")
	old := store.Entry{Value: []byte("old"), Version: 5, Hard: 100 * second}
	for name, x := range map[string]struct {
		old       *store.Entry
		maxTTL    time.Duration
		version   uint64 // that an invalidation names first
		load      func(r *owner.Run) error
		want      error
		value     string
		soft      time.Duration // from the start of the load; 0: nothing is stored
		hard      time.Duration
		version2  uint64
		tags      []uint32
		result    counters.Result
		life      time.Duration // that the journal has heard of
		fenced    bool          // while it loads
		tagFenced bool
	}{
		"a value":                 {value: "new", soft: time.Minute, hard: 2 * time.Minute, result: counters.ResultOK},
		"its own TTL":             {load: func(r *owner.Run) error { r.TTL = 2 * took; return nil }, value: "new", soft: 2 * took, hard: 2*took + time.Minute, result: counters.ResultOK},
		"a long TTL of its own":   {maxTTL: time.Hour, load: func(r *owner.Run) error { r.TTL = time.Hour; return nil }, value: "new", soft: time.Hour, hard: time.Hour + time.Minute, result: counters.ResultOK, life: time.Hour + time.Minute},
		"a TTL beyond the most":   {maxTTL: time.Hour, load: func(r *owner.Run) error { r.TTL = time.Hour + 1; return nil }, want: owner.ErrTTLTooLong, result: counters.ResultError},
		"not found, any TTL":      {maxTTL: time.Hour, load: func(r *owner.Run) error { r.TTL = 2 * time.Hour; return owner.ErrNotFound }, want: owner.ErrNotFound, soft: 3 * took, hard: 3 * took, result: counters.ResultNotFound},
		"for the callers alone":   {old: &old, load: func(r *owner.Run) error { r.Drop, r.TTL = true, 9*time.Minute; return nil }, value: "new", result: counters.ResultOK},
		"outlived by its load":    {load: func(r *owner.Run) error { r.TTL, r.Stale = took, &owner.Staleness{}; return nil }, value: "new", result: counters.ResultOK},
		"just not outlived":       {load: func(r *owner.Run) error { r.TTL, r.Stale = took+1, &owner.Staleness{}; return nil }, value: "new", soft: took + 1, hard: took + 1, result: counters.ResultOK},
		"less staleness":          {load: func(r *owner.Run) error { r.Stale = &owner.Staleness{IfError: time.Second}; return nil }, value: "new", soft: time.Minute, hard: time.Minute + time.Second, result: counters.ResultOK},
		"tagged":                  {load: func(r *owner.Run) error { r.AddTag(tag); r.AddTag(tag); return nil }, value: "new", soft: time.Minute, hard: 2 * time.Minute, tags: []uint32{tag}, result: counters.ResultOK},
		"its version":             {load: func(r *owner.Run) error { r.Version = 9; return nil }, value: "new", soft: time.Minute, hard: 2 * time.Minute, version2: 9, result: counters.ResultOK},
		"the version named":       {version: 9, load: func(r *owner.Run) error { r.Version = 9; return nil }, value: "new", soft: time.Minute, hard: 2 * time.Minute, version2: 9, result: counters.ResultOK},
		"behind that version":     {version: 9, load: func(r *owner.Run) error { r.Version = 8; return nil }, value: "new", result: counters.ResultBehind},
		"the copy it has":         {old: &old, load: func(r *owner.Run) error { r.Keep = true; return nil }, value: "old", soft: time.Minute, hard: 2 * time.Minute, version2: 5, tags: nil, result: counters.ResultOK},
		"the copy, a new version": {old: &old, load: func(r *owner.Run) error { r.Keep, r.Version = true, 6; return nil }, value: "old", soft: time.Minute, hard: 2 * time.Minute, version2: 6, result: counters.ResultOK},
		"fenced":                  {fenced: true, value: "new", result: counters.ResultFenced},
		"fenced by a tag":         {tagFenced: true, load: func(r *owner.Run) error { r.AddTag(tag); return nil }, value: "new", result: counters.ResultFenced},
		"a bad tag":               {load: func(r *owner.Run) error { r.TagErr = owner.ErrBadTag; return nil }, want: owner.ErrBadTag, result: counters.ResultError},
		"too many tags": {load: func(r *owner.Run) error {
			for i := range uint32(codec.MaxTags + 1) {
				r.AddTag(i)
			}
			return nil
		}, want: owner.ErrBadTag, result: counters.ResultError},
		"an error":                {load: func(*owner.Run) error { return errOrigin }, want: errOrigin, result: counters.ResultError},
		"an overload of another":  {load: func(*owner.Run) error { return owner.ErrOverloaded }, want: owner.ErrOverloaded, result: counters.ResultError},
		"a deadline that is over": {load: func(*owner.Run) error { return context.DeadlineExceeded }, want: context.DeadlineExceeded, result: counters.ResultError},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, func(ctx context.Context, r *owner.Run, _ string) ([]byte, error) {
					_ = owner.Sleep(ctx, took)
					if x.load != nil {
						return []byte("new"), x.load(r)
					}
					return []byte("new"), nil
				}, func(s *setup) {
					s.Freshness.MaxTTL, s.Freshness.ErrorTTL, s.Freshness.NegativeTTL = x.maxTTL, 0, 3*took
				})
				time.Sleep(time.Minute)
				life := c.Journal.LongestLife()
				if x.version != 0 {
					c.Journal.Begin(background, nil, x.version, journal.Part{Scope: codec.ScopeKeys, Names: []string{"k"}})
				}
				if x.old != nil {
					c.plant("k", *x.old)
				}
				began := c.Clock.Now()
				time.AfterFunc(took/2, func() {
					if x.fenced {
						c.invalidate("k")
					}
					if x.tagFenced {
						c.invalidateTag("t")
					}
				})
				v, err := c.read(background, "k")
				if !errors.Is(err, x.want) || v != x.value {
					t.Errorf("%q, %v; want %q, %v", v, err, x.value, x.want)
				}
				for i := range counters.Results {
					if got, also := c.Stats.Results[i].Load(), x.result >= counters.ResultFenced && i == counters.ResultOK; (i == x.result || also) != (got == 1) {
						t.Errorf("%s: %d", counters.ResultNames[i], got)
					}
				}
				if got := c.Stats.Nanos.Load(); got != int64(took) {
					t.Errorf("the loads took %v", time.Duration(got))
				}
				if x.life == 0 {
					x.life = life
				}
				if got := c.Journal.LongestLife(); got != x.life {
					t.Errorf("the longest life is %v, want %v", got, x.life)
				}
				e, ok := c.Owned.Get("k")
				if ok != (x.soft != 0) {
					t.Fatalf("stored: %+v", e)
				}
				if ok && (e.Loaded != began || e.Soft != began+int64(x.soft) || e.SWR != e.Soft || e.Hard != began+int64(x.hard) || e.Cost != took ||
					e.Version != x.version2 || !slices.Equal(e.Tags.List(), x.tags) || (e.Etag == 0) != (x.want != nil) || (e.Flags != 0) != (x.want != nil) || string(e.Value) != x.value) {
					t.Errorf("stored: %+v", e)
				}
			})
		})
	}
}

// The copy that a loader keeps keeps its tags, and an invalidation of one of them during the load covers it.
func TestKeptTags(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		tag := fence.TagHash("t")
		var n atomic.Int64
		c := alone(t, func(ctx context.Context, r *owner.Run, _ string) ([]byte, error) {
			if err := owner.Sleep(ctx, time.Second); n.Add(1) > 1 && r.Prev == nil {
				return []byte("new"), err
			}
			r.Keep = true
			return nil, nil
		}, nil)
		tagged := store.Entry{Value: []byte("old"), Hard: 60 * second, Tags: fence.TagsAt([]uint32{tag}, c.Fences.TagClock())}
		c.plant("k", tagged)
		if v, err := c.read(background, "k"); v != "old" || err != nil {
			t.Fatal(v, err)
		}
		e, _ := c.Owned.Get("k")
		if !slices.Equal(e.Tags.List(), []uint32{tag}) {
			t.Errorf("tags %v", e.Tags.List())
		}
		c.plant("k", tagged)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.read(background, "k") })
		time.Sleep(time.Second / 2)
		c.invalidateTag("t")
		began := time.Now()
		if v, err := c.read(background, "k"); v != "new" || err != nil || time.Since(began) != time.Second {
			t.Errorf("after the invalidation: %q, %v after %v", v, err, time.Since(began))
		}
		wg.Wait()
	})
}

// A failed load is remembered for ErrorTTL, unless that is 0. A copy delays the next attempt; a known absence does not answer.
func TestFailuresAreRemembered(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		for _, ttl := range []time.Duration{0, time.Second} {
			var n atomic.Int64
			c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) { n.Add(1); return nil, errOrigin }, func(s *setup) { s.Freshness.ErrorTTL = ttl })
			time.Sleep(time.Minute)
			for range 2 {
				_, err := c.read(background, "k")
				if member, cause, ok := (plainErrors{}).AsFailed(err); !ok || cause != errOrigin || member != "" {
					t.Error(err)
				}
			}
			if want := int64(2 - ttl/time.Second); n.Load() != want {
				t.Errorf("%d loads with an ErrorTTL of %v, want %d", n.Load(), ttl, want)
			}
			if _, ok := c.Owned.Get("k"); ok != (ttl > 0) {
				t.Errorf("remembered: %v with an ErrorTTL of %v", ok, ttl)
			}
			n.Store(0)
			time.Sleep(max(ttl, 1) - 1)
			_, _ = c.read(background, "k")
			time.Sleep(time.Nanosecond)
			_, _ = c.read(background, "k")
			if want := int64(2 - ttl/time.Second); n.Load() != want {
				t.Errorf("%d loads at the end of an ErrorTTL of %v, want %d", n.Load(), ttl, want)
			}
		}
		c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) { return nil, errOrigin }, nil)
		c.plant("absent", store.Entry{Flags: store.NotFound, Soft: 0, Hard: second})
		if f, err := c.find(background, "absent", owner.AnyAge); !errors.Is(err, errOrigin) || f.E != nil {
			t.Errorf("%+v, %v", f, err)
		}
		if e, _ := c.Owned.Get("absent"); e.Retry() == 0 {
			t.Errorf("the next attempt is not delayed: %+v", e)
		}
	})
}

// The next attempt to refresh a copy is delayed by half of d to one and a half of d, spread evenly.
func TestPostpone(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, constant, func(s *setup) { s.Seed = 1 })
		const now, d = 100 * second, second
		var low, high int
		for range 200 {
			e := c.plant("k", store.Entry{Hard: second})
			late := c.Postpone(&owner.Flight{Key: "k", Hash: ring.Hash("k")}, e, now, d, store.StaleShed)
			switch again := late.Retry(); {
			case again < now+d/2 || again >= now+3*d/2 || late.Rare.Why != store.StaleShed:
				t.Fatalf("again at %d", again-now)
			case again < now+d*3/4:
				low++
			case again >= now+d*5/4:
				high++
			}
			if got, _ := c.Owned.Get("k"); got != late || e.Rare != nil {
				t.Fatal("the copy is not replaced")
			}
			if c.Replace("k", ring.Hash("k"), e, e) {
				t.Fatal("an entry that has left the tier is replaced")
			}
		}
		if low < 30 || low > 70 || high < 30 || high > 70 {
			t.Errorf("%d in the first quarter, %d in the last", low, high)
		}
	})
}

// Two loads of one key that have not returned keep a third one from starting. It starts when one of them returns, or is
// rejected when its time is over.
func TestKeyBusy(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var n atomic.Int64
		c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) {
			if n.Add(1) <= owner.MaxRunning {
				<-hang
			}
			return []byte("v"), nil
		}, func(s *setup) {
			s.Permits.Concurrency, s.Share = 9, func() (int, int) { return 9, 1 }
			s.Freshness.ErrorTTL = 0
		})
		for range owner.MaxRunning {
			if _, err := c.read(background, "k"); !errors.Is(err, owner.ErrTimeout) {
				t.Error(err)
			}
		}
		began := time.Now()
		_, err := c.read(background, "k")
		r, ok := (plainErrors{}).AsRefused(err)
		if !ok || r.Why != governor.KeyBusy || r.RetryAfter != 10*time.Second || time.Since(began) != 10*time.Second || n.Load() != owner.MaxRunning {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if live, running := c.Flights.Size(); live != 0 || running != owner.MaxRunning || c.Stats.Shed[governor.KeyBusy].Load() != 1 {
			t.Errorf("%d live, %d running, %d rejected", live, running, c.Stats.Shed[governor.KeyBusy].Load())
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if v, err := c.read(background, "k"); v != "v" || err != nil {
					t.Error(v, err)
				}
			})
		}
		time.Sleep(time.Second)
		if live, _ := c.Flights.Size(); live != 1 || c.Governor.Running() != owner.MaxRunning {
			t.Errorf("%d live flights, %d permits: a flight that waits for its key holds one", live, c.Governor.Running())
		}
		close(hang)
		wg.Wait()
		synctest.Wait()
		if live, running := c.Flights.Size(); live != 0 || running != 0 || n.Load() != owner.MaxRunning+1 || c.Stats.Results[counters.ResultOverran].Load() != owner.MaxRunning {
			t.Errorf("%d live, %d running, %d loads", live, running, n.Load())
		}
	})
}

// A load that got no permit is answered with the copy, whose next attempt is delayed, or with the refusal.
func TestRefusedLoads(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var permits atomic.Int64
		hang := make(chan struct{})
		var n atomic.Int64
		c := alone(t, func(_ context.Context, _ *owner.Run, key string) ([]byte, error) {
			if n.Add(1); key == "hangs" {
				<-hang
			}
			return []byte("new"), nil
		}, func(s *setup) {
			s.Permits.Concurrency, s.Share = 1, func() (int, int) { return int(permits.Load()), 1 }
			s.Permits.Queue = 0
		})
		for range 2 {
			_, err := c.read(background, "k")
			if r, ok := (plainErrors{}).AsRefused(err); !ok || r.Why != governor.NoShare {
				t.Error(err)
			}
		}
		if _, ok := c.Owned.Get("k"); ok || c.Stats.Shed[governor.NoShare].Load() != 2 {
			t.Errorf("a refusal is remembered, or not counted: %d", c.Stats.Shed[governor.NoShare].Load())
		}
		c.plant("stale", store.Entry{Value: []byte("old"), Hard: 60 * second})
		for range 2 {
			if f, err := c.find(background, "stale", owner.AnyAge); err != nil || string(f.E.Value) != "old" || !f.Late || f.Why != store.StaleShed {
				t.Errorf("%+v, %v", f, err)
			}
		}
		if got := c.Stats.Shed[governor.NoShare].Load(); got != 3 {
			t.Errorf("%d rejected: the next attempt is not delayed", got)
		}
		for _, flags := range []uint8{store.NotFound, store.Failed} {
			c.plant("none", store.Entry{Flags: flags, Soft: 0, Hard: 60 * second, Rare: &store.Rare{Err: errOrigin}})
			if f, err := c.find(background, "none", store.RefreshAge); !errors.Is(err, owner.ErrOverloaded) {
				t.Errorf("%+v, %v", f, err)
			}
		}
		close(hang)
		if n.Load() != 0 {
			t.Errorf("%d loads", n.Load())
		}
	})
}

// A loader that returns when its time is over has timed out, whether it or the timer is noticed first. The origin has failed then.
func TestLoadsThatEndWithTheirTime(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, func(s *setup) { s.Permits.Breaker.Minimum = 2 })
		for i := range 2 {
			if _, err := c.read(background, fmt.Sprint(i)); !errors.Is(err, owner.ErrTimeout) {
				t.Error(err)
			}
		}
		synctest.Wait()
		if closed, _ := c.Governor.Breaker(); closed || c.log.counts()[owner.EventBreakerOpened] != 1 || c.Stats.Results[counters.ResultTimeout].Load() != 2 {
			t.Errorf("closed: %v, log %v, %d timed out", closed, c.log.counts(), c.Stats.Results[counters.ResultTimeout].Load())
		}
	})
}

// What the end of a load says about the origin: only failures count against it.
func TestOutcomes(t *testing.T) {
	for name, x := range map[string]struct {
		err    error
		failed bool
	}{
		"an error":              {errOrigin, true},
		"a retryable error":     {owner.Retryable(errOrigin), true},
		"blameless":             {owner.Blameless(errOrigin), false},
		"blameless within":      {fmt.Errorf("x: %w", owner.Retryable(owner.Blameless(errOrigin))), false},
		"not found":             {owner.ErrNotFound, false},
		"no previous value":     {owner.ErrNoPrevious, false},
		"another cache's":       {&failure{"x", errOrigin}, false},
		"another cache closed":  {owner.ErrClosed, false},
		"another cache is full": {owner.ErrOverloaded, false},
		"a cycle":               {owner.ErrCycle, false},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) { return nil, x.err }, func(s *setup) {
					s.Permits.Breaker.Minimum, s.Origin.Retry.Most = 1, 0
				})
				_, _ = c.read(background, "k")
				synctest.Wait()
				if closed, _ := c.Governor.Breaker(); closed == x.failed {
					t.Errorf("the breaker is closed: %v", closed)
				}
			})
		})
	}
}

// A load that ends because its cache closes says nothing against the origin, which other caches read.
func TestCloseIsNoFailure(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, func(s *setup) { s.Permits.Breaker.Minimum = 1 })
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.read(background, "k") })
		synctest.Wait()
		c.Life.Close()
		c.Cancel()
		wg.Wait()
		_ = c.Life.Wait(background)
		if closed, _ := c.Governor.Breaker(); !closed {
			t.Error("the breaker has opened")
		}
	})
}

// A retry waits at random up to its backoff, which doubles, and none begins that could not end in time: the caller gets the
// last error then, not a timeout. Its loads are counted one by one.
func TestBackoff(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		busy := errors.New("busy")
		var n atomic.Int64
		c := alone(t, func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
			n.Add(1)
			_ = owner.Sleep(ctx, time.Second)
			return nil, owner.Retryable(busy)
		}, func(s *setup) {
			s.Origin.Retry, s.Freshness.ErrorTTL, s.Seed = owner.RetryRules{Most: 1, Backoff: 18 * time.Second}, 0, 1
		})
		var none, some int
		for range 100 {
			before, began := n.Load(), time.Now()
			_, err := c.read(background, "k")
			switch loads := n.Load() - before; {
			case !errors.Is(err, busy) && time.Since(began) != 10*time.Second:
				t.Fatalf("%v after %v and %d loads", err, time.Since(began), loads)
			case loads == 1 && time.Since(began) == time.Second:
				none++
			default:
				some++
			}
		}
		if none < 35 || none > 65 || int64(some) != c.Stats.Retries.Load() {
			t.Errorf("%d loads had no retry, %d had one (%d)", none, some, c.Stats.Retries.Load())
		}
		synctest.Wait()
		if got := c.Stats.Nanos.Load(); got > n.Load()*second || got < n.Load()*second*9/10 {
			t.Errorf("%d loads of a second took %v", n.Load(), time.Duration(got))
		}
	})
}

// Without retries in the budget a failed load is not repeated.
func TestRetryBudget(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) { return nil, owner.Retryable(errOrigin) },
			func(s *setup) { s.Permits.RetryBudget = -1 })
		if _, err := c.read(background, "k"); !errors.Is(err, errOrigin) || c.Stats.Retries.Load() != 0 || c.Stats.NoRetry.Load() != 1 {
			t.Errorf("%v, %d retries, %d without budget", err, c.Stats.Retries.Load(), c.Stats.NoRetry.Load())
		}
	})
}
