package tier

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/governor"
)

const (
	// warmFrame is how many keys an owner is asked to warm at once.
	warmFrame = 256
	// warmShare limits the permits that a member uses to warm: one in warmShare of its share.
	warmShare = 4
	// After a round without progress Warm waits for warmPause, then twice as long each time, and gives up after
	// warmRounds such rounds.
	warmPause  = 50 * time.Millisecond
	warmRounds = 8
)

// ErrNotWarmed says that Warm has given up on a key: for some time its owner had no permits to spare, or could not be
// reached.
var ErrNotWarmed = errors.New("weir: not warmed: the key's owner had no permits to spare, or could not be reached, for too long")

// WarmReport is the result of a Warm.
type WarmReport struct {
	Keys     int     `json:"keys"`      // different keys given
	Present  int     `json:"present"`   // keys with a copy at their owners before
	Loaded   int     `json:"loaded"`    // keys that Warm loaded
	NotFound int     `json:"not_found"` // keys without a value at the origin
	Failed   int     `json:"failed"`    // keys that failed; the error names them
	Seconds  float64 `json:"seconds"`   // duration
}

// Warm makes the owners of keys have copies. Missing keys are loaded at the lowest class and with a part of the
// owner's permits, so that real misses go first. Warm brings no values to this node. It returns when it is done or
// when ctx has ended. Duplicate keys count once.
//
// The report is valid even with an error. A *ManyError names the keys that failed, with the errors of Get,
// ErrNotWarmed or ctx's. ErrClosed, ErrIsolated and the error of a ctx that ended before the call are errors of the
// whole call. Warm is safe for concurrent use.
func (c *Cache[V]) Warm(ctx context.Context, keys []string) (WarmReport, error) {
	return c.warmKeys(ctx, keys)
}

// warmKeys implements front.
func (c *Cache[V]) warmKeys(ctx context.Context, keys []string) (WarmReport, error) {
	if err := c.canRead(ctx); err != nil {
		return WarmReport{}, err
	}
	if c.isolation.Cut.Load() {
		return WarmReport{}, ErrIsolated
	}
	seen := make(map[string]struct{}, len(keys))
	var reads []*keyRead[V]
	for _, key := range keys {
		n := len(seen)
		if seen[key] = struct{}{}; len(seen) > n {
			reads = append(reads, &keyRead[V]{key: key, hash: ring.Hash(key), err: checkKey(key)})
		}
	}
	began := c.clock.Now()
	valid := slices.DeleteFunc(slices.Clone(reads), func(r *keyRead[V]) bool { return r.err != nil })
	over := governor.NestingOf(ctx).Around(func() error {
		c.warm(ctx, valid)
		return nil
	})
	if over != nil {
		for _, r := range valid {
			r.err = over
		}
	}
	report := WarmReport{Keys: len(reads)}
	failed := &ManyError{Namespace: c.cfg.Namespace, Keys: len(reads), Errs: make(map[string]error)}
	for _, r := range reads {
		switch {
		case errors.Is(r.err, ErrNotFound):
			report.NotFound++
		case r.err != nil:
			report.Failed++
			failed.Errs[r.key] = r.err
		case r.source == SourceFill:
			report.Loaded++
		default:
			report.Present++
		}
	}
	report.Seconds = time.Duration(c.clock.Now() - began).Seconds()
	if report.Failed > 0 {
		return report, failed
	}
	return report, nil
}

