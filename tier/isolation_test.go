package tier

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/tier/internal/placement"
)

func TestWhenIsolated(t *testing.T) {
	for _, when := range []WhenIsolated{ServeStale, Bypass, Fail} {
		t.Run(when.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, o := newSim(t, 3), newOrigin()
				caches := s.start(o, Config[simValue]{WhenIsolated: when, Freshness: Freshness{TTL: time.Hour, NearTTL: time.Hour, Jitter: -1, RefreshAhead: -1}})
				defer s.stop(caches)
				c := caches["n0"]
				view := s.nodes["n0"].View()
				keys := []string{keyOf(view, "n0", 0), keyOf(view, "n1", 0)}
				for _, key := range keys {
					gets(t, c, key, 0)
				}
				settle(c)
				time.Sleep(2 * time.Duration(placement.StableFor))
				s.nodes["n0"].setView(simView(t, "n0"))
				time.Sleep(time.Second)
				if st := c.Stats(); !st.Isolated || st.Isolations != 1 || st.WhenIsolated != when.String() {
					t.Errorf("isolated %v, %d times, then %s", st.Isolated, st.Isolations, st.WhenIsolated)
				}
				for _, key := range keys {
					o.write(key) // and the invalidation does not arrive
				}
				loads := o.loads.Load()
				for range 3 {
					for _, key := range keys {
						switch when {
						case ServeStale:
							gets(t, c, key, 0)
						case Bypass:
							gets(t, c, key, 1)
						case Fail:
							if _, err := c.Get(background, key); !errors.Is(err, ErrIsolated) {
								t.Error(err)
							}
						}
					}
				}
				if when == Bypass {
					if n := o.loads.Load() - loads; n != 6 {
						t.Errorf("%d loads for 6 reads", n)
					}
					if _, err := c.Read(background, keys[0], ReadOptions{NoFill: true}); !errors.Is(err, ErrNotCached) {
						t.Error(err)
					}
				}
				// Another member does not know that n0 is isolated: n0 must not serve it either, and it turns to
				// another member.
				from := caches["n1"]
				a, err := from.Read(background, keys[0], ReadOptions{})
				if want := int64(min(when, 1)); err != nil || a.Value.Version != want {
					t.Errorf("n1 read %+v, %v", a, err)
				}
				s.nodes["n0"].setView(simView(t, "n0", "n1", "n2"))
				time.Sleep(time.Second)
				if st := c.Stats(); st.Isolated {
					t.Error("still isolated")
				}
				if _, err := c.Get(background, keys[0]); err != nil {
					t.Error(err)
				}
				loads = o.loads.Load()
				if _, err := c.Get(background, keys[0]); err != nil || o.loads.Load() != loads {
					t.Errorf("%v, %d loads: it does not cache again", err, o.loads.Load()-loads)
				}
			})
		})
	}
	if _, err := New(Config[simValue]{Loader: newOrigin().loader("n"), Freshness: Freshness{TTL: time.Second}, WhenIsolated: 3}); err == nil || !strings.Contains(err.Error(), "WhenIsolated") {
		t.Error(err)
	}
}
