package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
)

// memFeed is a feed in memory.
type memFeed struct {
	mu      sync.Mutex // guards the rest
	bounds  FeedBounds
	floor   uint64 // events up to this are gone
	silent  bool   // calls do not return ErrFeedGap for them
	events  []Event
	fail    error // of Bounds and Next
	ackFail error
	acks    []uint64
	calls   int         // of Next
	asked   []uint64    // the positions that Next was called with
	script  []feedReply // replies that Next gives before it looks at events
	forever bool        // script begins again at its end
	changed chan struct{}
}

type feedReply struct {
	batch FeedBatch
	err   error
	then  func(m *memFeed) // called with mu held
}

func newMemFeed() *memFeed { return &memFeed{changed: make(chan struct{})} }

func (m *memFeed) with(f func(m *memFeed)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
	close(m.changed)
	m.changed = make(chan struct{})
}

// add appends an event of keys.
func (m *memFeed) add(keys ...string) {
	m.with(func(m *memFeed) {
		m.bounds.End++
		m.events = append(m.events, Event{Position: m.bounds.End, Change: Change{Keys: keys}, Time: time.Now()})
	})
}

func (m *memFeed) Bounds(context.Context) (FeedBounds, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bounds, m.fail
}

func (m *memFeed) Next(ctx context.Context, after uint64) (FeedBatch, error) {
	for {
		m.mu.Lock()
		m.calls++
		if len(m.asked) < 100 {
			m.asked = append(m.asked, after)
		}
		if m.fail == nil && len(m.script) > 0 {
			r := m.script[0]
			if m.script = m.script[1:]; m.forever {
				m.script = append(m.script, r)
			}
			for _, e := range r.batch.Events {
				m.bounds.End = max(m.bounds.End, e.Position)
			}
			if r.then != nil {
				r.then(m)
			}
			m.mu.Unlock()
			return r.batch, r.err
		}
		err, changed := m.fail, m.changed
		var some []Event
		for _, e := range m.events {
			if e.Position > after {
				some = append(some, e)
			}
		}
		if err == nil && !m.silent && (after < m.floor || after > m.bounds.End) {
			err = fmt.Errorf("mem: after %d: %w", after, ErrFeedGap)
		}
		epoch := m.bounds.Epoch
		m.mu.Unlock()
		if err != nil || len(some) > 0 {
			return FeedBatch{Epoch: epoch, Events: some}, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return FeedBatch{}, ctx.Err()
		}
	}
}

func (m *memFeed) Ack(_ context.Context, upTo FeedPosition) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acks = append(m.acks, upTo.Position)
	if m.ackFail != nil {
		return m.ackFail
	}
	if upTo.Epoch == m.bounds.Epoch {
		m.bounds.Acked = max(m.bounds.Acked, upTo.Position)
	}
	return nil
}

func (m *memFeed) acked() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bounds.Acked
}

// follow runs Follow until end, which returns its error.
func following(c *Cache[simValue], feed Feed) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Follow(ctx, feed) }()
	return func() error {
		cancel()
		return <-done
	}
}

// After each write, as soon as the feed has the acknowledgement, a read on every member is fresh. The writers do not
// tell the caches.
func TestFollow(t *testing.T) {
	for _, followers := range []int{1, 3} {
		bubble(t, func(t *testing.T) {
			s, o, feed := newSim(t, 3), newOrigin(), newMemFeed()
			caches := s.start(o, Config[simValue]{})
			defer s.stop(caches)
			s.setRule(func(_, _ string, _ codec.Kind, _ bool) hop { return hop{delay: time.Millisecond} })
			for _, name := range s.names[:followers] {
				end := following(caches[name], feed)
				defer func() {
					if err := end(); !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				}()
			}
			for i := range 60 {
				key := fmt.Sprint("k", i%7)
				for _, c := range caches {
					gets(t, c, key, int64(i/7))
				}
				o.write(key)
				feed.add(key)
				for feed.acked() != uint64(i+1) {
					time.Sleep(time.Millisecond)
				}
				for _, c := range caches {
					gets(t, c, key, int64(i/7+1))
				}
			}
			st := caches["n0"].Stats().Follow
			if st.Following != 1 || st.Position != 60 || st.Acked != 60 || st.Applied != 60 || st.Failures != 0 || st.DownSeconds != 0 {
				t.Errorf("%+v", st)
			}
			if followers == 1 && st.Flushes != 1 { // at the start, because the feed knew of no acknowledgement
				t.Errorf("%d flushes", st.Flushes)
			}
		})
	}
}

