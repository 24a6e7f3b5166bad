package owner_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

const second = int64(time.Second)

// plant puts an entry into the owned tier whose times count from now.
func (c node) plant(key string, e store.Entry) *store.Entry {
	now := c.Clock.Now()
	e.Stamp = c.Fences.Stamp(ring.Hash(key))
	e.Loaded, e.Soft, e.SWR, e.Hard = e.Loaded+now, e.Soft+now, e.SWR+now, e.Hard+now
	if e.Rare != nil && e.Rare.Retry > 0 {
		rare := *e.Rare
		rare.Retry += now
		e.Rare = &rare
	}
	c.Owned.Set(key, &e)
	return &e
}

var errRemembered = errors.New("remembered")

// What the owner answers with the copy that it has, and when it loads: at once with a fresh copy, with a stale one while it
// refreshes it, and otherwise after a load.
func TestReadsOfACopy(t *testing.T) {
	stale := store.Entry{Loaded: -60 * second, Soft: 0, SWR: 10 * second, Hard: 20 * second}
	failed := store.Entry{Flags: store.Failed, Hard: second, Soft: second, SWR: second, Rare: &store.Rare{Err: errRemembered}}
	late := func(e store.Entry) store.Entry {
		e.Rare = &store.Rare{Retry: second, Why: store.StaleShed}
		return e
	}
	shifted := func(e store.Entry, by int64) store.Entry {
		e.Loaded, e.Soft, e.SWR, e.Hard = e.Loaded+by, e.Soft+by, e.SWR+by, e.Hard+by
		return e
	}
	replica := func(e store.Entry) store.Entry {
		e.Replica = true
		return e
	}
	for name, x := range map[string]struct {
		e      store.Entry
		maxAge time.Duration
		flags  uint8
		want   string // "old": the copy; "new": a value that is loaded; otherwise the error
		cached string // the same for a read that wants no fill
		late   bool
		loads  [placement.Causes]int64
	}{
		"fresh":                              {e: shifted(stale, 1), maxAge: owner.AnyAge, want: "old", cached: "old"},
		"stale":                              {e: stale, maxAge: owner.AnyAge, want: "old", cached: "old", loads: [placement.Causes]int64{placement.Expired: 1}},
		"at the end of its stale time":       {e: shifted(stale, -10*second), maxAge: owner.AnyAge, want: "new", loads: [placement.Causes]int64{placement.Expired: 1}},
		"stale, refill failed":               {e: late(stale), maxAge: owner.AnyAge, want: "old", cached: "old", late: true},
		"past its hard expiry":               {e: shifted(stale, -20*second), maxAge: owner.AnyAge, want: "new", loads: [placement.Causes]int64{placement.Expired: 1}},
		"past it, refill failed":             {e: late(shifted(stale, -20*second)), maxAge: owner.AnyAge, want: "new", loads: [placement.Causes]int64{placement.Expired: 1}},
		"within its hard expiry":             {e: late(shifted(stale, 1-20*second)), maxAge: owner.AnyAge, want: "old", cached: "old", late: true},
		"within the age":                     {e: shifted(stale, second), maxAge: 59 * time.Second, want: "old", cached: "old"},
		"beyond the age":                     {e: shifted(stale, second-1), maxAge: 59 * time.Second, want: "new", loads: [placement.Causes]int64{placement.Expired: 1}},
		"age 0, fresh":                       {e: shifted(stale, 1), want: "old", cached: "old"},
		"age 0, stale":                       {e: stale, want: "new", loads: [placement.Causes]int64{placement.Expired: 1}},
		"a failure":                          {e: failed, maxAge: owner.AnyAge, want: errRemembered.Error()},
		"a failure, refreshed":               {e: failed, maxAge: store.RefreshAge, want: "new", loads: [placement.Causes]int64{placement.Expired: 1}},
		"not found":                          {e: store.Entry{Flags: store.NotFound, Soft: second, SWR: second, Hard: second}, maxAge: owner.AnyAge, want: owner.ErrNotFound.Error(), cached: owner.ErrNotFound.Error()},
		"a replica":                          {e: replica(shifted(stale, 1)), maxAge: owner.AnyAge, want: "old", cached: "old"},
		"a replica, for a stand-in":          {e: replica(shifted(stale, 1)), maxAge: owner.AnyAge, flags: codec.FlagSuccessor, want: "old", cached: "old"},
		"a replica, age 0":                   {e: replica(shifted(stale, 1)), want: "old", cached: "old"},
		"a replica, for a stand-in, age 0":   {e: replica(shifted(stale, 1)), flags: codec.FlagSuccessor, want: "new", loads: [placement.Causes]int64{placement.Expired: 1}},
		"the owner's, for a stand-in, age 0": {e: shifted(stale, 1), flags: codec.FlagSuccessor, want: "old", cached: "old"},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var n atomic.Int64
				c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) {
					n.Add(1)
					return []byte("new"), nil
				}, nil)
				time.Sleep(2 * time.Minute)
				e := x.e
				if e.Flags == 0 {
					e.Value = []byte("old")
				}
				c.plant("k", e)
				l := owner.Lookup{Key: "k", Hash: ring.Hash("k"), MaxAge: x.maxAge, Flags: x.flags | codec.FlagNoFill}
				if x.cached == "" {
					x.cached = owner.ErrNotCached.Error()
				}
				check := func(f owner.Found, err error, want string) {
					t.Helper()
					got := ""
					switch {
					case err != nil:
						got = err.Error()
					case f.E.Flags&store.NotFound != 0:
						got = owner.ErrNotFound.Error()
					default:
						got = string(f.E.Value)
					}
					if got != want || f.Late != (x.late && err == nil) || f.Late && f.Why != store.StaleShed || f.Filled != (want == "new") {
						t.Errorf("%q, %+v; want %q", got, f, want)
					}
				}
				f, err := c.GetOwnedFor(background, &l)
				check(f, err, x.cached)
				synctest.Wait()
				if n.Load() != 0 {
					t.Errorf("a read that wants no fill has loaded")
				}
				l.Flags = x.flags
				f, err = c.GetOwnedFor(background, &l)
				check(f, err, x.want)
				synctest.Wait()
				var got [placement.Causes]int64
				for i := range got {
					got[i] = c.Stats.Fills[i].Load()
				}
				if got != x.loads {
					t.Errorf("loads by cause: %v, want %v", got, x.loads)
				}
			})
		})
	}
}

