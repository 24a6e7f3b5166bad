package tier

import (
	"context"
	"errors"
	"time"
)

// ErrFeedGap is what a Feed returns, or wraps, when it cannot give all events after the position that it
// was asked for: they are deleted, or the position is beyond its end, because it was set back.
var ErrFeedGap = errors.New("weir: the feed does not go back that far")

// A Feed tells, in order, what has been written to an origin, whoever wrote it: an outbox table, a
// topic, a log of changes. Follow reads it. Whoever implements it keeps four promises:
//
//   - An event comes when its write can be read by the loader, not before. If the loader reads
//     replicas, Event.Version helps.
//   - Events come in the order of their positions, from all positions after the one asked for, with
//     none left out. In particular none with a lower position appears later than one with a higher:
//     numbers that a database gives before the commit do not keep that. The outbox in examples/
//     shows how to.
//   - What is gone, or may be, is ErrFeedGap.
//   - Each method returns soon after its ctx has ended.
//
// Positions are numbers, of which later events have greater ones, so that a follower can see for
// itself that something is repeated, left out or set back, and statistics can show them. Who has
// several partitions, each with numbers of its own, makes a Feed of each and follows them all.
//
// A Feed is used by one Follow: one Next or Bounds at a time, and one Ack beside it. A panic counts
// as an error.
type Feed interface {
	// Bounds says where the feed is. Follow asks at its start, and when the feed seems to have been set back.
	Bounds(ctx context.Context) (FeedBounds, error)
	// Next waits until there are events after a position, and returns the first of them, as many as
	// are good to hold in memory. None, without an error, is allowed after a while of waiting.
	// Follow reads the events until the next call of Next, which may use their memory again, and
	// does not change them.
	//
	// io.EOF says that the feed has ended for good, ErrFeedGap that events are missing; every other
	// error is a failure that may pass.
	Next(ctx context.Context, after uint64) (FeedBatch, error)
	// Ack says that all events of its epoch up to a position have been applied on every member, or
	// that a flush has made up for them: a Get that starts now sees all writes up to there. A feed
	// with a memory keeps the greatest of the epoch that it is in, for FeedBounds.Acked, beyond
	// this process; others do nothing. An error means that Ack is called again.
	Ack(ctx context.Context, upTo FeedPosition) error
}

// FeedPosition is a place in a Feed: after the event of that position, in one numbering of events.
type FeedPosition struct {
	Epoch    uint64 // see FeedBounds
	Position uint64
}

// FeedBounds says where a Feed is.
type FeedBounds struct {
	// Epoch tells one numbering of events from another. It changes when the feed is made anew, is
	// restored from a backup, or goes on at a copy that may lack its last events. 0 will do if that
	// cannot happen.
	Epoch uint64
	// Acked is the greatest position that was acknowledged in this epoch, by any follower of these
	// caches. Follow goes on after it. 0: none, or it is not known; Follow flushes the namespace,
	// acknowledges End, and begins there.
	Acked uint64
	// End is the position of the newest event, 0 if there was none yet. Events that are not yet
	// to be seen will have greater positions.
	End uint64
	// Consecutive promises that each event's position is one more than that of the one before: then
	// a number that is left out is a loss, and is made good by a flush.
	Consecutive bool
}

// FeedBatch is what a Feed gives at once.
type FeedBatch struct {
	Epoch  uint64  // the numbering that the positions are of, see FeedBounds
	Events []Event // in the order of their positions
}

// An Event says what a write, or several, have changed.
type Event struct {
	// Position is the event's number in the feed: from 1, each greater than the one before.
	Position uint64
	// Change is what is out of date. Empty: nothing of this namespace, only the position moves. Whoever cannot tell
	// sets All. A key or tag that no value can have, since it is empty or too long, is counted and left out.
	Change
	// Time is when the write happened, as the origin's clock shows it, for the statistics. Zero: it
	// is not known.
	Time time.Time
}
