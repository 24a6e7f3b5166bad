package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
)

// Follow has two halves. The reader takes batches and starts their invalidations: when it asks for the next batch, they
// are applied here and are being sent to the members. The other half, confirm, waits until all members have applied
// what was started, and then acknowledges the last position to the feed. So a member that cannot be reached delays the
// acknowledgement, but not the invalidations on the others.
//
// After an *InvalidateError nothing is acknowledged, although the log will tell the members that were not reached. If
// this node, and every other member that has applied the invalidation, ended before that, no member could tell them any
// more. confirm tries again until a wait for everything started so far succeeds, or those members are gone from the
// view; a member that comes back into the view has an exchange first. An isolated node does not acknowledge either:
// after a restart, the followers of the larger part would skip events that only this node knows.
const (
	// A failed call of a feed is repeated after between half and all of followMin, then twice as long each time up to
	// followMax. A feed that must be begun again and again, without any event, waits in the same way.
	followMin = 100 * time.Millisecond
	followMax = 10 * time.Second
	// After a batch with nothing new, or the second one in a row that is out of order, Follow asks for the next one
	// after idleMin, then twice as long each time up to idleMax.
	idleMin = 10 * time.Millisecond
	idleMax = time.Second
)

var errUnsure = errors.New("weir: this node is isolated")

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
	defer context.AfterFunc(c.own.Ctx, cancel)()
	c.followed.following.Add(1)
	defer c.followed.following.Add(-1)

	f := &follower{
		c: &c.core, feed: feed, stats: &c.followed, why: whyStart, more: make(chan struct{}, 1),
		log: c.cfg.Logger.With("namespace", c.cfg.Namespace),
	}
	var unacked error
	confirmed := make(chan struct{})
	go func() {
		defer close(confirmed)
		unacked = f.confirm(inner)
	}()
	defer func() { // even if the feed ends this goroutine
		cancel()
		<-confirmed
		f.up()
	}()
	err := f.read(inner)
	if err == nil { // the feed has ended
		f.ended.Store(true)
		close(f.more)
		<-confirmed
		err = unacked
	}
	switch {
	case err == nil:
	case c.own.Ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// place is a place in a feed. It never changes.
type place struct{ epoch, last uint64 }

// A follower is one call of Follow.
type follower struct {
	c     *core
	feed  Feed
	stats *followStats
	log   *slog.Logger

	// owned by the reader
	why string // why the feed must be asked where it is; "": that is known
	place
	consecutive bool
	fails       int   // failed calls since the last batch
	since       int64 // when the first of them failed, ns on the cache's clock
	down        bool  // whether the feed still fails
	begun       int   // calls of begin since the last event
	idle        int   // batches without news in a row
	broken      int   // batches out of order in a row

	applied atomic.Pointer[place] // what confirm must acknowledge; nil: nothing
	more    chan struct{}         // wakes confirm; closed when the feed has ended
	ended   atomic.Bool           // the feed has ended
}

const whyStart = "it starts, and no acknowledged position is known"

// read applies the feed's events. It returns nil when the feed has ended.
func (f *follower) read(ctx context.Context) error {
	for {
		err := guarded(func() error { return f.step(ctx) })
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, ErrFeedGap) && f.why == "":
			f.why = err.Error()
			continue
		}
		if f.fails == 0 {
			f.since = max(f.c.own.Clock.Now(), 1)
		}
		f.down = true
		f.stats.down.Store(f.since)
		wait := f.failed("the feed fails", err, f.fails)
		f.fails++
		if err := owner.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// up notes that the feed answers.
func (f *follower) up() {
	if f.down {
		f.down = false
		f.stats.down.Store(0)
	}
}

// failed counts and logs the nth failure in a row, from 0, and returns how long to wait.
func (f *follower) failed(what string, err error, n int) time.Duration {
	f.stats.failures.Add(1)
	wait := f.backoff(n)
	f.log.Warn(what, "error", err, "failures", n+1, "retry_in", wait)
	return wait
}

// backoff returns how long to wait after the nth failure in a row, from 0.
func (f *follower) backoff(n int) time.Duration {
	return time.Duration((0.5 + f.c.own.Rng.Float64()/2) * float64(min(followMin<<min(n, 20), followMax)))
}

// idling returns how long to wait after the nth useless batch in a row, from 0.
func idling(n int) time.Duration { return min(idleMin<<min(n, 20), idleMax) }

// guarded turns a panic in a user's feed into an error.
func guarded(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("weir: the feed panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return call()
}

// step finds out where the feed is, or applies its next batch.
func (f *follower) step(ctx context.Context) error {
	if f.why != "" {
		return f.begin(ctx)
	}
	if f.down { // it may be another feed now, which shows only when there is something new
		if back, err := f.setBack(ctx); err != nil || back {
			return err
		}
		f.log.Info("the feed answers again", "failures", f.fails, "position", f.last)
		f.up()
	}
	asked := f.c.own.Clock.Now()
	batch, err := f.feed.Next(ctx, f.last)
	if err != nil {
		return err
	}
	f.fails = 0
	if batch.Epoch != f.epoch {
		f.why = "its numbering is another one"
		return nil
	}
	if f.accept(batch.Events) {
		f.begun, f.idle = 0, 0
		if f.broken > 1 {
			return owner.Sleep(ctx, idling(f.broken-2))
		}
		return nil
	}
	if back, err := f.setBack(ctx); err != nil || back {
		return err
	}
	wait := idling(f.idle) - time.Duration(f.c.own.Clock.Now()-asked)
	f.idle++
	return owner.Sleep(ctx, wait)
}

// setBack reports whether the feed has another numbering or was set back. It must then be begun again.
func (f *follower) setBack(ctx context.Context) (bool, error) {
	b, err := f.feed.Bounds(ctx)
	switch {
	case err != nil:
		return false, err
	case b.Epoch != f.epoch:
		f.why = "its numbering is another one"
	case b.End < f.last:
		f.why = fmt.Sprintf("it was set back from %d to %d", f.last, b.End)
	}
	return f.why != "", nil
}

// begin finds out where to continue. Unless nothing is missing from there on, it flushes the namespace. It asks for the
// feed's end first, so what came before that end came before the flush.
func (f *follower) begin(ctx context.Context) error {
	if f.begun > 0 {
		if err := owner.Sleep(ctx, f.backoff(f.begun-1)); err != nil {
			return err
		}
	}
	b, err := f.feed.Bounds(ctx)
	if err != nil {
		return err
	}
	f.epoch, f.consecutive = b.Epoch, b.Consecutive
	f.begun++
	f.up()
	if f.why == whyStart && b.Acked != 0 && b.Acked <= b.End {
		f.why, f.last = "", b.Acked
		f.stats.position.Store(f.last)
		f.stats.acked.Store(f.last)
		f.log.Info("following the feed", "after", f.last, "end", b.End)
		return nil
	}
	f.flush(f.why)
	f.why = ""
	f.reached(b.End)
	return nil
}

// flush invalidates everything in the namespace.
func (f *follower) flush(why string) {
	f.stats.flushes.Add(1)
	f.log.Warn("the namespace is flushed: the feed cannot tell all that was written", "why", why, "position", f.last)
	f.c.begin(f.c.own.Ctx, nil, 0, everything)
}

// reached notes that everything up to position is applied here.
func (f *follower) reached(position uint64) {
	f.last = position
	f.stats.position.Store(position)
	f.applied.Store(&place{f.epoch, position})
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// accept applies a batch. It returns false if the batch has nothing new.
func (f *follower) accept(events []Event) bool {
	last, repeated, broken := f.last, 0, ""
	var news []*Event
	for i := range events {
		e := &events[i]
		switch {
		case e.Position == 0:
			broken = "an event has no position"
		case e.Position <= f.last && last == f.last, e.Position == last:
			repeated++
			continue
		case e.Position < last:
			broken = fmt.Sprintf("event %d comes after event %d", e.Position, last)
		case f.consecutive && e.Position != last+1:
			broken = fmt.Sprintf("event %d is followed by event %d", last, e.Position)
		}
		last = max(last, e.Position)
		news = append(news, e)
	}
	f.stats.repeated.Add(int64(repeated))
	if len(news) == 0 {
		return false
	}
	if broken != "" {
		f.flush(broken)
		f.broken++
	} else {
		f.apply(news)
		f.broken = 0
	}
	f.stats.applied.Add(int64(len(news)))
	if t := news[len(news)-1].Time; !t.IsZero() {
		now := time.Now()
		if f.c.cfg.Now != nil {
			now = f.c.cfg.Now()
		}
		f.stats.lag.Store(int64(max(now.Sub(t), 0)))
	}
	f.reached(last)
	return true
}

// apply starts the invalidations of events, each key and tag once. A key's version is the greatest that its events
// give.
func (f *follower) apply(events []*Event) {
	var keys, tags []string
	versions, tagged := make(map[string]uint64), make(map[string]bool)
	for _, e := range events {
		if e.All {
			f.c.begin(f.c.own.Ctx, nil, 0, everything)
			break
		}
	}
	for _, e := range events {
		for _, key := range e.Keys {
			if err := owner.CheckKey(key); err != nil {
				f.refuse(e, err)
				continue
			}
			version, has := versions[key]
			if !has {
				keys = append(keys, key)
			}
			versions[key] = max(version, e.Version)
		}
		for _, tag := range e.Tags {
			if err := owner.CheckTag(tag); err != nil {
				f.refuse(e, err)
			} else if !tagged[tag] {
				tagged[tag] = true
				tags = append(tags, tag)
			}
		}
	}
	// One invalidation has one version.
	slices.SortStableFunc(keys, func(a, b string) int { return cmp.Compare(versions[a], versions[b]) })
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && versions[keys[n]] == versions[keys[0]] {
			n++
		}
		f.c.begin(f.c.own.Ctx, nil, versions[keys[0]], journal.Part{Scope: codec.ScopeKeys, Names: keys[:n]})
		keys = keys[n:]
	}
	f.c.begin(f.c.own.Ctx, nil, 0, journal.Part{Scope: codec.ScopeTags, Names: tags})
}

func (f *follower) refuse(e *Event, err error) {
	f.stats.refused.Add(1)
	f.log.Warn("a feed event has an invalid key or tag", "position", e.Position, "error", err)
}

// confirm acknowledges what is applied on every member. It returns nil when the feed has ended and
// everything is acknowledged.
func (f *follower) confirm(ctx context.Context) error {
	var acked place
	for open := true; open; {
		select {
		case _, open = <-f.more:
		case <-ctx.Done():
			return ctx.Err()
		}
		for fails := 0; ; fails++ {
			to := f.applied.Load()
			if to == nil || *to == acked || to.last == 0 {
				break
			}
			err := f.acknowledge(ctx, to)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				acked, fails = *to, -1
				f.stats.acked.Store(to.last)
				continue
			}
			if f.ended.Load() && fails > 0 {
				return err
			}
			if err := owner.Sleep(ctx, f.waits(err, fails)); err != nil {
				return err
			}
		}
	}
	return nil
}

// acknowledge waits until everything up to a place is applied on every member, and then tells the feed.
func (f *follower) acknowledge(ctx context.Context, to *place) error {
	if err := f.c.confirmAll(ctx); err != nil {
		return err
	}
	if f.c.own.Isolation.IsIsolated() {
		return errUnsure
	}
	return guarded(func() error { return f.feed.Ack(ctx, FeedPosition{Epoch: to.epoch, Position: to.last}) })
}

// waits counts and logs why there was no acknowledgement, for the nth time in a row, and returns how long to wait.
func (f *follower) waits(err error, n int) time.Duration {
	if e := (*InvalidateError)(nil); !errors.As(err, &e) && err != errUnsure {
		return f.failed("the feed takes no acknowledgement", err, n)
	}
	f.stats.unconfirmed.Add(1)
	if n == 0 {
		f.log.Warn("events are not acknowledged yet", "error", err)
	}
	return followMin
}
