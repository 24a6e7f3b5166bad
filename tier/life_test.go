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
