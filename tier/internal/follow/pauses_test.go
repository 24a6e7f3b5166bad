package follow_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/tier/internal/follow"
	"github.com/weircache/weir/tier/internal/owner"
)

// script is a feed of functions that notes when it was called. A nil next waits for its context.
type script struct {
	mu     sync.Mutex // guards the rest between the follower and a test that goes on meanwhile
	bounds follow.Bounds
	fails  error // of Bounds
	next   func(after uint64) (events []follow.Event, err error)
	ack    func() error

	asked, acks []time.Time // calls of Next, and of Bounds while it fails; of Ack
}

func (s *script) Bounds(context.Context) (follow.Bounds, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		s.asked = append(s.asked, time.Now())
	}
	return s.bounds, s.fails
}

func (s *script) Next(ctx context.Context, after uint64) (uint64, []follow.Event, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	next := s.next
	s.mu.Unlock()
	if next == nil {
		<-ctx.Done()
		return 0, nil, ctx.Err()
	}
	events, err := next(after)
	return s.bounds.Epoch, events, err
}

func (s *script) Ack(context.Context, uint64, uint64) error {
	s.acks = append(s.acks, time.Now())
	if s.ack == nil {
		return nil
	}
	return s.ack()
}

// expectPauses compares the times between calls.
func expectPauses(t *testing.T, calls []time.Time, want ...time.Duration) {
	t.Helper()
	var got []time.Duration
	for i := range len(want) {
		if i+1 < len(calls) {
			got = append(got, calls[i+1].Sub(calls[i]))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pauses %v, want %v", got, want)
	}
}

const ms = time.Millisecond

// growing are the pauses after failed calls, of which random number 0.5 takes three quarters.
var growing = []time.Duration{75 * ms, 150 * ms, 300 * ms, 600 * ms, 1200 * ms, 2400 * ms, 4800 * ms, 7500 * ms, 7500 * ms}

func TestPausesAfterFailures(t *testing.T) {
	for name, x := range map[string]struct {
		random float64
		want   []time.Duration
	}{
		"the mean":  {0.5, growing},
		"the least": {0, []time.Duration{50 * ms, 100 * ms}},
		"the most":  {0.9, []time.Duration{95 * ms, 190 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var c cache
				var log testlog.Log
				f := &script{bounds: follow.Bounds{Acked: 1, End: 1}}
				f.next = func(uint64) ([]follow.Event, error) {
					f.fails = errors.New("down")
					return nil, f.fails
				}
				cfg := c.config(f)
				cfg.Random = func() float64 { return x.random }
				cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
				began := cfg.Now()
				time.Sleep(time.Hour)
				stop := start(t, cfg)
				time.Sleep(time.Minute)
				synctest.Wait()
				expectPauses(t, f.asked, x.want...)
				failures := int(c.counts.Failures.Load())
				if len(f.asked) != failures || strings.Count(log.String(), "the feed fails") != failures {
					t.Errorf("%d failures counted, %d calls:\n%s", failures, len(f.asked), log.String())
				}
				if _, first, _ := strings.Cut(log.String(), "failures="); !strings.HasPrefix(first, "1 ") || !strings.Contains(first, "failures=2 ") {
					t.Errorf("the log does not number the failures:\n%s", log.String())
				}
				if s := c.counts.Snapshot(cfg.Now()); s.DownSeconds != 60 || began != 0 || s.Following != 1 {
					t.Errorf("%+v", s)
				}
				f.mu.Lock()
				f.fails, f.next = nil, nil
				f.mu.Unlock()
				time.Sleep(follow.LongestPause)
				synctest.Wait()
				if s := c.counts.Snapshot(cfg.Now()); s.DownSeconds != 0 {
					t.Errorf("%+v", s)
				}
				stop()
				if s := c.counts.Snapshot(cfg.Now()); s.Following != 0 {
					t.Errorf("%+v", s)
				}
				c.expect(t)
			})
		})
	}
}

// A feed that says nothing new is asked again after pauses that grow, the time that it took included.
func TestPausesWithoutNews(t *testing.T) {
	for took, want := range map[time.Duration][]time.Duration{
		0:       {10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, time.Second, time.Second},
		50 * ms: {50 * ms, 50 * ms, 50 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, time.Second, time.Second},
	} {
		simtime.Test(t, func(t *testing.T) {
			var c cache
			f := &script{bounds: follow.Bounds{Acked: 5, End: 5}}
			f.next = func(after uint64) ([]follow.Event, error) {
				time.Sleep(took)
				if len(f.asked) == 11 { // the pauses begin again
					f.bounds.End = 6
					return []follow.Event{{Position: 6}}, nil
				}
				return []follow.Event{{Position: after}}, nil
			}
			time.Sleep(time.Hour)
			stop := start(t, c.config(f))
			time.Sleep(time.Minute)
			synctest.Wait()
			expectPauses(t, f.asked, slices.Concat(want, []time.Duration{time.Second, took}, want)...)
			if s := c.counts.Snapshot(0); s.Flushes != 0 || s.Failures != 0 || s.Applied != 1 {
				t.Errorf("%+v", s)
			}
			stop()
		})
	}
}

