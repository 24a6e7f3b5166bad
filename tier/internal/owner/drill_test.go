package owner_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// drilled reads a key as a read that a drill has picked.
func (c node) drilled(ctx context.Context, key string, maxAge time.Duration) (owner.Found, error) {
	return c.GetOwnedFor(ctx, &owner.Lookup{Key: key, Hash: ring.Hash(key), MaxAge: maxAge, Flags: codec.FlagDrill})
}

// A drilled read loads its key although there is a copy, and gets the copy if the load fails or takes too long.
func TestRefill(t *testing.T) {
	for name, x := range map[string]struct {
		takes  time.Duration
		err    error
		plant  *store.Entry
		maxAge time.Duration
		limit  time.Duration // of the caller; 0: none
		want   string
		late   bool
		after  time.Duration
		cause  placement.Cause
	}{
		"loaded":                     {takes: time.Second, want: "new", after: time.Second, maxAge: owner.AnyAge, cause: placement.Drill},
		"the load fails":             {takes: time.Second, err: errOrigin, want: "old", after: time.Second, maxAge: owner.AnyAge, cause: placement.Drill},
		"the copy expires meanwhile": {takes: 2 * time.Second, err: errOrigin, want: "old", late: true, plant: &store.Entry{Soft: 2 * second, SWR: 9 * second, Hard: 9 * second}, after: 2 * time.Second, maxAge: owner.AnyAge, cause: placement.Drill},
		"half of the caller's time":  {takes: 9 * time.Second, limit: 4 * time.Second, want: "old", after: 2 * time.Second, maxAge: owner.AnyAge, cause: placement.Drill},
		"the load hangs":             {takes: time.Hour, want: "old", after: 10 * time.Second, maxAge: owner.AnyAge, cause: placement.Drill},
		"a failure is remembered":    {takes: time.Second, plant: &store.Entry{Flags: store.Failed, Soft: 60 * second, Hard: 60 * second, Rare: &store.Rare{Err: errRemembered}}, want: errRemembered.Error(), maxAge: owner.AnyAge},
		"no copy":                    {takes: time.Second, plant: &store.Entry{}, want: "new", after: time.Second, maxAge: owner.AnyAge, cause: placement.Expired},
		"a read of a certain age":    {takes: time.Second, want: "old", maxAge: time.Hour},
		"a read of age 0":            {takes: time.Second, want: "old"},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
					if err := owner.Sleep(ctx, x.takes); err != nil {
						return nil, err
					}
					return []byte("new"), x.err
				}, nil)
				e := store.Entry{Soft: 60 * second, SWR: 60 * second, Hard: 60 * second}
				if x.plant != nil {
					e = *x.plant
				}
				e.Value = []byte("old")
				c.plant("k", e)
				ctx, began := background, time.Now()
				if x.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, x.limit)
					defer cancel()
				}
				f, err := c.drilled(ctx, "k", x.maxAge)
				got := ""
				if got = fmt.Sprint(err); err == nil {
					got = string(f.E.Value)
				}
				if got != x.want || time.Since(began) != x.after || f.Late != x.late || f.Filled != (x.want == "new") {
					t.Errorf("%q, %+v after %v", got, f, time.Since(began))
				}
				if n := c.Stats.Loads(); x.after > 0 && (n != 1 || c.Stats.Fills[x.cause].Load() != 1) || x.after == 0 && n != 0 {
					t.Errorf("%d loads", n)
				}
			})
		})
	}
}

