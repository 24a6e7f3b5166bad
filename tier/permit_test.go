package tier

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/tier/internal/owner"
)

// A permit is returned, whatever happens to the fill that held it.

// If every key of a batch already has as many loads running as it may have, the batch gives its permit back.
func TestBatchOfBusyKeysKeepsNoPermit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSim(t, 1)
		free := make(chan struct{})
		c := s.open("n0", newOrigin(), Config[simValue]{
			NearBytes: -1,
			Freshness: Freshness{TTL: time.Hour, ErrorTTL: -1, RefreshAhead: -1, Jitter: -1},
			Origin:    Origin{Timeout: time.Second, Concurrency: 16, Breaker: Breaker{Failures: -1}},
			BatchLoader: func(_ context.Context, fills []*Fill[simValue]) error {
				<-free
				for _, f := range fills {
					f.Set(simValue{})
				}
				return nil
			},
		})
		defer shut(t, c)
		keys := []string{"a", "b", "c"}
		for range owner.MaxRunning {
			for _, key := range keys {
				if _, err := c.Get(background, key); !errors.Is(err, ErrTimeout) {
					t.Fatalf("%s: %v", key, err)
				}
			}
		}
		hung := owner.MaxRunning * len(keys)
		if s := c.Stats(); s.Governor.InUse != hung || s.Running != hung {
			t.Fatalf("%d permits in use, %d loads: want %d", s.Governor.InUse, s.Running, hung)
		}
		if got, err := c.GetMany(background, keys); len(got) != 0 || err == nil {
			t.Errorf("%v, %v", got, err)
		}
		synctest.Wait()
		if s := c.Stats(); s.Governor.InUse != hung || s.Running != hung {
			t.Errorf("%d permits in use, %d loads: want %d", s.Governor.InUse, s.Running, hung)
		}
		close(free)
		synctest.Wait()
		if s := c.Stats(); s.Governor.InUse != 0 || s.Running != 0 || s.Flights != 0 {
			t.Errorf("%+v", s.Governor)
		}
	})
}

// A batch is about to be retried, and its time ends before it has its permit for the retry, so its flights are
// finished: the permit is returned. The test delays the batch at each point where the governor reads its share.
func TestBatchRetryOfFinishedFlightsKeepsNoPermit(t *testing.T) {
	for n := range int64(4) {
		bubble(t, func(t *testing.T) {
			var left, calls atomic.Int64
			s := newSim(t, 1)
			s.nodes["n0"].dividing = func() {
				if left.Add(-1) == 0 {
					time.Sleep(2 * time.Second)
				}
			}
			c := s.open("n0", newOrigin(), Config[simValue]{
				NearBytes: -1,
				Origin:    Origin{Timeout: time.Second, Retry: Retry{Backoff: time.Millisecond}},
				BatchLoader: func(context.Context, []*Fill[simValue]) error {
					if calls.Add(1) == 1 {
						left.Store(n + 1)
					}
					return Retryable(errDown)
				},
			})
			defer shut(t, c)
			if _, err := c.GetMany(background, []string{"a", "b"}); err == nil {
				t.Error("no error")
			}
			time.Sleep(5 * time.Second)
			if calls.Load() == 0 || left.Load() > 0 {
				t.Fatalf("%d calls: the batch was not held up", calls.Load())
			}
			if s := c.Stats(); s.Governor.InUse != 0 || s.Running != 0 || s.Flights != 0 {
				t.Errorf("held up at %d: %d permits in use, %d loads, %d flights", n+1, s.Governor.InUse, s.Running, s.Flights)
			}
		})
	}
}
