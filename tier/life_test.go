package tier

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
)

// longLived returns a contract of a minute with a loader that gives every value ten minutes. limit is the contract's
// MaxTTL.
func longLived(o *simOrigin, limit time.Duration) Config[simValue] {
	return Config[simValue]{
		Freshness:         Freshness{TTL: time.Minute, MaxTTL: limit, NearTTL: time.Second, RefreshAhead: -1, Jitter: -1},
		InvalidateTimeout: 200 * time.Millisecond,
		Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
			f.SetTTL(10 * time.Minute)
			return o.loader("x")(ctx, f)
		},
	}
}

// CleanBy holds for copies that live longer than the contract's TTL: on a member that has told of them, and, with
// MaxTTL, on a member that loads them while it is cut off as well.
func TestCleanByCoversLongLives(t *testing.T) {
	for name, c := range map[string]struct {
		limit    time.Duration
		inSecret bool // the member that loads the first of them is cut off
	}{"told": {}, "by contract": {10 * time.Minute, true}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, o := newSim(t, 2), newOrigin()
				caches := s.start(o, longLived(o, c.limit))
				defer s.stop(caches)
				key := keyOf(s.nodes["n0"].View(), "n1", 0)
				if !c.inSecret {
					gets(t, caches["n1"], key, 0)
				}
				_ = pause(background, 5*time.Second)
				s.setRule(func(from, to string, kind codec.Kind, answer bool) hop { return hop{lost: true} })
				gets(t, caches["n1"], key, 0)
				o.write(key)
				err := caches["n0"].Invalidate(background, key)
				var inv *InvalidateError
				if !errors.As(err, &inv) {
					t.Fatal(err)
				}
				_ = pause(background, time.Until(inv.CleanBy)-time.Minute)
				gets(t, caches["n1"], key, 0) // CleanBy is not earlier than necessary
				_ = pause(background, time.Minute+time.Second)
				gets(t, caches["n1"], key, 1)
			})
		})
	}
}

// A value that outlives all of this node's own is invalidated after a partition like any other, even though the member
// that started the invalidation is gone: its position is remembered as long as any member's copies live.
func TestHealReachesLongLives(t *testing.T) {
	for name, c := range map[string]struct {
		limit    time.Duration
		inSecret bool
	}{"told": {}, "by contract": {10 * time.Minute, true}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, o := newSim(t, 3), newOrigin()
				caches := s.start(o, longLived(o, c.limit))
				defer func() { delete(caches, "n2"); s.stop(caches) }()
				key := keyOf(s.nodes["n0"].View(), "n1", 0)
				if !c.inSecret {
					gets(t, caches["n1"], key, 0)
				}
				_ = pause(background, 20*time.Second)
				s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
					return hop{lost: from == "n1" || to == "n1"}
				})
				for _, n := range []string{"n0", "n2"} {
					s.nodes[n].setView(simView(t, "n0", "n2"))
				}
				s.nodes["n1"].setView(simView(t, "n1"))
				_ = pause(background, time.Second)
				gets(t, caches["n1"], key, 0)
				o.write(key)
				if err := caches["n2"].Invalidate(background, key); err != nil {
					t.Fatal(err)
				}
				if err := caches["n2"].Close(background); err != nil {
					t.Fatal(err)
				}
				s.nodes["n0"].setView(simView(t, "n0"))
				_ = pause(background, 4*time.Minute)
				s.setRule(nil)
				for _, n := range []string{"n0", "n1"} {
					s.nodes[n].setView(simView(t, "n0", "n1"))
				}
				_ = pause(background, 10*time.Second)
				gets(t, caches["n0"], key, 1)
			})
		})
	}
}

// A TTL beyond MaxTTL is rejected with an error that says what to do.
func TestMaxTTL(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ttl := time.Hour
		cfg := plain(func(_ context.Context, f *Fill[string]) (string, error) {
			f.SetTTL(ttl)
			return "v", nil
		})
		cfg.Freshness.TTL, cfg.Freshness.MaxTTL = time.Minute, time.Hour
		c := open(t, cfg)
		get(t, c, "at the limit", "v")
		if err := c.Put(background, "put", "v", PutOptions{Version: 1, TTL: time.Hour}); err != nil {
			t.Error(err)
		}
		ttl++
		if _, err := c.Get(background, "beyond"); !errors.Is(err, ErrTTLTooLong) {
			t.Errorf("a fill with a TTL beyond MaxTTL: %v", err)
		}
		fences := c.Stats().Fences
		if err := c.Put(background, "put", "v", PutOptions{Version: 2, TTL: ttl}); !errors.Is(err, ErrTTLTooLong) || c.Stats().Fences != fences {
			t.Errorf("a Put with a TTL beyond MaxTTL: %v", err)
		}
		if b := c.Freshness().Bound(); b < time.Hour {
			t.Errorf("the bound is %v", b)
		}
	})
}

// The longest life in the cluster is the longest of all copies, stored here or on another member.
func TestLives(t *testing.T) {
	var l lives
	for i, c := range []struct{ stored, heard, own, cluster int64 }{
		{5, 3, 5, 5}, {0, 9, 5, 9}, {7, 0, 7, 9}, {11, 10, 11, 11},
	} {
		l.stored(c.stored)
		l.heard(time.Duration(c.heard))
		if own, cluster := l.own.Load(), l.cluster.Load(); own != c.own || cluster != c.cluster {
			t.Errorf("%d: own %d, the cluster's %d; want %d, %d", i, own, cluster, c.own, c.cluster)
		}
	}
}