// A drilled read without permits to spare gets the copy when twice the origin's time and a second are over.
func TestRefillWithoutPermits(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) { <-hang; return []byte("new"), nil }, func(s *setup) {
			s.Permits.Concurrency, s.Share = 9, func() (int, int) { return 9, 1 }
		})
		for range owner.MaxRunning {
			if _, err := c.read(background, "k"); !errors.Is(err, owner.ErrTimeout) {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		c.plant("k", store.Entry{Value: []byte("old"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
		began := time.Now()
		if f, err := c.drilled(background, "k", owner.AnyAge); err != nil || string(f.E.Value) != "old" || time.Since(began) != 10*time.Second {
			t.Errorf("%+v, %v after %v", f.E, err, time.Since(began))
		}
		close(hang)
		synctest.Wait()
	})
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, constant, nil)
		c.plant("k", store.Entry{Value: []byte("old"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
		c.Life.Close()
		if _, err := c.drilled(background, "k", owner.AnyAge); err != owner.ErrClosed {
			t.Error(err)
		}
	})
	simtime.Test(t, func(t *testing.T) { // a load that waits for the read is not made to wait twice
		c := alone(t, constant, nil)
		c.plant("k", store.Entry{Value: []byte("old"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
		f, err := c.GetOwnedFor(background, &owner.Lookup{Key: "k", Hash: ring.Hash("k"), MaxAge: owner.AnyAge, Flags: codec.FlagDrill, Chain: []uint64{1}})
		if err != nil || string(f.E.Value) != "old" {
			t.Errorf("%+v, %v", f.E, err)
		}
	})
}

// A drill picks its fraction of the reads, none once it has ended, and ends when the breaker is open.
func TestPickDrill(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) {
			if fails.Load() {
				return nil, errOrigin
			}
			return nil, nil
		}, func(s *setup) { s.Seed, s.Permits.Breaker.Minimum = 1, 1 })
		if c.PickDrill() != nil || c.Watch.Load() != owner.WatchSome || owner.FlagOf(nil) != 0 {
			t.Error("there is no drill")
		}
		d := owner.NewDrill(0.25)
		c.SetDrill(d)
		if c.Watch.Load() != math.MaxUint64 || owner.FlagOf(d) != codec.FlagDrill || owner.WatchSome > math.MaxUint64/2 {
			t.Error("near hits are not inspected during a drill")
		}
		picked := int64(0)
		for range 1000 {
			if c.PickDrill() == d {
				picked++
			}
		}
		if picked < 200 || picked > 300 || d.Drilled.Load() != picked {
			t.Errorf("%d of 1000 are picked", picked)
		}
		all := owner.NewDrill(1)
		c.SetDrill(all)
		if c.PickDrill() != all {
			t.Error("a drill of all reads does not pick one")
		}
		fails.Store(true)
		_, _ = c.read(background, "k")
		synctest.Wait()
		if c.PickDrill() != nil || all.Why != "breaker" || !all.Ended() {
			t.Errorf("with an open breaker: %q", all.Why)
		}
		all.End("other")
		if c.PickDrill() != nil || all.Why != "breaker" {
			t.Errorf("the first reason counts, not %q", all.Why)
		}
		c.SetDrill(nil)
		if c.Watch.Load() != owner.WatchSome {
			t.Error("near hits are inspected after a drill")
		}
	})
}

// A drill ends when more than a tenth of its loads fail, after at least twenty of them. Other loads do not count.
func TestDrillErrors(t *testing.T) {
	for name, x := range map[string]struct {
		loads, every int // which load fails: each of so many
		ended        bool
	}{
		"too few":           {19, 1, false},
		"enough":            {20, 1, true},
		"a tenth":           {40, 10, false},
		"more than a tenth": {20, 5, true},
	} {
		simtime.Test(t, func(t *testing.T) {
			var n atomic.Int64
			c := alone(t, func(context.Context, *owner.Run, string) ([]byte, error) {
				if n.Add(1)%int64(x.every) == 0 {
					return nil, errOrigin
				}
				return []byte("v"), nil
			}, func(s *setup) { s.Permits.Breaker.Failures = -1 })
			d := owner.NewDrill(1)
			c.SetDrill(d)
			for i := range x.loads {
				key := fmt.Sprint(i)
				c.plant(key, store.Entry{Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
				if _, err := c.drilled(background, key, owner.AnyAge); err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
			_, _ = c.read(background, "other")
			if d.Ended() != x.ended || x.ended && d.Why != "errors" || d.Loads.Load() != int64(x.loads) || d.Errors.Load() != int64(x.loads/x.every) {
				t.Errorf("%s: ended %v, %q, %d loads, %d errors", name, d.Ended(), d.Why, d.Loads.Load(), d.Errors.Load())
			}
		})
	}
}

// A drill counts how its reads end and keeps a sample of how long they waited, and the longest wait of all.
func TestCountDrilled(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, constant, func(s *setup) { s.Seed = 1 })
		time.Sleep(time.Minute)
		d, now := owner.NewDrill(1), c.Clock.Now()
		c.CountDrilled(d, true, nil, now-3*second)
		c.CountDrilled(d, false, nil, now-1*second)
		c.CountDrilled(d, true, owner.ErrNotFound, now-2*second)
		c.CountDrilled(d, true, errOrigin, now)
		waits, longest := d.SortedWaits()
		if fmt.Sprint(waits) != "[0s 1s 2s 3s]" || longest != 3*time.Second || d.Filled.Load() != 2 || d.Spared.Load() != 1 || d.Failed.Load() != 1 {
			t.Errorf("%v, %v; %d filled, %d spared, %d failed", waits, longest, d.Filled.Load(), d.Spared.Load(), d.Failed.Load())
		}
		const kept = 4096
		for i := range 3*kept - 4 {
			c.CountDrilled(d, true, nil, now-int64(i))
		}
		waits, longest = d.SortedWaits()
		late := 0
		for _, w := range waits {
			if w >= 2*kept && w < 3*kept {
				late++
			}
		}
		if len(waits) != kept || longest != 3*time.Second || late < kept/3-200 || late > kept/3+200 {
			t.Errorf("%d waits, the longest %v, %d from the last third", len(waits), longest, late)
		}
	})
}

// A drill has a fraction above 0 and at most 1, and a duration above 0 and at most the longest.
func TestCheckDrill(t *testing.T) {
	for _, x := range []struct {
		fraction float64
		duration time.Duration
		ok       bool
	}{
		{1, 9, true}, {1e-9, 1, true}, {0, 5, false}, {-1, 5, false}, {1.01, 5, false}, {math.NaN(), 5, false},
		{1, 0, false}, {1, -1, false}, {1, 10, false},
	} {
		if err := owner.CheckDrill(x.fraction, x.duration, 9); (err == nil) != x.ok {
			t.Errorf("%+v: %v", x, err)
		}
	}
}
