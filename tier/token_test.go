package tier

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// A read with a token returns nothing from before the token, whatever the reading node and the owner have told each
// other between the token's arrival and the read. Neither an exchange nor an acknowledged invalidation tells the
// owner of a mark that is in no log.
func TestTokenOutlivesWhatComesBetween(t *testing.T) {
	for name, between := range map[string]func(t *testing.T, n1 *Cache[simValue], other string){
		"an acknowledged invalidation": func(t *testing.T, n1 *Cache[simValue], other string) {
			if err := n1.Invalidate(background, other); err != nil {
				t.Fatal(err)
			}
		},
		"an exchange": func(t *testing.T, n1 *Cache[simValue], other string) {
			if err := exchange(n1, "n2"); err != nil {
				t.Fatal(err)
			}
		},
		"an invalidation of everything": func(t *testing.T, n1 *Cache[simValue], other string) {
			n1.own.Journal.Receive(&codec.News{Invalidations: []codec.Invalidation{{Mark: codec.Mark{Incarnation: 77, Seq: 1}, Scope: codec.ScopeAll}}})
		},
		"more fences than the shard has room for": func(t *testing.T, n1 *Cache[simValue], other string) {
			key := keyOf(n1.cfg.Cluster.(*simNode).net.nodes["n0"].View(), "n2", 0)
			for i := range uint64(2 * fence.PerShard) {
				n1.own.Fences.Apply(string(rune('a'+i)), ring.Hash(key), codec.Mark{Incarnation: 3, Seq: i + 1}, 0, nothing)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, o := newSim(t, 3), newOrigin()
				caches := s.start(o, Config[simValue]{InvalidateTimeout: 200 * time.Millisecond})
				defer s.stop(caches)
				view := s.nodes["n0"].View()
				key, other := keyOf(view, "n2", 0), keyOf(view, "n1", 0)
				n1 := caches["n1"]
				for _, c := range caches {
					gets(t, c, key, 0)
				}
				// A process that this cluster does not know invalidates.
				lone := single(t, o, Config[simValue]{Namespace: "sim"})
				defer shut(t, lone)
				o.write(key)
				token, err := lone.Apply(background, Change{Keys: []string{key}})
				if err != nil {
					t.Fatal(err)
				}
				gone, cancel := context.WithCancel(background) // a read that leaves the mark at n1 and has no other effect
				cancel()
				_, _ = n1.Read(gone, key, ReadOptions{MaxAge: AnyAge, After: token})
				between(t, n1, other)
				for range 2 { // the second one may find a near copy
					if a, err := n1.Read(background, key, ReadOptions{MaxAge: AnyAge, After: token}); err != nil || a.Value.Version != 1 {
						t.Errorf("a read after the token: %+v, %v; want version 1", a, err)
					}
				}
			})
		})
	}
}

// Several tokens of one key, from writers that do not know one another, can be used at the same time. If there are
// more than a fence has room for, the node starts an invalidation of its own that stands for all of them.
func TestManyTokensOfOneKey(t *testing.T) {
	for _, n := range []int{2, 3, 6} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 2), newOrigin()
			caches := s.start(o, Config[simValue]{})
			defer s.stop(caches)
			key := keyOf(s.nodes["n0"].View(), "n1", 0)
			for _, c := range caches {
				gets(t, c, key, 0)
			}
			o.write(key)
			var tokens []Token
			for range n {
				lone := single(t, o, Config[simValue]{Namespace: "sim"})
				defer shut(t, lone)
				token, err := lone.Apply(background, Change{Keys: []string{key}})
				if err != nil {
					t.Fatal(err)
				}
				tokens = append(tokens, token)
			}
			s.setRule(func(from, to string, kind codec.Kind, answer bool) hop { return hop{delay: time.Millisecond} })
			loads := o.loads.Load()
			var wg sync.WaitGroup
			for _, token := range tokens {
				wg.Go(func() {
					a, err := caches["n0"].Read(background, key, ReadOptions{MaxAge: AnyAge, After: token})
					if err != nil || a.Value.Version != 1 {
						t.Errorf("read after a token: %+v, %v; want version 1", a, err)
					}
				})
			}
			wg.Wait()
			if extra := o.loads.Load() - loads; extra > int64(n)+1 {
				t.Errorf("%d loads for %d tokens", extra, n)
			}
			if own := caches["n0"].own.Journal.Sizes().Own; (own > 0) != (n > fence.Marks) {
				t.Errorf("n0 has started %d invalidations for %d tokens", own, n)
			}
		})
	}
}

// The same in a cluster: when the invalidation arrives, a near copy that a node kept in a partition becomes invalid,
// and so does a copy that its owner was given.
func TestNearCopyFallsWithTheInvalidationItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		cfg := Config[simValue]{InvalidateTimeout: 200 * time.Millisecond, Freshness: Freshness{TTL: time.Minute, NearTTL: 30 * time.Second, RefreshAhead: -1}}
		caches := s.start(o, cfg)
		defer s.stop(caches)
		all := s.nodes["n0"].View()
		key := keyOf(all, "n2", 0)
		_ = pause(background, owner.NewFor+5*time.Second) // no cache is new
		gets(t, caches["n2"], key, 0)
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: from == "n0" || to == "n0"}
		})
		s.nodes["n0"].setView(simView(t, "n0"))
		s.nodes["n1"].setView(simView(t, "n1", "n2"))
		s.nodes["n2"].setView(simView(t, "n1", "n2"))
		_ = pause(background, time.Second)
		o.write(key)
		token, _ := caches["n0"].Apply(background, Change{Keys: []string{key}}) // the error says that n1 and n2 were not reached
		gone, cancel := context.WithCancel(background)
		cancel()
		_, _ = caches["n1"].Read(gone, key, ReadOptions{MaxAge: AnyAge, After: token})
		if err := exchange(caches["n1"], "n2"); err != nil {
			t.Fatal(err)
		}
		_, _ = caches["n1"].Get(background, key)
		synctest.Wait()
		if caches["n1"].near.Get(key) == nil {
			t.Fatal("n1 keeps no near copy: the test proves nothing")
		}
		s.setRule(nil)
		for _, n := range s.names {
			s.nodes[n].setView(all)
		}
		_ = pause(background, 5*time.Second)
		if err := caches["n0"].Invalidate(background, "another"); err != nil {
			t.Fatal(err)
		}
		if !caches["n1"].own.Journal.HasApplied(token.mark) {
			t.Fatal("n1 has not applied the invalidation: the test proves nothing")
		}
		for _, n := range []string{"n2", "n1"} {
			for _, after := range []Token{{}, token} {
				a, err := caches[n].Read(background, key, ReadOptions{MaxAge: AnyAge, After: after})
				if err != nil || a.Value.Version != 1 {
					t.Errorf("%s after the heal: %+v, %v; want version 1", n, a, err)
				}
			}
		}
	})
}

// A fence that covers only copies from other members drops such a copy from the owned tier, and keeps one that this
// node has loaded.
func TestDroppingWhatWasGiven(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 1), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		c := caches["n0"]
		for _, handed := range []bool{false, true} {
			for _, loaded := range []bool{false, true} {
				c.own.Owned.Set("k", &store.Entry{Handed: handed, Hard: owner.Never})
				c.own.Dropping("k")(loaded)
				if _, ok := c.own.Owned.Get("k"); ok != (!handed && !loaded) {
					t.Errorf("given %v; what was loaded goes %v: it is there %v", handed, loaded, ok)
				}
				c.own.Owned.Delete("k")
			}
		}
	})
}
