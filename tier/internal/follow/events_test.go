package follow_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/tier/internal/follow"
	"github.com/weircache/weir/tier/internal/journal"
)

// at returns events of one key each, which is named after the position.
func at(positions ...uint64) (events []follow.Event) {
	for _, p := range positions {
		events = append(events, follow.Event{Position: p, Keys: []string{string(rune('a' + p))}})
	}
	return events
}

// A follower that has applied everything up to 5 applies what is newer, once, and flushes if the order says that
// something is missing.
func TestOrderOfEvents(t *testing.T) {
	for name, x := range map[string]struct {
		events      []follow.Event
		consecutive bool
		want        []string
		repeated    int64
		applied     int64
		position    uint64
	}{
		"in order":              {at(6, 7, 9), false, []string{"g@0", "h@0", "j@0"}, 0, 3, 9},
		"consecutive":           {at(6, 7, 8), true, []string{"g@0", "h@0", "i@0"}, 0, 3, 8},
		"one is left out":       {at(6, 8), true, []string{"all"}, 0, 2, 8},
		"the first is left out": {at(7, 8), true, []string{"all"}, 0, 2, 8},
		"the last again":        {at(5, 6), true, []string{"g@0"}, 1, 1, 6},
		"old ones again":        {at(2, 3, 5, 6, 7), true, []string{"g@0", "h@0"}, 3, 2, 7},
		"an old one again":      {at(3, 6), false, []string{"g@0"}, 1, 1, 6},
		"one twice in a row":    {at(6, 6, 7), true, []string{"g@0", "h@0"}, 1, 2, 7},
		"nothing new":           {at(4, 5), false, nil, 2, 0, 5},
		"back":                  {at(7, 6), false, []string{"all"}, 0, 2, 7},
		"back to an old one":    {at(6, 4), false, []string{"all"}, 0, 2, 6},
		"without a position":    {at(0, 6), false, []string{"all"}, 0, 2, 6},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var c cache
				f := &script{bounds: follow.Bounds{Acked: 5, End: max(5, x.position), Consecutive: x.consecutive}}
				f.next = func(uint64) ([]follow.Event, error) { f.next = nil; return x.events, nil }
				stop := start(t, c.config(f))
				time.Sleep(time.Minute)
				c.expect(t, x.want...)
				if s := c.counts.Snapshot(0); s.Repeated != x.repeated || s.Applied != x.applied || s.Position != x.position {
					t.Errorf("%+v", s)
				}
				stop()
			})
		})
	}
}

// The keys of one version are one invalidation.
func TestOneInvalidationForEachVersion(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var c cache
		f := &script{bounds: follow.Bounds{Acked: 5, End: 7}}
		f.next = func(uint64) ([]follow.Event, error) {
			f.next = nil
			return []follow.Event{
				{Position: 6, Keys: []string{"a", "b", "c"}, Version: 3, Tags: []string{"t", ""}, All: true},
				{Position: 7, Keys: []string{"d", "e"}, Version: 2, Tags: []string{"t", "u"}},
			}, nil
		}
		var begun []string
		cfg := c.config(f)
		cfg.Begin = func(version uint64, parts ...journal.Part) {
			for _, p := range parts {
				begun = append(begun, map[codec.Scope]string{codec.ScopeAll: "all", codec.ScopeKeys: "keys", codec.ScopeTags: "tags"}[p.Scope]+
					" "+strings.Join(p.Names, ",")+" "+string(rune('0'+version)))
			}
		}
		stop := start(t, cfg)
		synctest.Wait()
		if want := []string{"all  0", "keys d,e 2", "keys a,b,c 3", "tags t,u 0"}; !slices.Equal(begun, want) {
			t.Errorf("begun %q, want %q", begun, want)
		}
		if s := c.counts.Snapshot(0); s.Refused != 1 {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

func TestLag(t *testing.T) {
	for ago, want := range map[time.Duration]float64{3 * time.Second: 3, -time.Minute: 0} {
		simtime.Test(t, func(t *testing.T) {
			var c cache
			f := &script{bounds: follow.Bounds{Acked: 5, End: 6}}
			f.next = func(uint64) ([]follow.Event, error) {
				f.next = nil
				return []follow.Event{{Position: 6, Time: time.Now().Add(-time.Hour)}, {Position: 7, Time: time.Now().Add(-ago)}}, nil
			}
			stop := start(t, c.config(f))
			synctest.Wait()
			if s := c.counts.Snapshot(0); s.LagSeconds != want {
				t.Errorf("%v ago: %+v", ago, s)
			}
			stop()
		})
	}
}

// A follower that ends tries once more to acknowledge the last events.
func TestEndTriesAgain(t *testing.T) {
	for _, fails := range []int{1, 2} {
		simtime.Test(t, func(t *testing.T) {
			var c cache
			f := &script{bounds: follow.Bounds{Acked: 5, End: 6}}
			f.next = func(after uint64) ([]follow.Event, error) {
				if after == 6 {
					return nil, io.EOF
				}
				return at(6), nil
			}
			tries, failed := 0, errors.New("not yet")
			cfg := c.config(f)
			cfg.Confirm = func(context.Context) error {
				time.Sleep(time.Second) // the feed ends meanwhile
				if tries++; tries <= fails {
					return failed
				}
				return nil
			}
			err := follow.Run(context.Background(), cfg)
			if done := fails < 2; done != (err == nil) || done != (len(f.acks) == 1) || !done && err != failed || tries != 2 {
				t.Errorf("%d failures, %d tries, %d acknowledgements: %v", fails, tries, len(f.acks), err)
			}
		})
	}
}

// A wait for a member is logged once for the events that it delays, although others were acknowledged just before.
func TestLogsEachDelay(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var c cache
		var log testlog.Log
		f := &script{bounds: follow.Bounds{Acked: 5, End: 7}}
		f.next = func(after uint64) ([]follow.Event, error) {
			time.Sleep(time.Second)
			if after == 7 {
				f.next = nil
				return nil, nil
			}
			return at(after + 1), nil
		}
		cfg := c.config(f)
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		tries := 0
		cfg.Confirm = func(context.Context) error {
			if tries++; tries == 1 {
				time.Sleep(time.Minute) // more is applied meanwhile
				return nil
			}
			return errNames
		}
		stop := start(t, cfg)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "events are not acknowledged yet"); n != 1 || tries < 10 {
			t.Errorf("logged %d times in %d tries:\n%s", n, tries, log.String())
		}
		stop()
	})
}
