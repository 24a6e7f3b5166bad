package tier

import (
	"context"
	"sync"
	"testing"
	"time"
)

// A Get after an InvalidateTag does not wait for a load that began before it, neither at the key's owner nor on
// another member, whenever the loader names the tag. A caller from before gets that load's value.
func TestInvalidateTagDetachesFlights(t *testing.T) {
	const load = time.Second
	for name, c := range map[string]struct {
		tagAt time.Duration // when the loader names the tag, since its start
		stale bool          // the load refreshes a stale copy that has the tag
		want  time.Duration // when the second caller gets its value
	}{
		"told before the origin is read": {0, false, 500*time.Millisecond + load},
		"told meanwhile":                 {700 * time.Millisecond, false, 700*time.Millisecond + load},
		"of the copy that is refreshed":  {load, true, 500*time.Millisecond + load},
	} {
		for _, node := range []string{"n0", "n1"} {
			t.Run(name+", "+node, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					s, o := newSim(t, 2), newOrigin()
					caches := s.start(o, Config[simValue]{
						Freshness: Freshness{TTL: time.Minute, StaleWhileRevalidate: time.Hour, NearTTL: -1, Jitter: -1, RefreshAhead: -1},
						Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
							v, err := o.loader("x")(ctx, f)
							_ = pause(ctx, c.tagAt)
							f.Tag("t")
							_ = pause(ctx, load-c.tagAt)
							return v, err
						},
					})
					defer s.stop(caches)
					key := keyOf(s.nodes["n0"].View(), "n0", 0)
					if c.stale {
						gets(t, caches["n0"], key, 0)
						_ = pause(background, 2*time.Minute)
					}
					began := time.Now()
					var wg sync.WaitGroup
					wg.Go(func() {
						gets(t, caches[node], key, 0)
						if d := time.Since(began); c.stale && d != 0 || !c.stale && d != load {
							t.Errorf("the caller from before the invalidation waited %v", d)
						}
					})
					_ = pause(background, 500*time.Millisecond)
					o.write(key)
					if err := caches["n1"].InvalidateTag(background, "t"); err != nil {
						t.Fatal(err)
					}
					gets(t, caches[node], key, 1)
					if d := time.Since(began); d != c.want {
						t.Errorf("the caller from after the invalidation had its value after %v, want %v", d, c.want)
					}
					wg.Wait()
					gets(t, caches[node], key, 1)
				})
			})
		}
	}
}

// An invalidation of a tag does not affect flights of other tags.
func TestInvalidateTagSparesOtherFlights(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 1), newOrigin()
		caches := s.start(o, Config[simValue]{Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
			f.Tag("t")
			v, err := o.loader("x")(ctx, f)
			_ = pause(ctx, time.Second)
			return v, err
		}})
		defer s.stop(caches)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { gets(t, caches["n0"], "k", 0) })
			_ = pause(background, 100*time.Millisecond)
			if err := caches["n0"].InvalidateTag(background, "another"); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		if n := o.loads.Load(); n != 1 {
			t.Errorf("%d loads", n)
		}
	})
}
