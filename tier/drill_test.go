package tier

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A drill sends the requested fraction of hits through the owners to the origin, causes no errors, and leaves nothing
// behind.
func TestDrill(t *testing.T) {
	for _, members := range []int{1, 3} {
		for _, near := range []bool{false, true} {
			t.Run(fmt.Sprint(members, near), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					rnd := rand.New(rand.NewPCG(5, 5))
					z := newZipf(rnd, 2000, 0.6)
					sim := newSim(t, members)
					var loads atomic.Int64
					cfg := Config[simValue]{
						Origin:    Origin{Concurrency: 1000, QueueInterval: -1},
						NearBytes: -1,
						Freshness: Freshness{TTL: time.Hour, NearTTL: time.Hour, RefreshAhead: -1},
						Loader: func(context.Context, *Fill[simValue]) (v simValue, err error) {
							loads.Add(1)
							time.Sleep(20 * time.Millisecond)
							return v, nil
						},
					}
					if near {
						cfg.NearBytes = 4 << 20
					}
					caches := sim.start(nil, cfg)
					read := func(i int, key string) {
						if _, err := caches[sim.names[0]].Get(t.Context(), key); err != nil {
							t.Error(err)
						}
					}
					for i := range 2000 { // warm
						read(0, fmt.Sprint("key", i))
					}
					warm := loads.Load()
					drive(t, rnd, z, 1000, 5*time.Second, read)
					if loads.Load() != warm {
						t.Fatalf("%d loads of a warm cache", loads.Load()-warm)
					}
					var r DrillReport
					var err error
					var wg sync.WaitGroup
					wg.Go(func() { r, err = caches[sim.names[0]].Drill(t.Context(), 0.2, 10*time.Second) })
					synctest.Wait()
					if _, err := caches[sim.names[0]].Drill(t.Context(), 0.2, time.Second); !errors.Is(err, ErrDrilling) {
						t.Errorf("a second drill: %v", err)
					}
					drive(t, rnd, z, 1000, 10*time.Second-time.Nanosecond, read)
					wg.Wait()
					if err != nil || r.Ended != "time" || r.Seconds != 10 {
						t.Fatalf("%+v, %v", r, err)
					}
					got := loads.Load() - warm
					r.Whole = Projection{}
					t.Logf("%+v; %d loads", r, got)
					// Some of the reads are still running when the drill ends.
					if math.Abs(float64(r.Drilled)/2000-1) > 0.1 || r.Drilled-r.Filled > 20 || r.Spared != 0 || r.Failed != 0 || got < r.Drilled*9/10 || got > r.Drilled {
						t.Errorf("%d loads: %+v", got, r)
					}
					if r.P50 > 0.02 || r.P50 < 0.01 || r.P99 > 0.021 {
						t.Errorf("waits: %+v", r)
					}
					drive(t, rnd, z, 1000, 5*time.Second, read)
					if n := loads.Load() - warm; n != got {
						t.Errorf("%d loads after the end", n-got)
					}
					var drilled int64
					for _, c := range caches {
						drilled += c.Stats().LoadsBy["drill"]
					}
					if drilled != got {
						t.Errorf("%d loads counted as the drill's, %d were", drilled, got)
					}
					sim.stop(caches)
				})
			})
		}
	}
}

// An origin that fails ends the drill, by errors or by the breaker, and no reader notices.
func TestDrillEndsByItself(t *testing.T) {
	for why, breaker := range map[string]Breaker{
		"errors":  {Failures: -1},
		"breaker": {Failures: 0.01, Minimum: 1},
	} {
		for _, near := range []bool{false, true} {
			t.Run(fmt.Sprint(why, near), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					o := slow(10 * time.Millisecond)
					cfg := plain(ByKey(o.load))
					cfg.Freshness = Freshness{TTL: time.Hour, NearTTL: time.Hour, RefreshAhead: -1}
					cfg.Origin.Breaker = breaker
					if near {
						cfg.NearBytes = 1 << 20
					}
					c := open(t, cfg)
					for i := range 1000 {
						_, _ = c.Get(t.Context(), fmt.Sprint(i))
					}
					var r DrillReport
					var wg sync.WaitGroup
					wg.Go(func() { r, _ = c.Drill(t.Context(), 1, time.Hour) })
					synctest.Wait()
					before := o.n.Load()
					for i := range 1000 {
						if i == 500 {
							o.setFail(errDown)
						}
						wg.Go(func() {
							if _, err := c.Get(t.Context(), fmt.Sprint(i)); err != nil {
								t.Error(err)
							}
						})
						time.Sleep(time.Millisecond)
					}
					wg.Wait()
					bad := o.n.Load() - before - 500
					r.Whole = Projection{}
					t.Logf("%d loads failed; %+v", bad, r)
					if r.Ended != why || bad > map[string]int64{"errors": 90, "breaker": 25}[why] || r.Failed != 0 || r.Spared == 0 {
						t.Errorf("%d loads failed: %+v", bad, r)
					}
				})
			})
		}
	}
}

func TestDrillArguments(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := open(t, plain(ByKey((&counter{}).load)))
		for _, x := range []struct {
			f float64
			d time.Duration
		}{{0, time.Second}, {-1, time.Second}, {1.1, time.Second}, {math.NaN(), time.Second}, {1, 0}, {1, -1}, {1, MaxDrill + 1}} {
			if _, err := c.Drill(t.Context(), x.f, x.d); err == nil {
				t.Errorf("%+v is taken", x)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r, err := c.Drill(ctx, 1, time.Minute); err != nil || r.Ended != "context" || r.Seconds != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		var r DrillReport
		var wg sync.WaitGroup
		wg.Go(func() { r, _ = c.Drill(t.Context(), 1, time.Minute) })
		synctest.Wait()
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if r.Ended != "closed" {
			t.Errorf("%+v", r)
		}
		if _, err := c.Drill(t.Context(), 1, time.Minute); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}
