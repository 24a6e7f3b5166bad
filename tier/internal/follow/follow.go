package follow

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

const (
	// A failed call of a feed is repeated after between half and all of shortestPause, then twice as long each time up to
	// LongestPause. A feed that must be begun again and again, without any event, waits in the same way.
	shortestPause = 100 * time.Millisecond
	// LongestPause is the longest wait between two attempts.
	LongestPause = 10 * time.Second
	// After a batch with nothing new, or the second one in a row that is out of order, the follower asks for the next one
	// after idleMin, then twice as long each time up to idleMax.
	idleMin = 10 * time.Millisecond
	idleMax = time.Second
)

var errUnsure = errors.New("weir: this node is isolated")

// everything is the whole namespace.
var everything = journal.Part{Scope: codec.ScopeAll, Names: []string{""}}

// Feed is the public Feed, with this package's events.
type Feed interface {
	Bounds(ctx context.Context) (Bounds, error)
	// Next returns the next events and the numbering of their positions. They belong to the caller until the next call.
	Next(ctx context.Context, after uint64) (epoch uint64, events []Event, err error)
	Ack(ctx context.Context, epoch, position uint64) error
}

// Bounds is the public FeedBounds.
type Bounds struct {
	Epoch       uint64
	Acked       uint64
	End         uint64
	Consecutive bool
}

// Event is the public Event.
type Event struct {
	Position uint64
	Keys     []string
	Tags     []string
	All      bool
	Version  uint64
	Time     time.Time
}

// Config is what a follower needs of its cache. Its functions are safe for concurrent use.
type Config struct {
	Feed   Feed
	Counts *Counts
	Log    *slog.Logger
	Now    func() int64     // ns on the cache's clock
	Wall   func() time.Time // the time of day
	Random func() float64   // in [0, 1)
	// Begin starts invalidations and does not wait for the members.
	Begin func(version uint64, parts ...journal.Part)
	// Confirm waits until every member has applied all that Begin has started so far.
	Confirm func(ctx context.Context) error
	// Unreached reports whether an error of Confirm says that members have not confirmed.
	Unreached func(err error) bool
	// Isolated reports whether this node has lost contact with most members.
	Isolated func() bool
}

// Run follows the feed until ctx ends, and returns its error, or until the feed ends, and returns nil or why the last
// events could not be acknowledged.
func Run(ctx context.Context, cfg Config) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg.Counts.Following.Add(1)
	defer cfg.Counts.Following.Add(-1)

	f := &follower{Config: cfg, why: whyStart, more: make(chan struct{}, 1)}
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
	return err
}

// place is a place in a feed. It never changes.
type place struct{ epoch, last uint64 }

// A follower is one call of Run.
type follower struct {
	Config

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
		case errors.Is(err, owner.ErrFeedGap) && f.why == "":
			f.why = err.Error()
			continue
		}
		if f.fails == 0 {
			f.since = max(f.Now(), 1)
		}
		f.down = true
		f.Counts.Down.Store(f.since)
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
		f.Counts.Down.Store(0)
	}
}

// failed counts and logs the nth failure in a row, from 0, and returns how long to wait.
func (f *follower) failed(what string, err error, n int) time.Duration {
	f.Counts.Failures.Add(1)
	wait := f.backoff(n)
	f.Log.Warn(what, "error", err, "failures", n+1, "retry_in", wait)
	return wait
}

// backoff returns how long to wait after the nth failure in a row, from 0.
func (f *follower) backoff(n int) time.Duration {
	return time.Duration((0.5 + f.Random()/2) * float64(min(shortestPause<<min(n, 20), LongestPause)))
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
		f.Log.Info("the feed answers again", "failures", f.fails, "position", f.last)
		f.up()
	}
	asked := f.Now()
	epoch, events, err := f.Feed.Next(ctx, f.last)
	if err != nil {
		return err
	}
	f.fails = 0
	if epoch != f.epoch {
		f.why = "its numbering is another one"
		return nil
	}
	if f.accept(events) {
		f.begun, f.idle = 0, 0
		if f.broken > 1 {
			return owner.Sleep(ctx, idling(f.broken-2))
		}
		return nil
	}
	if back, err := f.setBack(ctx); err != nil || back {
		return err
	}
	wait := idling(f.idle) - time.Duration(f.Now()-asked)
	f.idle++
	return owner.Sleep(ctx, wait)
}

// setBack reports whether the feed has another numbering or was set back. It must then be begun again.
func (f *follower) setBack(ctx context.Context) (bool, error) {
	b, err := f.Feed.Bounds(ctx)
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
	b, err := f.Feed.Bounds(ctx)
	if err != nil {
		return err
	}
	f.epoch, f.consecutive = b.Epoch, b.Consecutive
	f.begun++
	f.up()
	if f.why == whyStart && b.Acked != 0 && b.Acked <= b.End {
		f.why, f.last = "", b.Acked
		f.Counts.Position.Store(f.last)
		f.Counts.Acked.Store(f.last)
		f.Log.Info("following the feed", "after", f.last, "end", b.End)
		return nil
	}
	f.flush(f.why)
	f.why = ""
	f.reached(b.End)
	return nil
}

// flush invalidates everything in the namespace.
func (f *follower) flush(why string) {
	f.Counts.Flushes.Add(1)
	f.Log.Warn("the namespace is flushed: the feed cannot tell all that was written", "why", why, "position", f.last)
	f.Begin(0, everything)
}

// reached notes that everything up to position is applied here.
func (f *follower) reached(position uint64) {
	f.last = position
	f.Counts.Position.Store(position)
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
	f.Counts.Repeated.Add(int64(repeated))
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
	f.Counts.Applied.Add(int64(len(news)))
	if t := news[len(news)-1].Time; !t.IsZero() {
		f.Counts.Lag.Store(int64(max(f.Wall().Sub(t), 0)))
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
			f.Begin(0, everything)
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
		f.Begin(versions[keys[0]], journal.Part{Scope: codec.ScopeKeys, Names: keys[:n]})
		keys = keys[n:]
	}
	f.Begin(0, journal.Part{Scope: codec.ScopeTags, Names: tags})
}

func (f *follower) refuse(e *Event, err error) {
	f.Counts.Refused.Add(1)
	f.Log.Warn("a feed event has an invalid key or tag", "position", e.Position, "error", err)
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
				f.Counts.Acked.Store(to.last)
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
	if err := f.Confirm(ctx); err != nil {
		return err
	}
	if f.Isolated() {
		return errUnsure
	}
	return guarded(func() error { return f.Feed.Ack(ctx, to.epoch, to.last) })
}

// waits counts and logs why there was no acknowledgement, for the nth time in a row, and returns how long to wait.
func (f *follower) waits(err error, n int) time.Duration {
	if !f.Unreached(err) && err != errUnsure {
		return f.failed("the feed takes no acknowledgement", err, n)
	}
	f.Counts.Unconfirmed.Add(1)
	if n == 0 {
		f.Log.Warn("events are not acknowledged yet", "error", err)
	}
	return shortestPause
}
