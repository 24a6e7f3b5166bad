package tier

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/follow"
)

func eventsAt(positions ...uint64) FeedBatch {
	var b FeedBatch
	for _, p := range positions {
		b.Events = append(b.Events, Event{Position: p, Change: Change{Keys: []string{"told"}}})
	}
	return b
}

// Follow survives feeds that misbehave. Each feed begins after position 5 and has "told" in its events. Its behaviour
// must lose nothing: where it may have, the namespace is flushed. None keeps the processor busy.
func TestFollowBadFeeds(t *testing.T) {
	says := func(positions ...uint64) feedReply { return feedReply{batch: eventsAt(positions...)} }
	end := func(end uint64) func(*memFeed) { return func(m *memFeed) { m.bounds.End = end } }
	for _, x := range []struct {
		name        string
		script      []feedReply
		forever     bool       // the script begins again at its end
		bounds      FeedBounds // instead of {Acked: 5, End: 5}
		want        FollowStats
		told, other bool // whether these keys have been loaded again
		calls       int  // the most calls in a minute; 0: 10
	}{
		{name: "good", script: []feedReply{says(6, 7)},
			want: FollowStats{Position: 7, Applied: 2}, told: true},
		{name: "leaves out numbers that need not be consecutive", script: []feedReply{says(6, 9)},
			want: FollowStats{Position: 9, Applied: 2}, told: true},
		{name: "repeats, then goes on", script: []feedReply{says(4, 5, 6)},
			want: FollowStats{Position: 6, Applied: 1, Repeated: 2}, told: true},
		{name: "repeats within a batch", script: []feedReply{says(6, 6, 7, 7)},
			want: FollowStats{Position: 7, Applied: 2, Repeated: 2}, told: true},
		{name: "repeats a batch", script: []feedReply{says(6, 7), says(6, 7), says(7, 8)},
			want: FollowStats{Position: 8, Applied: 3, Repeated: 3}, told: true},
		{name: "repeats for ever", script: []feedReply{says(3)}, forever: true, calls: 80,
			want: FollowStats{Position: 5}},
		{name: "answers with nothing", script: []feedReply{says(), says(), says(6)},
			want: FollowStats{Position: 6, Applied: 1}, told: true},
		{name: "leaves out one of consecutive numbers", script: []feedReply{says(6, 8)}, bounds: FeedBounds{Acked: 5, End: 5, Consecutive: true},
			want: FollowStats{Position: 8, Applied: 2, Flushes: 1}, told: true, other: true},
		{name: "leaves out the first of consecutive numbers", script: []feedReply{says(7)}, bounds: FeedBounds{Acked: 5, End: 5, Consecutive: true},
			want: FollowStats{Position: 7, Applied: 1, Flushes: 1}, told: true, other: true},
		{name: "consecutive", script: []feedReply{says(6), says(7, 8)}, bounds: FeedBounds{Acked: 5, End: 5, Consecutive: true},
			want: FollowStats{Position: 8, Applied: 3}, told: true},
		{name: "goes back within a batch", script: []feedReply{says(6, 9, 7, 8)},
			want: FollowStats{Position: 9, Applied: 4, Flushes: 1}, told: true, other: true},
		{name: "goes back below the beginning within a batch", script: []feedReply{says(8, 2)},
			want: FollowStats{Position: 8, Applied: 2, Flushes: 1}, told: true, other: true},
		{name: "was set back, and says so by its events", script: []feedReply{{batch: eventsAt(1), then: end(1)}},
			want: FollowStats{Position: 1, Repeated: 1, Flushes: 1}, told: true, other: true},
		{name: "was set back, and has nothing to tell", script: []feedReply{{then: end(2)}},
			want: FollowStats{Position: 2, Flushes: 1}, told: true, other: true},
		{name: "was set back while it failed", script: []feedReply{{err: errDown, then: end(4)}},
			want: FollowStats{Position: 4, Flushes: 1, Failures: 1}, told: true, other: true},
		{name: "is another one, with greater numbers", script: []feedReply{{batch: FeedBatch{Epoch: 2, Events: eventsAt(9).Events}, then: func(m *memFeed) { m.bounds = FeedBounds{Epoch: 2, End: 9} }}},
			want: FollowStats{Position: 9, Flushes: 1}, told: true, other: true},
		{name: "is another one, and has nothing to tell", script: []feedReply{{then: func(m *memFeed) { m.bounds = FeedBounds{Epoch: 2, End: 9} }}},
			want: FollowStats{Position: 9, Flushes: 1}, told: true, other: true},
		{name: "cannot decide which one it is", script: []feedReply{{batch: FeedBatch{Epoch: 2}}, {batch: FeedBatch{Epoch: 3}}, {batch: FeedBatch{Epoch: 2}}, says(6)},
			want: FollowStats{Position: 6, Applied: 1, Flushes: 3}, told: true, other: true},
		{name: "an event without a position", script: []feedReply{says(0), says(6)},
			want: FollowStats{Position: 6, Applied: 2, Flushes: 1}, told: true, other: true},
		{name: "events without positions for ever", script: []feedReply{says(0)}, forever: true, calls: 80,
			want: FollowStats{Position: 5}, told: true, other: true},
		{name: "does not go back that far", script: []feedReply{{err: fmt.Errorf("deleted: %w", ErrFeedGap), then: end(50)}},
			want: FollowStats{Position: 50, Flushes: 1}, told: true, other: true},
		{name: "never goes back that far", script: []feedReply{{err: ErrFeedGap}}, forever: true, calls: 20,
			want: FollowStats{Position: 5}, told: true, other: true},
		{name: "does not know what was acknowledged", bounds: FeedBounds{End: 9},
			want: FollowStats{Position: 9, Flushes: 1}, told: true, other: true},
		{name: "has an acknowledgement of what it has not got", bounds: FeedBounds{Acked: 12, End: 9},
			want: FollowStats{Position: 9, Flushes: 1}, told: true, other: true},
		{name: "has an acknowledgement of another one, and soon more than that", script: []feedReply{says(13)}, bounds: FeedBounds{Acked: 12, End: 9},
			want: FollowStats{Position: 13, Applied: 1, Flushes: 1}, told: true, other: true},
		{name: "fails some times", script: []feedReply{{err: errDown}, {err: context.DeadlineExceeded}, {err: errors.New("no route")}, says(6)},
			want: FollowStats{Position: 6, Applied: 1, Failures: 3}, told: true},
		{name: "panics", script: []feedReply{{then: func(*memFeed) { panic("a bug") }}, says(6)},
			want: FollowStats{Position: 6, Applied: 1, Failures: 1}, told: true},
	} {
		t.Run(x.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o, feed := newOrigin(), newMemFeed()
				c := single(t, o, Config[simValue]{Seed: 1})
				defer shut(t, c)
				feed.bounds, feed.script, feed.forever, feed.silent = x.bounds, x.script, x.forever, true
				if x.bounds == (FeedBounds{}) {
					feed.bounds = FeedBounds{Acked: 5, End: 5}
				}
				gets(t, c, "told", 0)
				gets(t, c, "other", 0)
				o.write("told")
				o.write("other")
				end := following(c, unlocked{feed})
				_ = pause(background, 30*time.Second)
				gets(t, c, "told", map[bool]int64{true: 1}[x.told])
				gets(t, c, "other", map[bool]int64{true: 1}[x.other])
				_ = pause(background, 30*time.Second)
				st := c.Stats().Follow
				_ = end()
				if most := max(x.calls, 10); feed.calls > most {
					t.Errorf("asked %d times in a minute", feed.calls)
				}
				if x.calls > 0 { // the rest depends on the number of calls
					st.Applied, st.Repeated, st.Flushes = 0, 0, 0
				}
				x.want.Following, x.want.Acked = 1, x.want.Position
				if st.LagSeconds = 0; st != x.want {
					t.Errorf("%+v\nwant %+v", st, x.want)
				}
			})
		})
	}
}

