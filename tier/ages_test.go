package tier

import (
	"context"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/tier/internal/store"
)

// Answers are counted with their age, by source, and the quantiles cover the last minute.
func TestAges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(2 * time.Second)
		cfg := plain(ByKey(o.load))
		cfg.Freshness.TTL, cfg.Freshness.NearTTL = time.Hour, time.Minute
		cfg.NearBytes = 1 << 20
		c := open(t, cfg)
		get(t, c, "k", "k#1") // waits for its load: 2 s old
		time.Sleep(61 * time.Second)
		get(t, c, "k", "k#1") // its near copy has ended: the owned one is 63 s old
		time.Sleep(time.Second)
		for c.Stats().Near < 20000 {
			for range 100 {
				get(t, c, "k", "k#1") // 64 s and more
				time.Sleep(time.Microsecond)
			}
		}
		within := func(what string, got, want float64) {
			t.Helper()
			if math.Abs(got/want-1) > 0.12 {
				t.Errorf("%s: %v, want about %v", what, got, want)
			}
		}
		a := c.Stats().Ages
		within("fill", a["fill"].Max, 2)
		within("owned p50", a["owned"].P50, 63)
		within("near p99", a["near"].P99, 64)
		within("near", float64(a["near"].Answers), 20000)
		if f := a["fill"]; f.Answers != 1 || f.Max != 2 || a["owned"].Max != 63 {
			t.Errorf("%+v", a)
		}
		if s := c.Stats(); s.Bound != 3600 || s.StaleNear != 0 {
			t.Errorf("bound %v, stale near hits %v", s.Bound, s.StaleNear)
		}
		time.Sleep(61 * time.Second)
		if b := c.Stats().Ages["near"]; b.P99 != 0 || b.Max != a["near"].Max || b.Answers != a["near"].Answers {
			t.Errorf("a minute later: %+v, was %+v", b, a["near"])
		}
	})
}

// Every stale answer is counted with the reason why it was served.
func TestStaleReasons(t *testing.T) {
	for _, x := range []struct {
		name string
		set  func(cfg *Config[string])
		read func(t *testing.T, c *Cache[string], o *counter) // with a copy past its soft expiry
		want map[string]int64
	}{
		{"revalidating", func(cfg *Config[string]) { cfg.Freshness.StaleWhileRevalidate = time.Hour }, func(t *testing.T, c *Cache[string], o *counter) {
			o.takes.Store(int64(time.Second))
			get(t, c, "k", "k#1")
			get(t, c, "k", "k#1")
		}, map[string]int64{"revalidating": 2}},
		{"error", nil, func(t *testing.T, c *Cache[string], o *counter) {
			o.setFail(errDown)
			get(t, c, "k", "k#1") // waits for the load that failed
			get(t, c, "k", "k#1") // does not wait for another one
		}, map[string]int64{"error": 2}},
		{"shed", func(cfg *Config[string]) { cfg.Origin.Breaker = Breaker{Failures: 0.1, Minimum: 1} }, func(t *testing.T, c *Cache[string], o *counter) {
			o.setFail(errDown)
			getErr(t, c, "other", errDown) // opens the breaker
			get(t, c, "k", "k#1")
			get(t, c, "k", "k#1")
		}, map[string]int64{"shed": 2}},
		{"soft_timeout", func(cfg *Config[string]) { cfg.Freshness.SoftTimeout = time.Second }, func(t *testing.T, c *Cache[string], o *counter) {
			o.takes.Store(int64(10 * time.Second))
			get(t, c, "k", "k#1")
		}, map[string]int64{"soft_timeout": 1}},
		{"drill", func(cfg *Config[string]) {
			cfg.Freshness.StaleWhileRevalidate = time.Hour
			cfg.Origin.Breaker.Failures = -1
		}, func(t *testing.T, c *Cache[string], o *counter) {
			o.setFail(errDown)
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = c.Drill(t.Context(), 1, time.Minute) })
			synctest.Wait()
			get(t, c, "k", "k#1")
			time.Sleep(time.Minute)
			wg.Wait()
		}, map[string]int64{"drill": 1}},
		{"isolated", func(cfg *Config[string]) { cfg.Freshness.StaleWhileRevalidate = time.Hour }, func(t *testing.T, c *Cache[string], o *counter) {
			o.takes.Store(int64(time.Second))
			c.own.Isolation.Lost.Store(true)
			get(t, c, "k", "k#1")
		}, map[string]int64{"isolated": 1}},
	} {
		t.Run(x.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := &counter{}
				cfg := plain(ByKey(o.load))
				cfg.Freshness.StaleIfError = time.Hour
				if x.set != nil {
					x.set(&cfg)
				}
				c := open(t, cfg)
				get(t, c, "k", "k#1")
				time.Sleep(61 * time.Second)
				x.read(t, c, o)
				s := c.Stats()
				for why, n := range s.StaleBy {
					if n != x.want[why] {
						t.Errorf("%s: %d, want %d", why, n, x.want[why])
					}
				}
				if len(s.StaleBy) != int(store.StaleReasons) || s.Stale != x.want[x.name] {
					t.Errorf("%d stale, %v", s.Stale, s.StaleBy)
				}
			})
		})
	}
}

// The reason why a copy is stale crosses the wire, and stays with the near copy made from it.
func TestStaleFromAnotherMember(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sim := newSim(t, 2)
		var fail error
		caches := sim.start(nil, Config[simValue]{
			Freshness: Freshness{TTL: time.Minute, StaleIfError: time.Hour, NearTTL: 10 * time.Second, Jitter: -1, RefreshAhead: -1}, NearBytes: 1 << 20,
			Loader: func(context.Context, *Fill[simValue]) (v simValue, err error) { return v, fail },
		})
		defer sim.stop(caches)
		c, key := caches[sim.names[0]], keyOf(sim.nodes[sim.names[0]].View(), sim.names[1], 0)
		read := func() {
			t.Helper()
			if _, err := c.Get(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		read()
		time.Sleep(61 * time.Second)
		fail = errDown
		read()
		synctest.Wait()
		for range 5000 {
			read()
			time.Sleep(time.Microsecond)
		}
		s := c.Stats()
		t.Logf("%d near hits, stale %d and %d of them: %v", s.Near, s.Stale, s.StaleNear, s.StaleBy)
		if s.Near < 4990 || s.Stale < 1 || s.StaleNear < 2000 || s.StaleBy["error"] != s.Stale+s.StaleNear {
			t.Errorf("%+v", s)
		}
	})
}
