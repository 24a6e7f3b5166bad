package wire_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestTickingRests checks that an occasional call does not keep a link ticking, and that the link ticks while a call waits.
func TestTickingRests(t *testing.T) {
	const soon = 100 * time.Millisecond
	bubble(t, func(t *testing.T) {
		open := make(chan struct{})
		w := newPair(t, false, gated(open, nil))
		w.mustGet(t, "hit")
		for range 3 {
			wiretest.Pause(t.Context(), soon)
			ticking, rested := w.a.Ticking("b")
			wiretest.Pause(t.Context(), time.Second)
			if again, tick := w.a.Ticking("b"); ticking || again || tick != rested {
				t.Errorf("without a call for %v: ticking %v; then %v, and at tick %d after %d", soon, ticking, again, tick, rested)
			}
			w.mustGet(t, "hit")
			if ticking, _ := w.a.Ticking("b"); !ticking {
				t.Error("a call has not started the ticking")
			}
		}
		done := make(chan error, 1)
		go func() {
			_, _, err := w.get(t.Context(), "slow", 0)
			done <- err
		}()
		wiretest.Pause(t.Context(), time.Second)
		ticking, tick := w.a.Ticking("b")
		if now := w.a.Now("b"); !ticking || now-tick > 1 {
			t.Errorf("a call waits: ticking %v, at tick %d of %d", ticking, tick, now)
		}
		if w.a.StopTicking("b") { // as if the call had come after the tick checked the calls
			t.Error("the ticking stops although a call waits")
		}
		close(open)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestTickingStopsAndStarts has callers pause about as long as it takes the ticking to stop. It checks that each call ends
// in time, with its own answer, its timeout or its cancel. The other side ignores timeouts and cancels, so that a call
// whose tick does not come never ends.
func TestTickingStopsAndStarts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	bubble(t, func(t *testing.T) {
		end := make(chan struct{})
		w := newPair(t, false, &scripted{serve: func(context.Context, *codec.Request, *codec.Response) { <-end }})
		w.mustGet(t, "hit")
		var wg sync.WaitGroup
		for i := range uint64(3) {
			r := rand.New(rand.NewPCG(seed, i))
			wg.Go(func() {
				for range 300 {
					wiretest.Pause(t.Context(), time.Duration(r.Int64N(int64((idleTicks+2)*linkTick))))
					limit := time.Millisecond + time.Duration(r.Int64N(int64(3*linkTick)))
					began := time.Now()
					var err, want error
					switch r.IntN(3) {
					case 0:
						if _, value, _ := w.get(t.Context(), "hit", limit); value != "value of hit" {
							t.Errorf("got %q", value)
						}
					case 1:
						ctx, cancel := context.WithCancel(t.Context())
						timer := time.AfterFunc(limit, cancel)
						_, _, err = w.get(ctx, "slow", 0)
						timer.Stop()
						cancel()
						want = context.Canceled
					default:
						ctx, cancel := context.WithCancel(t.Context())
						watchdog := time.AfterFunc(time.Second, cancel)
						_, _, err = w.get(ctx, "slow", limit)
						watchdog.Stop()
						cancel()
						want = context.DeadlineExceeded
					}
					if took := time.Since(began); !errors.Is(err, want) || took > limit+3*linkTick {
						t.Errorf("%v after %v, the limit is %v", err, took, limit)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if left := w.a.Peers()[0].InFlight; left > 0 {
			t.Errorf("%d calls are left", left)
		}
		close(end)
	})
}