// warm works in rounds. Keys that an owner has no time for, or that turn out to belong to another member, go to the
// next round.
func (c *Cache[V]) warm(ctx context.Context, reads []*keyRead[V]) {
	for idle := 0; len(reads) > 0; {
		m := &multiGet[V]{chain: governor.ChainOf(ctx), wide: c.fences.TagClock(), began: c.clock.Now(), warming: true}
		if c.cfg.Cluster != nil {
			m.view = c.cfg.Cluster.View()
		}
		c.warmOwners(ctx, m, reads)
		if idle++; len(m.singles) < len(reads) {
			idle = 0
		}
		reads = m.singles
		if idle > 0 && len(reads) > 0 {
			_ = sleep(ctx, warmPause<<idle)
		}
		var err error
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case c.life.isClosed():
			err = ErrClosed
		case idle == warmRounds:
			err = ErrNotWarmed
		default:
			continue
		}
		for _, r := range reads {
			r.err = err
		}
		return
	}
}

// warmOwners runs one round.
func (c *Cache[V]) warmOwners(ctx context.Context, m *multiGet[V], reads []*keyRead[V]) {
	var here []*keyRead[V]
	there := make(map[string][]*keyRead[V])
	for _, r := range reads {
		r.stamp = c.fences.Stamp(r.hash)
		owner := c.self
		if m.view != nil {
			owner = m.view.OwnerOf(m.view.PartitionOf(r.hash)).Name
		}
		if owner == c.self {
			here = append(here, r)
		} else {
			there[owner] = append(there[owner], r)
		}
	}
	var wg sync.WaitGroup
	for owner, reads := range there {
		wg.Go(func() {
			to, _ := m.view.Member(owner)
			for some := range slices.Chunk(reads, warmFrame) {
				f := frame[V]{many: m, to: to, member: c.journal.Member(owner)}
				if f.member == nil || ctx.Err() != nil {
					m.single(some...)
					continue
				}
				if ready := c.readyMany(ctx, &f, some); len(ready) > 0 {
					pending, left := c.sendFrame(ctx, &f, ready, codec.ModeWarm)
					m.single(pending...)
					m.single(left...)
				}
			}
		})
	}
	for some := range slices.Chunk(here, warmFrame) {
		var missing []*ownedRead
		var readers []*keyRead[V]
		for _, r := range some {
			w := &ownedRead{key: r.key, hash: r.hash}
			if now := c.clock.Now(); c.lookUp(w, m.chain, now) {
				c.gotOwn(m, r, w, now)
				continue
			}
			missing, readers = append(missing, w), append(readers, r)
		}
		c.warmOwn(ctx, missing, m.chain)
		for i, w := range missing {
			if w.err == ErrNotWarmed {
				m.single(readers[i])
			} else {
				c.gotOwn(m, readers[i], w, c.clock.Now())
			}
		}
	}
	wg.Wait()
}

// warmOwn loads the keys that this node has to load to be warm. A key gets ErrNotWarmed if there was no permit or no
// time.
func (c *core) warmOwn(ctx context.Context, ws []*ownedRead, chain []uint64) {
	size := 1
	if c.cfg.batches {
		size = c.cfg.BatchSize
	}
	patience := 2*c.cfg.Origin.Timeout + time.Second
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline)
	}
	until := clock.Later(c.clock.Now(), patience/2)
	share, _ := c.origin.share()
	next := make(chan []*ownedRead, len(ws))
	for some := range slices.Chunk(ws, size) {
		next <- some
	}
	close(next)
	var wg sync.WaitGroup
	for range min(max(share/warmShare, 1), len(next)) {
		wg.Go(func() {
			for some := range next {
				if c.clock.Now() >= until || ctx.Err() != nil {
					for _, w := range some {
						w.err = ErrNotWarmed
					}
					continue
				}
				for _, w := range some {
					w.cl = governor.Warm
				}
				c.load(ctx, some, chain)
				var after time.Duration
				for _, w := range some {
					var over *OverloadedError
					if errors.As(w.err, &over) {
						w.err, after = ErrNotWarmed, max(after, over.RetryAfter)
					} else if isContext(ctx, w.err) {
						w.err = ErrNotWarmed
					}
				}
				if after > 0 {
					_ = sleep(ctx, min(after, warmPause))
				}
			}
		})
	}
	wg.Wait()
}