// Follow applies tags, events for everything and versions, and leaves out keys that no value can have.
func TestFollowApplies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, feed := newOrigin(), newMemFeed()
		o.tell = func(int64) uint64 { return 7 }
		loader := o.loader("n0")
		c := single(t, o, Config[simValue]{Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
			f.Tag("tag:" + f.Key)
			return loader(ctx, f)
		}})
		defer shut(t, c)
		end := following(c, feed)
		defer end()
		at := func(e Event, keys string) { // which of a to d are loaded again after the event
			t.Helper()
			synctest.Wait()
			for _, key := range []string{"a", "b", "c", "d"} {
				if _, err := c.Get(background, key); err != nil {
					t.Fatal(err)
				}
			}
			feed.with(func(m *memFeed) {
				m.bounds.End++
				e.Position = m.bounds.End
				m.events = append(m.events, e)
			})
			synctest.Wait()
			got := ""
			for _, key := range []string{"a", "b", "c", "d"} {
				n := o.loads.Load()
				if _, err := c.Get(background, key); err != nil {
					t.Fatal(err)
				}
				if o.loads.Load() > n {
					got += key
				}
			}
			if got != keys {
				t.Errorf("%+v: %q were loaded again, not %q", e, got, keys)
			}
		}
		at(Event{Change: Change{Keys: []string{"a", "c", "a"}}}, "ac")
		at(Event{Change: Change{Tags: []string{"tag:b"}}}, "b")
		at(Event{Change: Change{Keys: []string{"a"}, Tags: []string{"tag:d", "nobody"}}}, "ad")
		at(Event{Change: Change{All: true}}, "abcd")
		at(Event{}, "")
		at(Event{Change: Change{Keys: []string{"", "b", string(make([]byte, codec.MaxKey+1))}, Tags: []string{""}}}, "b")
		if st := c.Stats().Follow; st.Refused != 3 || st.Applied != 6 || st.Flushes != 1 || st.Acked != 6 {
			t.Errorf("%+v", st)
		}
		at(Event{Change: At(7, "a", "b")}, "ab")
		at(Event{Change: At(8, "a")}, "a")
		if n := o.loads.Load(); n > 0 {
			gets(t, c, "a", 0) // its version is below 8: not kept
			gets(t, c, "b", 0)
			if got := o.loads.Load() - n; got != 1 {
				t.Errorf("%d loads", got)
			}
		}
	})
}

// A hundred waiting events are one step, whatever they name.
func TestFollowBatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o, feed := newSim(t, 2), newOrigin(), newMemFeed()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		_ = pause(background, time.Minute)
		feed.add("k")
		feed.bounds.Acked = 1
		for i := range 20_000 {
			feed.add(fmt.Sprint("k", i%15_000))
		}
		before := s.count("n0", "n1")
		end := following(caches["n0"], feed)
		defer end()
		synctest.Wait()
		if n := s.count("n0", "n1") - before; n > 8 {
			t.Errorf("%d frames", n)
		}
		if st := caches["n0"].Stats(); st.Follow.Acked != 20_001 || st.Follow.Flushes != 0 || st.Invalidated != 15_000 {
			t.Errorf("%+v, %d invalidated", st.Follow, st.Invalidated)
		}
		if n := len(feed.acks); n != 1 {
			t.Errorf("%d acknowledgements", n)
		}
	})
}

