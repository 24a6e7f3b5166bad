package tier

import (
	"context"
	"errors"
	"time"

	"github.com/weircache/weir/tier/internal/follow"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
)

// ErrFeedGap is what a Feed returns, or wraps, when it cannot give all events after the requested position: they are
// deleted, or the position is beyond the feed's end, because the feed was set back.
var ErrFeedGap = owner.ErrFeedGap

// A Feed tells, in order, what has been written to an origin, by any writer: an outbox table, a topic, a log of
// changes. Follow reads it. An implementation keeps four promises:
//
//   - An event comes when the loader can read its write, not before. If the loader reads
//     replicas, Event.Version helps.
//   - Events come in the order of their positions, from all positions after the requested one, with
//     none left out. In particular none with a lower position appears later than one with a higher:
//     numbers that a database gives before the commit do not guarantee that. The outbox in examples/
//     shows how to.
//   - If events are gone, or may be, the error is ErrFeedGap.
//   - Each method returns soon after its ctx has ended.
//
// Positions are numbers that grow from event to event, so that a follower can see for itself that something is
// repeated, left out or set back, and statistics can show them. If there are several partitions, each with numbers of
// its own, make a Feed of each and follow them all.
//
// A Feed is used by one Follow: one Next or Bounds at a time, and one Ack beside it. A panic counts as an error.
type Feed interface {
	// Bounds says where the feed is. Follow calls it at its start, and when the feed seems to have been set back.
	Bounds(ctx context.Context) (FeedBounds, error)
	// Next waits until there are events after a position, and returns the first of them, as many as are good to hold in
	// memory. After a while of waiting it may return none, without an error. Follow reads the events until the next
	// call of Next, which may reuse their memory, and does not change them.
	//
	// io.EOF says that the feed has ended for good, ErrFeedGap that events are missing. Every other error is a failure
	// that may pass.
	Next(ctx context.Context, after uint64) (FeedBatch, error)
	// Ack says that all events of its epoch up to a position have been applied on every member, or that a flush has
	// made up for them: a Get that starts now sees all writes up to there. A feed that can store positions keeps the
	// greatest one of its present epoch, for FeedBounds.Acked, beyond the life of this process; others do nothing.
	// After an error Ack is called again.
	Ack(ctx context.Context, upTo FeedPosition) error
}

// FeedPosition is a place in a Feed: right after the event with that position, in one numbering of events.
type FeedPosition struct {
	Epoch    uint64 // see FeedBounds
	Position uint64
}

// FeedBounds says which numbering a Feed has, and where it is.
type FeedBounds struct {
	// Epoch tells one numbering of events from another. It changes when the feed is recreated, is restored from a
	// backup, or goes on at a copy that may lack its last events. If none of these can happen, 0 will do.
	Epoch uint64
	// Acked is the greatest position that any follower of these caches has acknowledged in this epoch. Follow continues
	// after it. 0: none, or unknown; Follow then flushes the namespace, acknowledges End, and begins there.
	Acked uint64
	// End is the position of the newest event, 0 if there was none yet. Events that are not visible yet will have
	// greater positions.
	End uint64
	// Consecutive promises that each event's position is one more than that of the event before. A number that is left
	// out is then a loss, for which a flush makes up.
	Consecutive bool
}

// FeedBatch is what one call of Next returns.
type FeedBatch struct {
	Epoch  uint64  // the numbering of the positions, see FeedBounds
	Events []Event // in the order of their positions
}

// An Event says what one or more writes have changed.
type Event struct {
	// Position is the event's number in the feed: from 1, each greater than the one before.
	Position uint64
	// Change is what is out of date. Empty: nothing of this namespace, only the position moves. A feed that cannot tell
	// what is out of date sets All. A key or tag that no value can have, because it is empty or too long, is counted
	// and left out.
	Change
	// Time is when the write happened, by the origin's clock, for the statistics. Zero: unknown.
	Time time.Time
}

// Follow takes invalidations from where all writes meet: it applies what the feed tells on every member, and
// acknowledges a position to the feed when everything up to it is applied everywhere. So any number of programs may
// write to the origin, and none of them needs to know of the cache.
//
// Follow runs until ctx ends, and returns its error; until the cache is closed, and returns ErrClosed; or until the
// feed ends, and returns nil, or why the last events could not be acknowledged. A feed that fails is tried again, with
// a growing and random pause, and Follow continues after the last event applied; Stats and the log show it. Whenever
// events may have been missed, Follow flushes the whole namespace, as InvalidateAll does, and continues from where the
// feed was before that. This happens after ErrFeedGap, another Epoch, a number left out of consecutive ones, positions
// that go back, or at a start without a known position. Repeated events are counted and left out.
//
// Where it starts: after the feed's Acked. An empty cache needs no history for itself. But the members that it joins
// may not have heard of the latest events, if the member that told them has just ended. So a feed should remember what
// was acknowledged. A feed that cannot, and that every member follows from before its first read, may give its End as
// Acked, which saves the flush.
//
// Which members follow: one is enough while the members can reach each other. With more of them, events are still
// applied when one ends, and on both sides of a partition. Applying an event again costs another fill of what it covers
// and does no other harm. In a partition, the side without a follower hears of the events when the partition is over.
//
// Safe for concurrent use, also for several feeds at once, but give each call a Feed of its own.
func (c *Cache[V]) Follow(ctx context.Context, feed Feed) error {
	if feed == nil {
		return errors.New("weir: Follow: the feed is nil")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !c.own.Life.Begin() {
		return ErrClosed
	}
	defer c.own.Life.End()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.own.Ctx, cancel)()
	err := follow.Run(inner, follow.Config{
		Feed: &followedFeed{feed: feed}, Counts: &c.followed, Log: c.cfg.Logger.With("namespace", c.cfg.Namespace),
		Now: c.own.Clock.Now, Wall: func() time.Time { return wallClock(c.cfg.Now) }, Random: c.own.Random.Float64,
		Begin:   func(version uint64, parts ...journal.Part) { c.begin(c.own.Ctx, nil, version, parts...) },
		Confirm: c.confirmAll, Isolated: c.own.Isolation.IsIsolated,
		Unreached: func(err error) bool {
			_, ok := errors.AsType[*InvalidateError](err)
			return ok
		},
	})
	switch {
	case err == nil:
	case c.own.Ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// followedFeed is a Feed as package follow sees it.
type followedFeed struct {
	feed   Feed
	events []follow.Event // of the last batch
}

func (f *followedFeed) Bounds(ctx context.Context) (follow.Bounds, error) {
	b, err := f.feed.Bounds(ctx)
	return follow.Bounds(b), err
}

func (f *followedFeed) Next(ctx context.Context, after uint64) (epoch uint64, events []follow.Event, err error) {
	clear(f.events) // the last batch is not needed any more
	f.events = f.events[:0]
	b, err := f.feed.Next(ctx, after)
	for i := range b.Events {
		e := &b.Events[i]
		f.events = append(f.events, follow.Event{Position: e.Position, Keys: e.Keys, Tags: e.Tags, All: e.All, Version: e.Version, Time: e.Time})
	}
	return b.Epoch, f.events, err
}

func (f *followedFeed) Ack(ctx context.Context, epoch, position uint64) error {
	return f.feed.Ack(ctx, FeedPosition{Epoch: epoch, Position: position})
}