// A member that lacks what the log has dropped is told to flush while it may have copies from before. If the log
// dropped it because of its age, that is as long as the member's own copies live; otherwise it is at least as long as
// the log keeps anything.
func TestTellFlushesWhileCopiesLive(t *testing.T) {
	const keep, life = 60, 600
	for _, c := range []struct {
		name     string
		slack    int64
		room     int64 // entries of the log
		life     time.Duration
		now      int64
		flush    bool
		overfull bool
	}{
		{"no room, short lives", 0, 2, 0, keep, true, true},
		{"no room, short lives, later", 0, 2, 0, keep + 1, false, true},
		{"no room, long lives", 0, 2, life, life, true, true},
		{"no room, long lives, later", 0, 2, life, life + 1, false, true},
		{"age, short lives", 0, 9, 0, keep + 1, false, false},
		{"age, long lives", 0, 9, life, life, true, false},
		{"age, long lives, later", 0, 9, life, life + 1, false, false},
		{"age, long lives, with a margin", 30, 9, life, life + 30, true, false},
		{"age, long lives, after the margin", 30, 9, life, life + 31, false, false},
	} {
		l := newLogbook(1, keep-c.slack, c.slack, limits{bytes: c.room * loggedCost})
		l.lives.heard(max(c.life, time.Duration(keep-c.slack)))
		for seq := uint64(1); seq <= 3; seq++ {
			l.track(7).note(seq)
			l.add(logged{mark: codec.Mark{Incarnation: 7, Seq: seq}})
		}
		if !c.overfull {
			l.trim(keep + 1)
		}
		var news codec.News
		l.tell(lagOf(&codec.News{Life: c.life}), &news, c.now)
		if flush := len(news.Bases) == 1 && news.Bases[0].Flush; flush != c.flush || len(news.Bases) > 1 {
			t.Errorf("%s: %+v, want flush %v", c.name, news.Bases, c.flush)
		}
	}
}

// A base is sent together with its incarnation's position, or not at all. A base without a position has no idle time, so the other
// member would count it as new and make members flush that have rightly forgotten it. This holds before the sweep
// that forgets the position, and for numbers beyond a gap.
func TestBaseIsToldWithItsPosition(t *testing.T) {
	const life, slack = 60, 30
	for now, want := range map[int64]int{life + slack: 1, life + slack + 1: 0} {
		for _, seq := range []uint64{1, 5} {
			l := newLogbook(1, life, slack, limits{})
			l.lives.stored(life)
			l.track(7).note(seq)
			l.add(logged{mark: codec.Mark{Incarnation: 7, Seq: seq}})
			l.trim(life + slack + 1) // it ages out of the log
			var news codec.News
			news.Positions = l.positions(nil, now)
			l.tell(lagOf(new(codec.News)), &news, now)
			if len(news.Positions) != want || len(news.Bases) != want || len(news.Invalidations) != 0 {
				t.Errorf("number %d, %d after it was applied: %+v, want %d", seq, now, news, want)
			} else if want > 0 && news.Positions[0].Idle != time.Duration(now) {
				t.Errorf("number %d: idle for %d, want %d", seq, news.Positions[0].Idle, now)
			}
		}
	}
}

// An invalidation is as old as the member that sends it says, and at most twice as old as what is remembered. If the
// member does not say, it is new.
func TestAgeOfWhatAnotherMemberTells(t *testing.T) {
	const slack = 30
	l := newLogbook(1, 60, slack, limits{})
	l.lives.stored(90)
	told := &codec.News{
		Positions:     []codec.Position{{Incarnation: 7, Idle: 50}, {Incarnation: 8, Idle: 1000}},
		Invalidations: []codec.Invalidation{{Mark: codec.Mark{Incarnation: 7, Seq: 1}}},
	}
	when := l.appliedBy(told, 1000)
	if a, b, c := when.at(7), when.at(8), when.at(9); a != 950 || b != 1000-2*(90+slack) || c != 1000 {
		t.Errorf("applied at %d, %d and %d", a, b, c)
	}

	l.track(7).note(1)
	l.track(8).note(1)
	l.tracks[7].last, l.tracks[8].last = 1000, 1000-int64(leastIdle)
	for seq, incarnation := range []uint64{7, 8, 8} {
		l.add(logged{mark: codec.Mark{Incarnation: incarnation, Seq: uint64(seq) + 1}, at: 1000})
	}
	var news codec.News
	l.tell(lagOf(&codec.News{}), &news, 1000)
	if want := (codec.Position{Incarnation: 8, Seq: 1, Idle: leastIdle}); len(news.Invalidations) != 3 || len(news.Positions) != 1 || news.Positions[0] != want {
		t.Errorf("told %+v, idle %+v", news.Invalidations, news.Positions)
	}
	news = codec.News{}
	if l.tell(lagOf(&codec.News{}), &news, 1001+l.remember()); len(news.Invalidations) != 0 {
		t.Errorf("nobody needs this any more: %+v", news.Invalidations)
	}
}