// A feed without news that does not tell where it is has failed.
func TestPausesWithoutNewsAndBounds(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var c cache
		f := &script{bounds: follow.Bounds{Acked: 5, End: 5}}
		f.next = func(uint64) ([]follow.Event, error) {
			f.fails = errors.New("down")
			return nil, nil
		}
		stop := start(t, c.config(f))
		time.Sleep(time.Minute)
		synctest.Wait()
		expectPauses(t, f.asked, append([]time.Duration{0}, growing...)...)
		stop()
	})
}

// The namespace is not flushed all the time for a feed that always misses something or is always out of order. The first
// time costs no pause, and after an event in order the pauses begin again. A start is the first time that a feed is begun.
func TestPausesBetweenFlushes(t *testing.T) {
	disorder := []time.Duration{0, 10 * ms, 20 * ms, 40 * ms, 80 * ms}
	for name, x := range map[string]struct {
		events []follow.Event
		err    error
		first  []time.Duration // pauses after the start
		again  []time.Duration // pauses after an event in order
	}{
		"a gap":        {nil, owner.ErrFeedGap, growing, append([]time.Duration{0}, growing...)},
		"out of order": {[]follow.Event{{Position: 8}, {Position: 7}}, nil, disorder, disorder},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var c cache
				f := &script{bounds: follow.Bounds{Acked: 5, End: 1000}}
				calm := len(x.first) + 1 // the number of the call that brings an event in order
				f.next = func(after uint64) ([]follow.Event, error) {
					if len(f.asked) == calm {
						return []follow.Event{{Position: after + 1}}, nil
					}
					events := slices.Clone(x.events)
					for i := range events {
						events[i].Position += after
					}
					return events, x.err
				}
				stop := start(t, c.config(f))
				time.Sleep(time.Minute)
				synctest.Wait()
				expectPauses(t, f.asked, slices.Concat(x.first, []time.Duration{0}, x.again)...)
				if n := int(c.counts.Flushes.Load()); n < 2*len(x.first) {
					t.Errorf("%d flushes in %d calls", n, len(f.asked))
				}
				stop()
			})
		})
	}
}

// A member that has not confirmed is waited for in equal pauses, and a feed that takes no acknowledgement in growing ones.
func TestPausesBeforeAcknowledgements(t *testing.T) {
	equal := slices.Repeat([]time.Duration{100 * ms}, 9)
	for name, x := range map[string]struct {
		change  func(c *cache, f *script)
		want    []time.Duration
		refused bool
	}{
		"a member": {func(c *cache, _ *script) { c.confirms = errNames }, equal, false},
		"isolated": {func(c *cache, _ *script) { c.isolated = true }, equal, false},
		"the feed": {func(_ *cache, f *script) { f.ack = func() error { return errors.New("no") } }, growing, true},
		"a panic":  {func(_ *cache, f *script) { f.ack = func() error { panic("no") } }, growing, true},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var c cache
				var log testlog.Log
				f := &script{bounds: follow.Bounds{End: 7}}
				x.change(&c, f)
				cfg := c.config(f)
				cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
				var tries []time.Time
				confirm := cfg.Confirm
				cfg.Confirm = func(ctx context.Context) error {
					tries = append(tries, time.Now())
					return confirm(ctx)
				}
				stop := start(t, cfg)
				time.Sleep(time.Minute)
				synctest.Wait()
				expectPauses(t, tries, x.want...)
				refused, waited, logged := len(tries), 0, 0
				if !x.refused {
					refused, waited, logged = 0, len(tries), 1
				}
				if s := c.counts.Snapshot(0); int(s.Failures) != refused || int(s.Unconfirmed) != waited || s.Acked != 0 {
					t.Errorf("%d tries: %+v", len(tries), s)
				}
				if n := strings.Count(log.String(), "events are not acknowledged yet"); n != logged {
					t.Errorf("the wait for a member was logged %d times, want %d", n, logged)
				}
				if n := strings.Count(log.String(), "the feed takes no acknowledgement"); n != refused {
					t.Errorf("the feed's refusal was logged %d times, want %d", n, refused)
				}
				stop()
			})
		})
	}
}
