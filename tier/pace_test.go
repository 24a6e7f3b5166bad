package tier

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/journal"
)

// A log that is full of entries that every member has confirmed does not slow down an Invalidate.
func TestFullLogHoldsNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{limits: journal.Limits{Bytes: 32 << 10}})
		defer s.stop(caches)
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for k := range 20 {
					if err := caches["n0"].Invalidate(background, fmt.Sprint(i, ":", k)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 0 { // the simulated network takes no time
			t.Errorf("waited %v for room in the log", took)
		}
	})
}

// A caller that invalidates more than the log has room for waits for a slow member, so that the member loses nothing.
func TestPaceKeepsTheLogWhole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{limits: journal.Limits{Bytes: 32 << 10}})
		defer s.stop(caches)
		s.setRule(func(_, to string, kind codec.Kind, _ bool) hop {
			if to == "n2" && kind == codec.KindInvalidate {
				return hop{delay: 50 * time.Millisecond}
			}
			return hop{}
		})
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				if err := caches["n0"].Invalidate(background, fmt.Sprint("k", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for name, c := range caches {
			if n := c.Stats().Flushed; n > 0 {
				t.Errorf("%s was flushed %d times", name, n)
			}
		}
	})
}