// unlocked leaves a memFeed usable after a panic.
type unlocked struct{ *memFeed }

func (u unlocked) Next(ctx context.Context, after uint64) (FeedBatch, error) {
	defer func() {
		if p := recover(); p != nil {
			u.mu.Unlock()
			panic(p)
		}
	}()
	return u.memFeed.Next(ctx, after)
}

// While a feed is down it is called less and less often, Stats show for how long, and afterwards nothing is lost.
func TestFollowDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, feed := newOrigin(), newMemFeed()
		c := single(t, o, Config[simValue]{Freshness: Freshness{TTL: 24 * time.Hour, NearTTL: time.Hour, RefreshAhead: -1, Jitter: -1}})
		defer shut(t, c)
		feed.bounds = FeedBounds{Acked: 5, End: 5}
		end := following(c, feed)
		defer end()
		synctest.Wait()
		gets(t, c, "k", 0)
		feed.with(func(m *memFeed) { m.fail = errDown })
		o.write("k")
		feed.add("k")
		_ = pause(background, 10*time.Minute)
		st := c.Stats().Follow
		if st.DownSeconds < 599 || st.DownSeconds > 600 || st.Failures < 60 || st.Failures > 130 {
			t.Errorf("%+v", st)
		}
		gets(t, c, "k", 0) // the contract allows a copy of that age
		feed.with(func(m *memFeed) { m.fail = nil })
		_ = pause(background, follow.LongestPause)
		gets(t, c, "k", 1)
		if st := c.Stats().Follow; st.DownSeconds != 0 || st.Flushes != 0 || st.Acked != 6 || st.LagSeconds < 600 || st.LagSeconds > 611 {
			t.Errorf("%+v", st)
		}
		// Acknowledgements that fail delay nothing.
		feed.with(func(m *memFeed) { m.ackFail = errDown })
		o.write("k")
		feed.add("k")
		_ = pause(background, time.Minute)
		gets(t, c, "k", 2)
		if st := c.Stats().Follow; st.Acked != 6 || st.Position != 7 || st.DownSeconds != 0 {
			t.Errorf("%+v", st)
		}
		feed.with(func(m *memFeed) { m.ackFail = nil })
		_ = pause(background, follow.LongestPause)
		if feed.acked() != 7 {
			t.Errorf("acknowledged up to %d", feed.acked())
		}
	})
}

