package tier

import (
	"testing"
	"time"

	"github.com/weircache/weir/codec"
)

// Failures that the simulator of peer/peertest has found, each named by the number of its seed.

// A request carried an invalidation that its owner had applied, and had since forgotten with all its marks when it
// was flushed. The owner treated it as new, and loaded the key while it was already being loaded.
func TestSeed1000003(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{NearBytes: -1})
		defer s.stop(caches)
		asker, owner := caches["n0"], caches["n1"]
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		get := func() {
			if _, err := asker.Get(background, key); err != nil {
				t.Error(err)
			}
		}
		get()
		if err := caches["n2"].Invalidate(background, key); err != nil { // n0 does not know that n1 has applied it
			t.Fatal(err)
		}
		owner.own.Journal.Receive(&codec.News{Bases: []codec.Base{{Incarnation: 77, Seq: 1, Flush: true}}})
		o.delay = func() time.Duration { return 50 * time.Millisecond }
		loaded := make(chan struct{})
		go func() {
			defer close(loaded)
			if _, err := owner.Get(background, key); err != nil {
				t.Error(err)
			}
		}()
		_ = pause(background, 20*time.Millisecond)
		get()
		<-loaded
		if o.most != 1 || o.loads.Load() != 2 {
			t.Errorf("%d loads, %d at once", o.loads.Load(), o.most)
		}
	})
}
