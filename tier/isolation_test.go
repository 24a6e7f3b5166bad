package tier

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// What counts as isolated: more than half of those who did not say goodbye are out of sight.
func TestIsolated(t *testing.T) {
	for _, c := range []struct {
		stable, sees, left string
		want               bool
	}{
		{"", "a", "", false},
		{"a", "a", "", false},
		{"ab", "a", "", false}, // half is not more than half
		{"abc", "a", "", true},
		{"abc", "ab", "", false},
		{"abc", "abc", "", false},
		{"abc", "ade", "", true}, // those who came count for nothing
		{"abcd", "ab", "", false},
		{"abcd", "a", "", true},
		{"abcde", "ab", "", true},
		{"abcde", "abc", "", false},
		{"abcde", "ab", "cde", false},
		{"abcde", "ab", "cd", false}, // one of three is lost
		{"abcde", "a", "cd", true},   // two of three
		{"abcde", "a", "bcde", false},
		{"abc", "a", "a", true}, // who is in sight has not left
		{"abc", "", "", true},
	} {
		var stable []string
		for _, r := range c.stable {
			stable = append(stable, string(r))
		}
		in := func(s string) func(string) bool { return func(name string) bool { return strings.Contains(s, name) } }
		if got := isolated(stable, in(c.sees), in(c.left)); got != c.want {
			t.Errorf("of %q sees %q, %q left: %v", c.stable, c.sees, c.left, got)
		}
	}
}

// A view is stable once it has stood for stableFor, and stays the measure while the node is isolated.
func TestIsolationLook(t *testing.T) {
	nobody := func(string) bool { return false }
	all, two, one := simView(t, "a", "b", "c"), simView(t, "a", "b"), simView(t, "a")
	var s isolation
	look := func(n int, at time.Duration, want bool) {
		t.Helper()
		v := one
		if n > 1 {
			v = two
		}
		if n > 2 {
			v = all
		}
		if off, _ := s.look(v, int64(at), nobody, nobody); off != want {
			t.Errorf("%d members at %v: isolated %v", n, at, off)
		}
	}
	look(3, 0, false)
	look(1, 29*time.Second, false) // no view has been stable yet
	look(3, 30*time.Second, false)
	look(2, 61*time.Second, false) // all had been for 31 s
	look(1, 62*time.Second, true)  // two had not
	look(1, time.Hour, true)       // time alone changes nothing
	look(2, time.Hour, false)
	look(2, time.Hour+31*time.Second, false)
	look(1, time.Hour+32*time.Second, false) // half of two

	// Who is in the view and silent counts as lost, also if it has not been lost by gossip's account.
	s = isolation{}
	left := func(string) bool { return true }
	for _, x := range []struct {
		silent string
		want   bool
	}{{"", false}, {"b", false}, {"bc", true}, {"c", false}} {
		silent := func(name string) bool { return strings.Contains(x.silent, name) }
		s.look(all, 0, nobody, left)
		if off, _ := s.look(all, int64(31*time.Second), silent, left); off != x.want {
			t.Errorf("silent are %q: isolated %v", x.silent, off)
		}
	}
}

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
				time.Sleep(2 * time.Duration(stableFor))
				s.nodes["n0"].setView(simView(t, "n0"))
				time.Sleep(time.Second)
				if st := c.Stats(); !st.Isolated || st.Isolations != 1 || st.WhenIsolated != when.String() {
					t.Errorf("isolated %v, %d times, then %s", st.Isolated, st.Isolations, st.WhenIsolated)
				}
				for _, key := range keys {
					o.write(key) // and the invalidation does not come through
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
				// Another member does not know: it must not be served either, and turns to somebody else.
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