// A follower that ends loses nothing: the next one, on the same member or another, continues after what was
// acknowledged, and the rest comes again.
func TestFollowResumes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o, feed := newSim(t, 3), newOrigin(), newMemFeed()
		caches := s.start(o, Config[simValue]{})
		defer func() { s.stop(caches) }()
		feed.bounds = FeedBounds{Acked: 5, End: 5}
		end := following(caches["n0"], feed)
		synctest.Wait()
		for _, c := range caches {
			gets(t, c, "k", 0)
		}
		// It applies an event that does not reach the other members, and ends.
		s.setRule(func(from, _ string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n0"} })
		o.write("k")
		feed.add("k")
		_ = pause(background, time.Second)
		end()
		if err := caches["n0"].Close(background); err != nil {
			t.Error(err)
		}
		gets(t, caches["n1"], "k", 0)
		s.setRule(nil)
		end = following(caches["n1"], feed)
		_ = pause(background, time.Second)
		gets(t, caches["n1"], "k", 1)
		gets(t, caches["n2"], "k", 1)
		caches["n0"] = s.open("n0", o, Config[simValue]{})
		_ = pause(background, time.Second)
		if feed.acked() != 6 || caches["n1"].Stats().Follow.Flushes != 0 {
			t.Errorf("acknowledged up to %d, %+v", feed.acked(), caches["n1"].Stats().Follow)
		}
		end()
	})
}

// A feed that ends its goroutine leaves nothing behind.
func TestFollowGoexit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := single(t, newOrigin(), Config[simValue]{})
		feed := newMemFeed()
		feed.script = []feedReply{says1(), {then: func(m *memFeed) { m.mu.Unlock(); runtime.Goexit() }}}
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.Follow(background, feed) })
		wg.Wait()
		if st := c.Stats().Follow; st.Following != 0 {
			t.Errorf("%+v", st)
		}
		shut(t, c)
	})
}

func says1() feedReply { return feedReply{batch: eventsAt(1)} }
