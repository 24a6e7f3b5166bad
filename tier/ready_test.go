package tier

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/owner"
)

// A new cache names the members with which it has not exchanged positions yet, as long as that matters.
func TestPositionsDue(t *testing.T) {
	for _, heals := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 3), newOrigin()
			caches := s.start(o, Config[simValue]{})
			defer s.stop(caches)
			due := func() []string {
				names := newHandler(caches["n0"]).PositionsDue()
				slices.Sort(names)
				return names
			}
			synctest.Wait()
			if d := due(); len(d) != 0 {
				t.Fatalf("due with %v though all answer", d)
			}
			if err := caches["n0"].Close(background); err != nil {
				t.Fatal(err)
			}
			s.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n2" || to == "n2"} })
			caches["n0"] = s.open("n0", o, Config[simValue]{})
			synctest.Wait()
			if d := due(); !slices.Equal(d, []string{"n2"}) {
				t.Errorf("due with %v", d)
			}
			if heals {
				s.setRule(nil)
				_ = pause(background, 5*time.Second)
			} else {
				_ = pause(background, owner.NewFor-time.Second)
				if d := due(); !slices.Equal(d, []string{"n2"}) {
					t.Errorf("due with %v just before the wait is over", d)
				}
				_ = pause(background, 3*time.Second)
			}
			if d := due(); len(d) != 0 {
				t.Errorf("heals: %v; still due with %v", heals, d)
			}
		})
	}
}
