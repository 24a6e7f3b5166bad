package tier

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/journal"
)

// slowFeed delays its first acknowledgement.
type slowFeed struct {
	*memFeed
	first sync.Once
	acks  chan uint64
	hold  chan struct{}
}

func (f *slowFeed) Ack(ctx context.Context, p FeedPosition) error {
	f.acks <- p.Position
	f.first.Do(func() { <-f.hold })
	return f.memFeed.Ack(ctx, p)
}

// Follow acknowledges an event only when every member has applied it, even if a later invalidation reached a member
// earlier by way of another one.
func TestFollowAcknowledgesWhatIsApplied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n2", 0)
		for _, c := range caches {
			gets(t, c, key, 0)
		}
		_ = pause(background, 20*time.Second)
		// n0 and n2 do not reach each other. n1 reaches both, but n2 does not learn from it what it lacks: n2 notices a
		// gap when it is told of a later invalidation.
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: from == "n0" && to == "n2" || from == "n2" && to == "n0" || kind == codec.KindSync && (from == "n2" || to == "n2")}
		})
		f := &slowFeed{memFeed: newMemFeed(), acks: make(chan uint64, 10), hold: make(chan struct{})}
		f.add("x")
		ctx, cancel := context.WithCancel(background)
		done := make(chan error, 1)
		go func() { done <- caches["n0"].Follow(ctx, f) }()
		if n := <-f.acks; n != 1 {
			t.Fatalf("acknowledged up to %d", n)
		}
		_ = pause(background, 10*time.Second)
		gets(t, caches["n2"], key, 0)
		o.write(key)
		f.add(key) // event 2, whose acknowledgement no caller waits for yet
		synctest.Wait()
		began := time.Now()
		if err := caches["n0"].Invalidate(background, "other"); err != nil || time.Since(began) > time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		gets(t, caches["n2"], key, 0) // n2 was not told of event 2, so the test proves something
		relays := caches["n0"].Stats().Relayed
		close(f.hold)
		if n := <-f.acks; n != 2 {
			t.Fatalf("acknowledged up to %d", n)
		}
		gets(t, caches["n2"], key, 1)
		if n := caches["n0"].Stats().Relayed - relays; n > 2 {
			t.Errorf("%d relays for one event", n)
		}
		cancel()
		<-done
	})
}

// What a member has confirmed by way of another one is not sent again and again while a caller waits for a third
// member.
func TestRelayIsNotRepeated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 4), newOrigin()
		caches := s.start(o, Config[simValue]{InvalidateTimeout: time.Second})
		defer s.stop(caches)
		_ = pause(background, 20*time.Second)
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: from == "n0" && to == "n2" || from == "n2" && to == "n0" || from == "n3" || to == "n3"}
		})
		var inv *InvalidateError
		for range 2 { // the first one stays unconfirmed at n3; n2 confirms the second one without a gap
			if err := caches["n0"].Invalidate(background, "k"); !errors.As(err, &inv) || !slices.Equal(inv.Unreached, []string{"n3"}) {
				t.Fatal(err)
			}
		}
		if n := caches["n0"].Stats().Relayed; n > 4 {
			t.Errorf("%d relays for two invalidations", n)
		}
	})
}

// Invalidate names a member that leaves the view while its many frames are being sent, unless that member has confirmed
// all of them.
func TestInvalidateNamesWhoLeavesMeanwhile(t *testing.T) {
	for _, n := range []int{codec.MaxKeysPerFrame, 3 * codec.MaxKeysPerFrame} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 2), newOrigin()
			caches := s.start(o, Config[simValue]{limits: journal.Limits{Bytes: 200 << 10}})
			defer s.stop(caches)
			key := keyOf(s.nodes["n0"].View(), "n1", 0)
			_ = pause(background, 20*time.Second)
			s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
				return hop{lost: kind != codec.KindGet, silent: true}
			})
			keys := append(keysNamed(n - 1)[:n-1:n-1], key)
			var wg sync.WaitGroup
			wg.Go(func() {
				err := caches["n0"].Invalidate(background, keys...)
				var inv *InvalidateError
				if !errors.As(err, &inv) || !slices.Equal(inv.Unreached, []string{"n1"}) || !errors.Is(err, journal.ErrGone) {
					t.Errorf("%d keys: n1 was told of none of them, and the error is %v", n, err)
				}
			})
			_ = pause(background, 100*time.Millisecond)
			s.nodes["n0"].setView(simView(t, "n0"))
			wg.Wait()
			s.setRule(nil)
		})
	}
}