// Why a load was needed, as far as this node knows.
func TestCauses(t *testing.T) {
	for name, x := range map[string]struct {
		prepare func(c node)
		flags   uint8
		want    placement.Cause
	}{
		"never loaded":         {func(node) {}, 0, placement.Cold},
		"for a stand-in":       {func(node) {}, codec.FlagSuccessor, placement.OwnerLost},
		"past its hard expiry": {func(c node) { c.plant("k", store.Entry{}) }, 0, placement.Expired},
		"invalidated":          {func(c node) { c.plant("k", store.Entry{Hard: second}); c.invalidate("k") }, 0, placement.Fenced},
		"invalidated by its tag": {func(c node) {
			c.plant("k", store.Entry{Hard: second, Tags: fence.TagsAt([]uint32{fence.TagHash("t")}, c.Fences.TagClock())})
			c.invalidateTag("t")
		}, 0, placement.Fenced},
		"isolated": {func(c node) { c.Isolation.Cut.Store(true) }, 0, placement.CutOff},
		"evicted": {func(c node) {
			c.plant("k", store.Entry{Hard: second})
			for i := range 30 {
				c.plant(keyNo(i), store.Entry{Value: make([]byte, 100<<10), Hard: second})
			}
		}, 0, placement.Evicted},
		"a failure was evicted": {func(c node) {
			c.plant("k", store.Entry{Hard: second, Flags: store.Failed})
			for i := range 30 {
				c.plant(keyNo(i), store.Entry{Value: make([]byte, 100<<10), Hard: second})
			}
		}, 0, placement.Cold},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, constant, nil)
				x.prepare(c)
				_, err := c.GetOwnedFor(background, &owner.Lookup{Key: "k", Hash: ring.Hash("k"), MaxAge: owner.AnyAge, Flags: x.flags})
				if err != nil || c.Stats.Fills[x.want].Load() != 1 || c.Stats.Loads() != 1 {
					t.Errorf("%v; loads by cause %s: %d of %d", err, placement.CauseNames[x.want], c.Stats.Fills[x.want].Load(), c.Stats.Loads())
				}
			})
		})
	}
}

func keyNo(i int) string { return string(rune('A'+i)) + "-filler" }

// invalidateTag applies an invalidation of a tag.
func (c node) invalidateTag(tag string) {
	c.Journal.Begin(background, nil, 0, journal.Part{Scope: codec.ScopeTags, Names: []string{tag}})
}

