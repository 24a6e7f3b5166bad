package tier

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
)

const (
	// warmFrame is how many keys an owner is asked to warm at once.
	warmFrame = 256
	// warmRounds is after how many rounds without progress Warm gives up.
	warmRounds = 8
)

// ErrNotWarmed says that Warm has given up on a key: for some time its owner had no permits to spare, or could not be
// reached.
var ErrNotWarmed = owner.ErrNotWarmed

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
	if c.own.Isolation.Cut.Load() {
		return WarmReport{}, ErrIsolated
	}
	seen := make(map[string]struct{}, len(keys))
	var reads []*keyRead[V]
	for _, key := range keys {
		n := len(seen)
		if seen[key] = struct{}{}; len(seen) > n {
			reads = append(reads, &keyRead[V]{key: key, hash: ring.Hash(key), err: owner.CheckKey(key)})
		}
	}
	began := c.own.Clock.Now()
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
	report.Seconds = time.Duration(c.own.Clock.Now() - began).Seconds()
	if report.Failed > 0 {
		return report, failed
	}
	return report, nil
}

// warm works in rounds. Keys that an owner has no time for, or that turn out to belong to another member, go to the
// next round.
func (c *Cache[V]) warm(ctx context.Context, reads []*keyRead[V]) {
	for idle := 0; len(reads) > 0; {
		m := &multiGet[V]{c: c, chain: governor.ChainOf(ctx), wide: c.own.Fences.TagClock(), began: c.own.Clock.Now(), warming: true}
		if c.cfg.Cluster != nil {
			m.view = c.cfg.Cluster.View()
		}
		m.warmOwners(ctx, reads)
		if idle++; len(m.singles) < len(reads) {
			idle = 0
		}
		reads = m.singles
		if idle > 0 && len(reads) > 0 {
			_ = owner.Sleep(ctx, owner.WarmPause<<idle)
		}
		var err error
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case c.own.Life.IsClosed():
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
func (m *multiGet[V]) warmOwners(ctx context.Context, reads []*keyRead[V]) {
	c := m.c
	var here []*keyRead[V]
	there := make(map[string][]*keyRead[V])
	for _, r := range reads {
		r.stamp = c.own.Fences.Stamp(r.hash)
		owner := c.own.Self
		if m.view != nil {
			owner = m.view.OwnerOf(m.view.PartitionOf(r.hash)).Name
		}
		if owner == c.own.Self {
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
				f := frame[V]{many: m, to: to, member: c.own.Journal.Member(owner)}
				if f.member == nil || ctx.Err() != nil {
					m.single(some...)
					continue
				}
				if ready := f.readyMany(ctx, some); len(ready) > 0 {
					pending, left := f.sendFrame(ctx, ready, codec.ModeWarm)
					m.single(pending...)
					m.single(left...)
				}
			}
		})
	}
	for some := range slices.Chunk(here, warmFrame) {
		var missing []*owner.OwnedRead
		var readers []*keyRead[V]
		for _, r := range some {
			w := &owner.OwnedRead{Key: r.key, Hash: r.hash}
			if now := c.own.Clock.Now(); c.own.LookUp(w, m.chain, now) {
				m.gotOwn(r, w, now)
				continue
			}
			missing, readers = append(missing, w), append(readers, r)
		}
		c.own.WarmOwn(ctx, missing, m.chain)
		for i, w := range missing {
			if w.Err == ErrNotWarmed {
				m.single(readers[i])
			} else {
				m.gotOwn(readers[i], w, c.own.Clock.Now())
			}
		}
	}
	wg.Wait()
}
