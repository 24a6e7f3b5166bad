package tier

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/owner"
)

func TestWarm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		var mu sync.Mutex
		batches := 0
		caches := s.start(o, Config[simValue]{
			Origin: Origin{Concurrency: 12, Timeout: time.Second},
			BatchLoader: func(ctx context.Context, fills []*Fill[simValue]) error {
				mu.Lock()
				batches++
				mu.Unlock()
				for _, f := range fills {
					if strings.HasSuffix(f.Key, "99") {
						f.Fail(errors.New("broken"))
					} else if !strings.HasSuffix(f.Key, "98") {
						f.Set(simValue{Node: f.Key})
					}
				}
				return errors.Join(pause(ctx, 100*time.Millisecond), ErrNotFound)
			},
		})
		defer s.stop(caches)
		if _, err := caches["n1"].GetMany(background, keysNamed(50)); err != nil {
			t.Fatal(err)
		}
		kinds := s.countKinds()
		keys := append(keysNamed(1000), "key-1", "", strings.Repeat("x", codec.MaxKey+1))
		r, err := caches["n0"].Warm(background, keys)
		var many *ManyError
		if !errors.As(err, &many) || len(many.Errs) != 12 || !errors.Is(err, ErrEmptyKey) || !errors.Is(err, ErrKeyTooLarge) || many.Errs["key-99"] == nil {
			t.Errorf("%v", err)
		}
		if r.Keys != 1002 || r.Present != 50 || r.NotFound != 10 || r.Failed != 12 || r.Loaded != 930 || r.Seconds <= 0 {
			t.Errorf("%+v", r)
		}
		if kinds.of(codec.KindGet) != 0 || kinds.of(codec.KindGetMany) > 6 || batches > 20 {
			t.Errorf("%d requests, %d batches", kinds.of(codec.KindGetMany), batches)
		}
		before := batches
		if r, err = caches["n2"].Warm(background, keysNamed(90)); err != nil || r.Present != 90 {
			t.Errorf("%+v, %v", r, err)
		}
		if batches != before {
			t.Errorf("%d more batches", batches-before)
		}
		if n := caches["n0"].Stats(); n.Near+n.Fill+n.Owned+n.Errors != 0 {
			t.Errorf("warming counts as reads: %+v", n)
		}
	})
}

// Warm uses only a part of the permits, and real misses go before it.
func TestWarmYields(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Second)
		cfg := plain(ByKey(o.load))
		cfg.Origin.Concurrency = 8
		c := open(t, cfg)
		var wg sync.WaitGroup
		wg.Go(func() {
			if r, err := c.Warm(t.Context(), keysNamed(20)); err != nil || r.Loaded != 20 || r.Seconds != 10 {
				t.Errorf("%+v, %v", r, err)
			}
		})
		synctest.Wait()
		if n := c.Stats().Governor.InUse; n != 8/owner.WarmShare {
			t.Errorf("%d permits", n)
		}
		began := time.Now()
		if _, err := c.Get(t.Context(), "urgent"); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v, %v", time.Since(began), err)
		}
		wg.Wait()
	})
}

// Warm ends when its ctx does, and gives up when it makes no progress.
func TestWarmEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		o.delay = func() time.Duration { return 500 * time.Millisecond }
		caches := s.start(o, Config[simValue]{Origin: Origin{Concurrency: 1, Timeout: 5 * time.Second}})
		defer s.stop(caches)
		ctx, cancel := context.WithTimeout(background, 4*time.Second)
		defer cancel()
		began := time.Now()
		r, err := caches["n0"].Warm(ctx, keysNamed(40))
		if d := time.Since(began); d > 5*time.Second || !errors.Is(err, context.DeadlineExceeded) || r.Loaded < 3 || r.Loaded+r.Failed != 40 {
			t.Errorf("%v: %+v, %v", d, r, err)
		}
		s.setRule(func(_, to string, _ codec.Kind, answer bool) hop { return hop{lost: to == "n1" && !answer} })
		key := keyOf(s.nodes["n0"].View(), "n1", 100)
		if r, err = caches["n0"].Warm(background, []string{key}); !errors.Is(err, ErrNotWarmed) || r.Failed != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		s.setRule(nil)
		if _, err := caches["n0"].Warm(ctx, nil); err != context.DeadlineExceeded {
			t.Errorf("%v", err)
		}
		caches["n0"].own.Isolation.Cut.Store(true)
		if _, err := caches["n0"].Warm(background, []string{key}); err != ErrIsolated {
			t.Errorf("%v", err)
		}
		caches["n0"].own.Isolation.Cut.Store(false)
		if r, err := caches["n0"].Warm(background, []string{key}); err != nil || r.Loaded != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	bubble(t, func(t *testing.T) {
		c := open(t, plain(ByKey(new(counter).load)))
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Warm(t.Context(), []string{"a"}); err != ErrClosed {
			t.Errorf("%v", err)
		}
	})
}
