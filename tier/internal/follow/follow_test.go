package follow_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/tier/internal/follow"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
)

// feed is a feed in memory.
type feed struct {
	mu     sync.Mutex // guards the rest
	bounds follow.Bounds
	events []follow.Event
	raw    []follow.Event // the next batch as it is, before events
	over   bool           // the feed has ended
	fails  error          // of every call
	acked  []uint64
	news   chan struct{}
}

func newFeed(b follow.Bounds) *feed { return &feed{bounds: b, news: make(chan struct{}, 1)} }

func (f *feed) change(do func()) {
	f.mu.Lock()
	do()
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// write appends an event of one key.
func (f *feed) write(position uint64, key string) {
	f.change(func() {
		f.events = append(f.events, follow.Event{Position: position, Keys: []string{key}})
		f.bounds.End = position
	})
}

func (f *feed) Bounds(context.Context) (follow.Bounds, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bounds, f.fails
}

func (f *feed) Next(ctx context.Context, after uint64) (epoch uint64, events []follow.Event, err error) {
	for {
		f.mu.Lock()
		events, f.raw = f.raw, nil
		for _, e := range f.events {
			if e.Position > after {
				events = append(events, e)
			}
		}
		epoch, err = f.bounds.Epoch, f.fails
		if len(events) == 0 && f.over && err == nil {
			err = io.EOF
		}
		f.mu.Unlock()
		if len(events) > 0 || err != nil {
			return epoch, events, err
		}
		select {
		case <-f.news:
		case <-time.After(time.Minute):
			return epoch, nil, nil
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

func (f *feed) Ack(_ context.Context, _, position uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acked = append(f.acked, position)
	return nil
}

// cache is what a follower sees of a cache.
type cache struct {
	mu       sync.Mutex // guards the rest
	begun    []string
	confirms error
	isolated bool
	counts   follow.Counts
}

var errNames = errors.New("a member has not confirmed")

func (c *cache) config(f follow.Feed) follow.Config {
	began := time.Now()
	return follow.Config{
		Feed: f, Counts: &c.counts, Log: slog.New(slog.DiscardHandler),
		Now: func() int64 { return int64(time.Since(began)) }, Wall: time.Now, Random: func() float64 { return 0.5 },
		Begin: func(version uint64, parts ...journal.Part) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, p := range parts {
				if p.Scope == codec.ScopeAll {
					c.begun = append(c.begun, "all")
					continue
				}
				for _, name := range p.Names {
					c.begun = append(c.begun, fmt.Sprint(name, "@", version))
				}
			}
		},
		Confirm: func(context.Context) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.confirms
		},
		Unreached: func(err error) bool { return err == errNames },
		Isolated: func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.isolated
		},
	}
}

func (c *cache) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.begun, want) {
		t.Errorf("begun %q, want %q", c.begun, want)
	}
	c.begun = nil
}

// run follows f until stop is called.
func run(t *testing.T, c *cache, f *feed) (stop func()) { return start(t, c.config(f)) }

// start runs a follower until stop is called.
func start(t *testing.T, cfg follow.Config) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- follow.Run(ctx, cfg) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func (f *feed) expect(t *testing.T, want ...uint64) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.acked, want) {
		t.Errorf("acknowledged %v, want %v", f.acked, want)
	}
	f.acked = nil
}

// A follower starts after what was acknowledged, and flushes if it does not know that.
func TestStart(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var c cache
		f := newFeed(follow.Bounds{Acked: 3, End: 4})
		f.events = []follow.Event{{Position: 3, Keys: []string{"old"}}, {Position: 4, Keys: []string{"new"}, Version: 7}}
		stop := run(t, &c, f)
		c.expect(t, "new@7")
		f.expect(t, 4)
		stop()
		f.change(func() { f.bounds.Acked = 0 })
		stop = run(t, &c, f)
		c.expect(t, "all")
		f.expect(t, 4)
		stop()
	})
}