// A fill that waits for itself, and one that too many others wait for, is an error; one below the limit is loaded.
func TestCycle(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := node{}
		c = alone(t, func(ctx context.Context, _ *owner.Run, key string) ([]byte, error) {
			if key == "self" {
				_, err := c.GetOwnedFor(ctx, &owner.Lookup{Key: key, Hash: ring.Hash(key), MaxAge: owner.AnyAge, Chain: governor.ChainOf(ctx)})
				return nil, err
			}
			return []byte(key), nil
		}, nil)
		if _, err := c.read(background, "self"); !errors.Is(err, owner.ErrCycle) {
			t.Error(err)
		}
		for n, want := range map[int]error{codec.MaxChain: owner.ErrCycle, codec.MaxChain - 1: nil} {
			chain := make([]uint64, n)
			_, err := c.GetOwnedFor(background, &owner.Lookup{Key: "k", Hash: ring.Hash("k"), MaxAge: owner.AnyAge, Chain: chain})
			if !errors.Is(err, want) {
				t.Errorf("a chain of %d: %v", n, err)
			}
			w := owner.OwnedRead{Key: "other", Hash: ring.Hash("other")}
			if done := c.LookUp(&w, chain, c.Clock.Now()); done != (want != nil) || !errors.Is(w.Err, want) {
				t.Errorf("a chain of %d in a multi-get: %v", n, w.Err)
			}
		}
	})
}

// A load gives its permit back while it reads another key, and has it again afterwards. Its time ends the nested read.
func TestNestedReads(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := node{}
		hang := make(chan struct{})
		var during, after int
		c = alone(t, func(ctx context.Context, _ *owner.Run, key string) ([]byte, error) {
			switch key {
			case "inner":
				during = c.Governor.Running()
				return []byte("v"), nil
			case "hangs":
				<-hang
				return []byte("w"), nil
			}
			inner := key[len("outer of "):]
			f, err := c.GetOwnedFor(ctx, &owner.Lookup{Key: inner, Hash: ring.Hash(inner), MaxAge: owner.AnyAge, Chain: governor.ChainOf(ctx)})
			after = c.Governor.Running()
			if err != nil {
				return nil, err
			}
			return f.E.Value, nil
		}, func(s *setup) { s.Permits.Concurrency, s.Share = 1, func() (int, int) { return 1, 1 } })
		if v, err := c.read(background, "outer of inner"); v != "v" || err != nil || during != 1 || after != 1 {
			t.Errorf("%q, %v; %d permits within, %d after", v, err, during, after)
		}
		if _, err := c.read(background, "outer of hangs"); !errors.Is(err, owner.ErrTimeout) {
			t.Error(err)
		}
		close(hang)
	})
}

// A caller that gives up does not affect the others, and a load whose callers have all given up is counted.
func TestCallersThatLeave(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var n atomic.Int64
		c := alone(t, numbered(&n), nil)
		short, cancel := context.WithTimeout(background, 300*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		gone := func(key string) {
			wg.Go(func() {
				if _, err := c.read(short, key); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		gone("k")
		gone("k")
		gone("doomed")
		if v, err := c.read(background, "k"); v == "" || err != nil {
			t.Error(v, err)
		}
		wg.Wait()
		synctest.Wait()
		if c.Stats.Left.Load() != 3 || c.Stats.Doomed.Load() != 1 || c.Stats.Served.Load() != 1 {
			t.Errorf("%d have left, %d loads for none, %d served", c.Stats.Left.Load(), c.Stats.Doomed.Load(), c.Stats.Served.Load())
		}
		if v, err := c.read(background, "doomed"); v == "" || err != nil || n.Load() != 2 {
			t.Errorf("%q, %v after %d loads: what all have left is kept", v, err, n.Load())
		}
	})
}

// A read that joins a flight gets its value if the load began after the read, or not longer ago than the read accepts.
func TestJoinedFlightIsTooOld(t *testing.T) {
	for name, x := range map[string]struct {
		maxAge time.Duration
		want   string
	}{
		"any age":          {owner.AnyAge, "k1"},
		"age 0":            {0, "k1"},
		"old enough":       {500 * time.Millisecond, "k2"},
		"the load's age":   {time.Second, "k1"},
		"just below that":  {time.Second - 1, "k2"},
		"only a later one": {store.RefreshAge, "k2"},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var n atomic.Int64
				c := alone(t, numbered(&n), nil)
				time.Sleep(2 * time.Minute)
				var wg sync.WaitGroup
				wg.Go(func() { _, _ = c.read(background, "k") })
				time.Sleep(400 * time.Millisecond)
				f, err := c.find(background, "k", x.maxAge)
				if err != nil || string(f.E.Value) != x.want {
					t.Errorf("%+v, %v", f, err)
				}
				wg.Wait()
				if n.Load() != int64(x.want[1]-'0') {
					t.Errorf("%d loads", n.Load())
				}
				f, err = c.find(background, "alone", store.RefreshAge)
				if err != nil || n.Load() != int64(x.want[1]-'0')+1 {
					t.Errorf("a read whose load takes longer than the age: %v after %d loads", err, n.Load())
				}
			})
		})
	}
}