// A member that cannot be reached delays the acknowledgement, but not what the others are told.
func TestFollowUnreached(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o, feed := newSim(t, 3), newOrigin(), newMemFeed()
		feed.add("k")
		feed.bounds.Acked = 1
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		end := following(caches["n0"], feed)
		defer end()
		_ = pause(background, 20*time.Second)
		s.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n2" || to == "n2"} })
		for i := range 10 {
			feed.add("k")
			_ = pause(background, time.Second)
			if n := caches["n1"].Stats().Fences; n != int64(i+1) {
				t.Fatalf("n1 has applied %d of %d", n, i+1)
			}
		}
		if st := caches["n0"].Stats().Follow; feed.acked() != 1 || st.Acked != 1 || st.Position != 11 || st.Unconfirmed == 0 || st.Failures != 0 {
			t.Errorf("acknowledged up to %d: %+v", feed.acked(), st)
		}
		s.setRule(nil)
		_ = pause(background, time.Second)
		if feed.acked() != 11 || caches["n2"].Stats().Fences != 10 {
			t.Errorf("acknowledged up to %d, %d fences", feed.acked(), caches["n2"].Stats().Fences)
		}
		// A member that is gone from the view is not waited for, but a node that has lost most of the others does not
		// acknowledge.
		_ = pause(background, time.Minute)
		s.setRule(func(_, _ string, _ codec.Kind, _ bool) hop { return hop{lost: true} })
		s.nodes["n0"].setView(simView(t, "n0"))
		feed.add("k")
		_ = pause(background, 20*time.Second)
		if st := caches["n0"].Stats(); feed.acked() != 11 || !st.Isolated {
			t.Errorf("isolated: acknowledged up to %d, %v", feed.acked(), st.Isolated)
		}
		s.setRule(nil)
		s.nodes["n0"].setView(simView(t, "n0", "n1"))
		_ = pause(background, 5*time.Second)
		if feed.acked() != 12 {
			t.Errorf("acknowledged up to %d", feed.acked())
		}
	})
}

func TestFollowEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{InvalidateTimeout: time.Second})
		defer s.stop(caches)
		c := caches["n0"]
		if err := c.Follow(background, nil); err == nil {
			t.Error("a nil feed")
		}
		over, cancel := context.WithCancel(background)
		cancel()
		if err := c.Follow(over, newMemFeed()); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		// The feed ends, with everything acknowledged and without.
		ended := func() *memFeed {
			feed := newMemFeed()
			feed.script = []feedReply{{batch: FeedBatch{Events: []Event{{Position: 1}, {Position: 2}}}}, {err: fmt.Errorf("over: %w", io.EOF)}}
			return feed
		}
		feed := ended()
		if err := c.Follow(background, feed); err != nil || feed.acked() != 2 {
			t.Errorf("%v, acknowledged up to %d", err, feed.acked())
		}
		s.setRule(func(_, to string, _ codec.Kind, _ bool) hop { return hop{lost: to == "n1"} })
		feed = ended()
		var inv *InvalidateError
		if err := c.Follow(background, feed); !errors.As(err, &inv) || !slices.Equal(inv.Unreached, []string{"n1"}) || feed.acked() != 0 {
			t.Errorf("%v, acknowledged up to %d", err, feed.acked())
		}
		// Close ends Follow: while the feed waits, while it fails, and while an acknowledgement is awaited.
		done := make(chan error, 3)
		broken := newMemFeed()
		broken.fail = errDown
		feed = newMemFeed()
		feed.add("k")
		for _, f := range []Feed{newMemFeed(), broken, feed} {
			go func() { done <- c.Follow(background, f) }()
		}
		_ = pause(background, 90*time.Second)
		if st := c.Stats().Follow; st.Following != 3 || st.DownSeconds < 80 {
			t.Errorf("%+v", st)
		}
		began := time.Now()
		if err := c.Close(background); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		for range 3 {
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		if err := c.Follow(background, newMemFeed()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}