// Each key and tag of a batch is invalidated once, a key with the greatest version that its events give.
func TestBatches(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var c cache
		f := newFeed(follow.Bounds{Acked: 1, End: 4})
		f.events = []follow.Event{
			{Position: 2, Keys: []string{"a", "b"}, Version: 5, Tags: []string{"t"}},
			{Position: 3, Keys: []string{"a", ""}, Version: 9, Tags: []string{"t"}},
			{Position: 4, Keys: []string{"b"}, Version: 4},
		}
		stop := run(t, &c, f)
		c.expect(t, "b@5", "a@9", "t@0")
		f.expect(t, 4)
		if s := c.counts.Snapshot(0); s.Applied != 3 || s.Refused != 1 || s.Position != 4 || s.Acked != 4 {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

// Whenever events may be missing, everything is flushed, and the follower goes on from there.
func TestGaps(t *testing.T) {
	for name, x := range map[string]struct {
		consecutive bool
		gap         func(f *feed)
	}{
		"a number is left out": {true, func(f *feed) { f.raw, f.bounds.End = []follow.Event{{Position: 7}}, 7 }},
		"positions go back":    {false, func(f *feed) { f.raw, f.bounds.End = []follow.Event{{Position: 7}, {Position: 6}}, 7 }},
		"another numbering": {false, func(f *feed) {
			f.raw, f.bounds = []follow.Event{{Position: 6}}, follow.Bounds{Epoch: 2, Acked: 6, End: 6}
		}},
		"set back":              {false, func(f *feed) { f.raw, f.bounds.End = []follow.Event{{Position: 5}}, 4 }},
		"an event has no place": {false, func(f *feed) { f.raw, f.bounds.End = []follow.Event{{Position: 6}, {}}, 6 }},
		"the feed says so":      {false, func(f *feed) { f.fails = owner.ErrFeedGap }},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var c cache
				f := newFeed(follow.Bounds{Epoch: 1, Acked: 5, End: 5, Consecutive: x.consecutive})
				stop := run(t, &c, f)
				c.expect(t)
				f.change(func() { x.gap(f) })
				synctest.Wait()
				f.change(func() { f.fails = nil })
				time.Sleep(time.Second)
				c.expect(t, "all")
				stop()
			})
		})
	}
}

// Nothing is acknowledged before every member has confirmed, nor by a node that is isolated.
func TestAcknowledgesWhatIsConfirmed(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := cache{confirms: errNames}
		f := newFeed(follow.Bounds{Acked: 1, End: 1})
		stop := run(t, &c, f)
		f.write(2, "k")
		c.expect(t, "k@0")
		time.Sleep(time.Minute)
		f.expect(t)
		c.mu.Lock()
		c.confirms, c.isolated = nil, true
		c.mu.Unlock()
		time.Sleep(time.Minute)
		f.expect(t)
		if n := c.counts.Snapshot(0).Unconfirmed; n == 0 {
			t.Error("waiting for members is not counted")
		}
		c.mu.Lock()
		c.isolated = false
		c.mu.Unlock()
		time.Sleep(time.Minute)
		f.expect(t, 2)
		stop()
	})
}

// A feed that fails is asked again, after pauses that grow up to LongestPause, and nothing is lost.
func TestFailures(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var c cache
		f := newFeed(follow.Bounds{Acked: 1, End: 1})
		stop := run(t, &c, f)
		synctest.Wait()
		f.change(func() { f.fails = errors.New("down") })
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if s := c.counts.Snapshot(int64(5 * time.Minute)); s.Failures < 20 || s.Failures > 60 || s.DownSeconds < 299 {
			t.Errorf("%+v", s)
		}
		f.write(2, "k")
		f.change(func() { f.fails = nil })
		time.Sleep(follow.LongestPause)
		c.expect(t, "k@0")
		f.expect(t, 2)
		if s := c.counts.Snapshot(0); s.DownSeconds != 0 {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

// Run returns when the feed has ended and everything is acknowledged, or with why it is not.
func TestEnd(t *testing.T) {
	for _, confirms := range []error{nil, errNames} {
		simtime.Test(t, func(t *testing.T) {
			c := cache{confirms: confirms}
			f := newFeed(follow.Bounds{Acked: 1, End: 2})
			f.events, f.over = []follow.Event{{Position: 2, Keys: []string{"k"}}}, true
			if err := follow.Run(context.Background(), c.config(f)); err != confirms {
				t.Error(err)
			}
			c.expect(t, "k@0")
			if len(f.acked) > 0 != (confirms == nil) {
				t.Errorf("acknowledged %v", f.acked)
			}
		})
	}
}
