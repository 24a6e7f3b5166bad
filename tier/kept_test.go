package tier

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
)

// Callers that waited for the same answer keep one near copy of it together, both on the owner and on a node that asked
// it.
func TestSharedAnswerIsKeptOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		o.delay = func() time.Duration { return time.Second }
		s.setRule(func(string, string, codec.Kind, bool) hop { return hop{delay: time.Millisecond} })
		caches := s.start(o, Config[simValue]{Freshness: Freshness{TTL: time.Minute, NearTTL: time.Minute, RefreshAhead: -1}})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		const callers = 50
		before := map[string]int64{}
		for name, c := range caches {
			before[name] = c.near.Calls()
		}
		var wg sync.WaitGroup
		for _, c := range caches {
			for range callers {
				wg.Go(func() {
					if _, err := c.Get(background, key); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		for name, c := range caches {
			// each caller has looked for a near copy
			if kept := c.near.Calls() - before[name] - callers; kept != 1 {
				t.Errorf("%s kept the answer %d times", name, kept)
			}
			c.near.Wait()
			synctest.Wait()
			if a, err := c.Read(background, key, ReadOptions{MaxAge: AnyAge}); err != nil || a.Source != SourceNear {
				t.Errorf("%s then has %+v, %v: want a near copy", name, a, err)
			}
		}
		if n := o.loads.Load(); n != 1 {
			t.Errorf("%d loads", n)
		}
	})
}

// A read with a MaxAge of its own replaces the near copy, even if other reads share its answer.
func TestSharedAnswerReplacesAnOlderCopy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Second)
		cfg := plain(ByKey(o.load))
		cfg.NearBytes, cfg.Freshness.NearTTL = 1<<20, time.Hour
		cfg.Freshness.TTL = time.Hour
		c := open(t, cfg)
		get(t, c, "k", "k#1")
		c.near.Wait()
		synctest.Wait()
		time.Sleep(time.Minute)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if a := read(t, c, "k", time.Second); a.Value != "k#2" {
					t.Errorf("%+v, want the second", a)
				}
			})
		}
		wg.Wait()
		c.near.Wait()
		synctest.Wait()
		if a := read(t, c, "k", AnyAge); a.Value != "k#2" {
			t.Errorf("%+v afterwards, want the second", a)
		}
	})
}
