package owner_test

import (
	"math"
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

// A fresh copy is refreshed ahead with the probability e^-(gap/(beta cost)), where gap is the time until its soft expiry.
func TestRefreshAhead(t *testing.T) {
	const reads = 1000
	for name, x := range map[string]struct {
		beta        float64
		gap         int64
		flags       uint8
		least, most int64
	}{
		"the gap is a tenth of the scale": {2, second / 10, 0, 880, 930}, // of 905
		"the gap is the scale":            {2, second, 0, 330, 410},      // of 368
		"the gap is three times that":     {2, 3 * second, 0, 30, 72},    // of 50
		"off":                             {0, 1, 0, 0, 0},
		"below 0":                         {-1, 1, 0, 0, 0},
		"not found":                       {2, 1, store.NotFound, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, constant, func(s *setup) { s.Freshness.RefreshAhead, s.Seed = x.beta, 1 })
				time.Sleep(time.Minute)
				for range reads {
					c.plant("k", store.Entry{Flags: x.flags, Cost: time.Second / 2, Loaded: -second, Soft: x.gap, SWR: x.gap, Hard: x.gap})
					if f, err := c.find(background, "k", owner.AnyAge); err != nil || f.Filled {
						t.Fatal(f, err)
					}
					synctest.Wait()
				}
				if n := c.Stats.Fills[placement.RefreshAhead].Load(); n < x.least || n > x.most || n != c.Stats.Loads() {
					t.Errorf("%d of %d reads refreshed, %d loads", n, reads, c.Stats.Loads())
				}
			})
		})
	}
}

// A replica that a stand-in serves is not refreshed ahead: its owner does that.
func TestReplicaIsNotRefreshedAhead(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, constant, func(s *setup) { s.Freshness.RefreshAhead = 1e9 })
		for _, x := range []struct {
			replica bool
			flags   uint8
			want    int64
		}{{true, codec.FlagSuccessor, 0}, {false, codec.FlagSuccessor, 1}, {true, 0, 2}} {
			c.plant("k", store.Entry{Replica: x.replica, Cost: time.Second, Soft: 1, SWR: 1, Hard: second})
			_, err := c.GetOwnedFor(background, &owner.Lookup{Key: "k", Hash: ring.Hash("k"), MaxAge: owner.AnyAge, Flags: x.flags})
			synctest.Wait()
			if n := c.Stats.Loads(); err != nil || n != x.want {
				t.Errorf("%+v: %d loads, %v", x, n, err)
			}
		}
	})
}

// The near copies of an entry that may be refreshed ahead end before its soft expiry: by eight times its scaled cost, but at
// most by an eighth of its life.
func TestNearLimit(t *testing.T) {
	const now = 100 * second
	for name, x := range map[string]struct {
		beta float64
		e    store.Entry
		want int64
	}{
		"eight costs":          {2, store.Entry{Loaded: 0, Soft: 180 * second, Cost: time.Second}, 164 * second},
		"an eighth of life":    {2, store.Entry{Loaded: 100 * second, Soft: 180 * second, Cost: time.Second}, 170 * second},
		"off":                  {0, store.Entry{Soft: 180 * second, Cost: time.Second}, math.MaxInt64},
		"below 0":              {-1, store.Entry{Soft: 180 * second, Cost: time.Second}, math.MaxInt64},
		"not found":            {2, store.Entry{Soft: 180 * second, Flags: store.NotFound}, math.MaxInt64},
		"at its soft expiry":   {2, store.Entry{Soft: now, Cost: time.Second}, math.MaxInt64},
		"just before that":     {2, store.Entry{Loaded: now + 1, Soft: now + 1, Cost: time.Second}, now + 1},
		"past its soft expiry": {2, store.Entry{Soft: now - 1, Cost: time.Second}, math.MaxInt64},
	} {
		simtime.Test(t, func(t *testing.T) {
			c := alone(t, constant, func(s *setup) { s.Freshness.RefreshAhead = x.beta })
			if got := c.NearLimit(&x.e, now); got != x.want {
				t.Errorf("%s: %v, want %v", name, got, x.want)
			}
		})
	}
}

// A near copy lives for NearTTL and at most until its hard expiry, and past its soft times only if the owner served it late.
func TestLease(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, constant, nil) // NearTTL is a second
		for _, x := range []struct {
			swr, hard int64
			late      bool
			want      int64
		}{
			{9 * second, 9 * second, false, 6 * second},
			{9 * second, 5*second + 5, false, 5*second + 5},
			{5*second + 3, 9 * second, false, 5*second + 3},
			{5*second + 3, 9 * second, true, 6 * second},
			{4 * second, 9 * second, false, 5 * second},
		} {
			if got := c.Lease(5*second, x.swr, x.hard, x.late); got != x.want {
				t.Errorf("%+v: %d", x, got)
			}
		}
	})
}
