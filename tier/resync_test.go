package tier

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/journal"
)

// A member recovers what it has missed, even if only a number shows that it has missed something.

// unreached invalidates keys and expects an error saying that the named member has not confirmed.
func unreached(t *testing.T, c *Cache[simValue], name string, keys ...string) {
	t.Helper()
	var failed *InvalidateError
	if err := c.Invalidate(background, keys...); !errors.As(err, &failed) || len(failed.Unreached) != 1 || failed.Unreached[0] != name {
		t.Fatalf("%v, want %s named", err, name)
	}
}

// A member gets a later invalidation through another member, and has missed an earlier one for which no caller waits
// any more. The number in its acknowledgement shows that, so it does not count as having applied everything.
func TestMemberThatConfirmsBeyondAGapIsNotUpToDate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{InvalidateTimeout: 200 * time.Millisecond})
		defer s.stop(caches)
		time.Sleep(20 * time.Second) // all have exchanged positions, and none is young
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		gets(t, caches["n1"], key, 0)
		s.setRule(func(_, to string, _ codec.Kind, answer bool) hop { return hop{lost: to == "n1" && !answer} })
		o.write(key)
		unreached(t, caches["n0"], "n1", key)
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: to == "n1" && !answer && (from == "n0" || kind == codec.KindSync)}
		})
		if err := caches["n0"].Invalidate(background, "another"); err != nil { // through n2
			t.Fatal(err)
		}
		s.setRule(func(_, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: to == "n1" && !answer && kind == codec.KindSync}
		})
		gets(t, caches["n0"], key, 1)
		s.setRule(nil)
		time.Sleep(10 * time.Second)
		gets(t, caches["n1"], key, 1)
	})
}

// A member has missed invalidations for which the log of the member that started them has no room: it flushes.
func TestMissedInvalidationsThatWereCutCostAFlush(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{InvalidateTimeout: 200 * time.Millisecond, NearBytes: -1, limits: journal.Limits{Bytes: 4 << 10}})
		defer s.stop(caches)
		time.Sleep(20 * time.Second)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		gets(t, caches["n1"], key, 0)
		s.setRule(func(string, string, codec.Kind, bool) hop { return hop{lost: true} })
		o.write(key)
		unreached(t, caches["n0"], "n1", key)
		for i := range 8 { // they push the first one out of the log
			var others []string
			for j := range 32 {
				others = append(others, fmt.Sprint("other ", i, " ", j))
			}
			unreached(t, caches["n0"], "n1", others...)
		}
		s.setRule(nil)
		time.Sleep(10 * time.Second)
		gets(t, caches["n1"], key, 1)
		if n := caches["n1"].Stats().Flushed; n != 1 {
			t.Errorf("flushed %d times, want once", n)
		}
	})
}

// A member has missed invalidations that are too old for the log of the member that started them, and it holds copies
// that live longer than anything there: it flushes.
func TestMissedInvalidationsThatAgedCostAFlush(t *testing.T) {
	for _, ttl := range []time.Duration{2 * time.Hour, 0} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 2), newOrigin()
			caches := s.start(o, Config[simValue]{
				InvalidateTimeout: 200 * time.Millisecond, NearBytes: -1,
				Freshness: Freshness{TTL: time.Minute, RefreshAhead: -1, Jitter: -1},
				Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
					if ttl > 0 {
						f.SetTTL(ttl)
					}
					return o.loader("any")(ctx, f)
				},
			})
			defer s.stop(caches)
			time.Sleep(20 * time.Second)
			key := keyOf(s.nodes["n0"].View(), "n1", 0)
			gets(t, caches["n1"], key, 0)
			s.setRule(func(string, string, codec.Kind, bool) hop { return hop{lost: true} })
			o.write(key)
			unreached(t, caches["n0"], "n1", key)
			time.Sleep(10 * time.Minute)
			s.setRule(nil)
			time.Sleep(10 * time.Second)
			gets(t, caches["n1"], key, 1)
			want := int64(0) // nothing there is old enough
			if ttl > 0 {
				want = 1
			}
			if n := caches["n1"].Stats().Flushed; n != want {
				t.Errorf("TTL %v: flushed %d times, want %d", ttl, n, want)
			}
		})
	}
}

// A member hears late of an invalidation. It forgets the invalidation when the others do, and does not pass it on to
// them again. Otherwise the invalidation would go round as new each time, and cost the fills of everything it covers
// for ever.
func TestOldInvalidationsDoNotGoRound(t *testing.T) {
	const departed = 7 // the incarnation of a cache that has gone
	all := []string{"n0", "n1", "n2"}
	started := func(caches map[string]*Cache[simValue]) { // by the departed cache, which has reached n0 and n1
		for _, name := range all[:2] {
			caches[name].own.Journal.Receive(&codec.News{Invalidations: []codec.Invalidation{
				{Mark: codec.Mark{Incarnation: departed, Seq: 1}, Scope: codec.ScopeTags, Names: [][]byte{[]byte("t")}},
			}})
		}
	}
	for _, c := range []struct {
		name       string
		up         []string // when the invalidation starts; the others start later
		invalidate func(caches map[string]*Cache[simValue])
	}{
		{"the member was cut off, its sender has gone", all, started},
		{"the member was cut off, its sender lives", all, func(caches map[string]*Cache[simValue]) {
			_ = caches["n0"].InvalidateTag(background, "t") // n2 is not reached
		}},
		{"the member has just started", all[:2], started},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, o := newSim(t, 3), newOrigin()
				cfg := Config[simValue]{InvalidateTimeout: 200 * time.Millisecond, Freshness: Freshness{TTL: 30 * time.Second, RefreshAhead: -1, Jitter: -1}}
				caches := make(map[string]*Cache[simValue])
				defer func() { s.stop(caches) }()
				for _, name := range c.up {
					caches[name] = s.open(name, o, cfg)
				}
				time.Sleep(20 * time.Second) // all have exchanged positions, and none is young
				s.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n2" || to == "n2"} })
				before := make(map[string]int64)
				for name, cache := range caches {
					before[name] = cache.Stats().Fences
				}
				started := time.Now()
				c.invalidate(caches)
				time.Sleep(40 * time.Second)
				s.setRule(nil)
				for _, name := range all {
					if caches[name] == nil {
						caches[name] = s.open(name, o, cfg)
					}
				}
				forgotten := caches["n0"].own.Journal.LongestLife() + time.Duration(caches["n0"].own.Fences.Retention()) + 10*time.Second
				for time.Since(started) < 6*time.Minute {
					time.Sleep(5 * time.Second)
					s.acquaint(caches)
					for name, cache := range caches {
						if cache.own.Journal.HasApplied(codec.Mark{Incarnation: departed, Seq: 1}) && time.Since(started) > forgotten {
							t.Errorf("%s remembers it after %v", name, time.Since(started))
						}
					}
				}
				for name, cache := range caches {
					if n := cache.Stats().Fences - before[name]; n != 1 {
						t.Errorf("%s has applied it %d times", name, n)
					}
					if n := cache.own.Journal.Sizes().Logged; n != 0 {
						t.Errorf("the log of %s still has %d invalidations", name, n)
					}
				}
			})
		})
	}
}