// A caller that waits for its SoftTimeout does not get what the flight brings if a tag of that was invalidated before the
// caller came, although it hears of both at once.
func TestTagNamedAtTheEnd(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var n atomic.Int64
		c := alone(t, func(ctx context.Context, r *owner.Run, key string) ([]byte, error) {
			v, err := numbered(&n)(ctx, r, "")
			r.AddTag(fence.TagHash("t"))
			return v, err
		}, func(s *setup) { s.Freshness.SoftTimeout = 5 * time.Second })
		for i := range 20 { // a select that finds both ready picks one
			key := keyNo(i)
			n.Store(0)
			c.plant(key, store.Entry{Value: []byte("old"), Hard: 60 * second})
			var wg sync.WaitGroup
			wg.Go(func() {
				if v, err := c.read(background, key); v != "1" || err != nil {
					t.Errorf("before the invalidation: %q, %v", v, err)
				}
			})
			time.Sleep(500 * time.Millisecond)
			c.invalidateTag("t")
			if v, err := c.read(background, key); v != "2" || err != nil {
				t.Errorf("after the invalidation: %q, %v", v, err)
			}
			wg.Wait()
		}
	})
}

// A failed load is answered with the copy only if the read accepts its age.
func TestRescueByAge(t *testing.T) {
	for name, x := range map[string]struct {
		maxAge  time.Duration
		rescued bool
	}{
		"any age": {owner.AnyAge, true}, "age 0": {0, false}, "its age": {90 * time.Second, true}, "below its age": {90*time.Second - 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
					_ = owner.Sleep(ctx, time.Second)
					return nil, errors.New("down")
				}, nil)
				time.Sleep(2 * time.Minute)
				c.plant("k", store.Entry{Value: []byte("old"), Loaded: -89 * second, Soft: -second, SWR: -second, Hard: 60 * second})
				var wg sync.WaitGroup
				wg.Go(func() { _, _ = c.read(background, "k") })
				f, err := c.find(background, "k", x.maxAge)
				wg.Wait()
				if rescued := err == nil; rescued != x.rescued || rescued && (!f.Late || f.Why != store.StaleError || string(f.E.Value) != "old") {
					t.Errorf("%+v, %v", f, err)
				}
			})
		})
	}
}

// An isolated node does what WhenIsolated says. A load that it makes is for the callers that came before it alone.
func TestIsolatedReads(t *testing.T) {
	for name, x := range map[string]struct {
		then  owner.WhenIsolated
		flags uint8
		want  error
		loads int64
	}{
		"fails":                       {owner.IsolatedFails, 0, owner.ErrIsolated, 0},
		"fails, no fill":              {owner.IsolatedFails, codec.FlagNoFill, owner.ErrIsolated, 0},
		"reads the origin":            {owner.IsolatedBypasses, 0, nil, 1},
		"does not do so without fill": {owner.IsolatedBypasses, codec.FlagNoFill, owner.ErrNotCached, 0},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, constant, func(s *setup) { s.WhenIsolated = x.then })
				c.plant("k", store.Entry{Value: []byte("old"), Soft: second, SWR: second, Hard: second})
				c.Isolation.Cut.Store(true)
				f, err := c.GetOwnedFor(background, &owner.Lookup{Key: "k", Hash: ring.Hash("k"), MaxAge: owner.AnyAge, Flags: x.flags})
				if !errors.Is(err, x.want) || err == nil && string(f.E.Value) != "k" || c.Stats.Loads() != x.loads {
					t.Errorf("%+v, %v, %d loads", f, err, c.Stats.Loads())
				}
			})
		})
	}
}
