package tier

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/journal"
)

// departed returns news of count caches that started an invalidation each, for a key of its own, and have gone. Their
// incarnations start at from.
func departed(from uint64, count int) *codec.News {
	n := new(codec.News)
	for i := range uint64(count) {
		n.Invalidations = append(n.Invalidations, codec.Invalidation{
			Mark: codec.Mark{Incarnation: from + i, Seq: 1}, Scope: codec.ScopeKeys, Names: [][]byte{fmt.Appendf(nil, "other %d", from+i)},
		})
	}
	return n
}

// tracksOf returns how many positions a cache remembers, and how many retired ones.
func tracksOf(c *Cache[simValue]) (tracks, retired int) {
	s := c.own.Journal.Sizes()
	return s.Tracks, s.Retired
}

// Members restart again and again, and each start has invalidations of its own, until there are more positions than a
// cache keeps. No member flushes, and none loads anything again.
func TestManyRestartsFlushNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 4), newOrigin()
		caches := s.start(o, Config[simValue]{limits: journal.Limits{Tracks: 64}, Freshness: Freshness{TTL: 4 * time.Hour, RefreshAhead: -1, Jitter: -1}})
		defer s.stop(caches)
		time.Sleep(20 * time.Second)
		read := func() {
			for k := range 100 {
				gets(t, caches[s.names[k%4]], fmt.Sprint("k", k), 0)
			}
		}
		read()
		loads := func() (n int64) {
			for _, c := range caches {
				n += c.Stats().Loads
			}
			return n
		}
		before := loads()
		for round := range uint64(12) {
			caches[s.names[round%4]].own.Journal.Receive(departed(1000*round+1, 30))
			if round%4 == 3 {
				caches["n3"].own.Journal.Receive(departed(1000*round+501, 60)) // more than there is room for, at once
			}
			time.Sleep(90 * time.Second)
		}
		for name, c := range caches {
			tracks, retired := tracksOf(c)
			st := c.Stats()
			t.Logf("%s: %d positions, %d retired, flushed %d, fences %d", name, tracks, retired, st.Flushed, st.Fences)
			if tracks > 64 || st.Flushed != 0 {
				t.Errorf("%s has %d positions, and flushed %d times", name, tracks, st.Flushed)
			}
		}
		read()
		if again := loads() - before; again > 0 {
			t.Errorf("%d loads of values that nobody invalidated", again)
		}
	})
}

// A member is away while caches start invalidations, go, and are forgotten by the others. When it is back, it serves
// nothing that they invalidated. It gets what the logs still have, and otherwise it flushes, and no other member
// does. An invalidation of a forgotten cache is applied only if it is new.
func TestRetiredWhileAMemberIsAway(t *testing.T) {
	for name, bytes := range map[string]int64{"the logs have it": 0, "the logs have forgotten it": 4600} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, o := newSim(t, 4), newOrigin()
				caches := s.start(o, Config[simValue]{
					limits: journal.Limits{Tracks: 64, Bytes: bytes}, InvalidateTimeout: 200 * time.Millisecond, NearBytes: -1,
					Freshness: Freshness{TTL: 4 * time.Hour, RefreshAhead: -1, Jitter: -1},
				})
				defer s.stop(caches)
				time.Sleep(20 * time.Second)
				key := keyOf(s.nodes["n0"].View(), "n3", 0)
				gets(t, caches["n3"], key, 0)
				s.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n3" || to == "n3"} })
				o.write(key)
				first := departed(1, 1)
				first.Invalidations[0].Names[0] = []byte(key)
				caches["n1"].own.Journal.Receive(first)
				time.Sleep(10 * time.Second) // it is the oldest in each log
				caches["n2"].own.Journal.Receive(departed(1001, 30))
				// The log has room for these 31 entries. Retiring, 768 bytes, pushes out the oldest of them, and nothing else.
				time.Sleep(110 * time.Second)
				if tracks, retired := tracksOf(caches["n1"]); tracks > 40 || retired == 0 {
					t.Fatalf("%d positions, %d retired", tracks, retired)
				}
				s.setRule(nil)
				time.Sleep(20 * time.Second)
				gets(t, caches["n3"], key, 1)
				gets(t, caches["n1"], key, 1)
				for name, c := range caches {
					if f := c.Stats().Flushed; (f != 0) != (bytes > 0 && name == "n3") {
						t.Errorf("%s flushed %d times", name, f)
					}
				}

				// A forgotten cache is heard of again: first with an invalidation that is known, then with a new one.
				fences := caches["n1"].Stats().Fences
				caches["n1"].own.Journal.Receive(first)
				if n := caches["n1"].Stats().Fences; n != fences {
					t.Error("an invalidation of a cache that has gone was applied twice")
				}
				o.write(key)
				late := departed(1, 1)
				late.Invalidations[0].Mark.Seq, late.Invalidations[0].Names[0] = 2, []byte(key)
				caches["n1"].own.Journal.Receive(late)
				time.Sleep(20 * time.Second)
				gets(t, caches["n3"], key, 2)
				gets(t, caches["n1"], key, 2)
			})
		})
	}
}

// Caches restart, members are cut off, and everything that can be retired is retired, while writes continue. After
// each heal every member serves what was written last.
func TestRetireUnderChurn(t *testing.T) {
	flushed, retired := int64(0), 0
	for seed := range uint64(2) {
		bubble(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 36))
			s, o := newSim(t, 4), newOrigin()
			cfg := Config[simValue]{
				limits: journal.Limits{Tracks: 8, Bytes: []int64{0, 256}[seed]}, InvalidateTimeout: 200 * time.Millisecond,
				Freshness: Freshness{TTL: 4 * time.Hour, NearTTL: time.Second, RefreshAhead: -1, Jitter: -1},
			}
			caches := s.start(o, cfg)
			defer s.stop(caches)
			time.Sleep(20 * time.Second)
			versions := make(map[string]int64)
			write := func(name string) {
				key := fmt.Sprint("k", rng.IntN(8))
				o.write(key)
				versions[key]++
				_ = caches[name].Invalidate(background, key) // an unreachable member is named, and gets the invalidation when it is back
			}
			for range 5 {
				away := s.names[rng.IntN(4)]
				s.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == away || to == away} })
				for range 3 {
					name := s.names[rng.IntN(4)]
					if name == away {
						continue
					}
					write(name)
					if rng.IntN(2) == 0 { // long enough for the others' logs to forget; then it starts again
						_ = pause(background, 15*time.Second)
						if err := caches[name].Close(background); err != nil {
							t.Error(err)
						}
						flushed += caches[name].Stats().Flushed
						caches[name] = s.open(name, o, cfg)
						_ = pause(background, 15*time.Second)
					}
				}
				_ = pause(background, time.Duration(30+rng.IntN(90))*time.Second)
				s.setRule(nil)
				_ = pause(background, 20*time.Second)
				for _, name := range s.names {
					for k := range 8 {
						key := fmt.Sprint("k", k)
						gets(t, caches[name], key, versions[key])
					}
				}
			}
			for _, c := range caches {
				_, n := tracksOf(c)
				retired += n
				flushed += c.Stats().Flushed
			}
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
	t.Logf("%d positions retired, %d flushes", retired, flushed)
	if retired == 0 || flushed == 0 {
		t.Errorf("%d positions retired, %d flushes: the test proves nothing", retired, flushed)
	}
}
