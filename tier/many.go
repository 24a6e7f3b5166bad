package tier

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

const (
	// eachGroup is how many keys GetEach reads at a time.
	eachGroup = 4096
	// maxFrames is how many requests one multi-get has in flight at most.
	maxFrames = 16
)

// ManyError says which keys of a multi-get failed, and why. errors.Is and errors.As look into all of the errors.
type ManyError struct {
	Namespace string
	Keys      int              // number of different keys in the call
	Errs      map[string]error // by key: what Get would have returned, never ErrNotFound
}

func (e *ManyError) Error() string {
	for _, key := range e.sorted() {
		return fmt.Sprintf("weir: %d of %d keys in %s failed, %.100q: %v", len(e.Errs), e.Keys, e.Namespace, key, e.Errs[key])
	}
	return fmt.Sprintf("weir: no keys of %d in %s failed", e.Keys, e.Namespace)
}

// Unwrap returns the errors in the order of their keys.
func (e *ManyError) Unwrap() []error {
	out := make([]error, 0, len(e.Errs))
	for _, key := range e.sorted() {
		out = append(out, e.Errs[key])
	}
	return out
}

func (e *ManyError) sorted() []string {
	keys := make([]string, 0, len(e.Errs))
	for key := range e.Errs {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Result is the outcome for one key of GetEach.
type Result[V any] struct {
	Answer[V]
	Err error // what Get would have returned, ErrNotFound included; nil: Value is the key's
}

// GetMany returns the values of keys. It does for all of them at once what Get does for one: it takes near copies, then
// asks every owner once for the rest, all at the same time. The keys that an owner has to load are one call of
// Config.BatchLoader, if there is one. A key that is given twice is read once. The order of keys does not matter.
//
// A key for which the origin has no value is not in the map, and that is not an error. If some keys could not be read,
// the error is a *ManyError that names them, and the map has all others; a key that is in neither was not found. Each
// key's error is the one that Get would have returned for it, including ErrEmptyKey and ErrKeyTooLarge. Keys that still
// waited when ctx ended have the error of ctx.
//
// If the cache is closed, or ctx has ended before the call, GetMany returns ErrClosed or the error of ctx, and no map.
// Values are shared, as those of Get are. Safe for concurrent use. keys is not kept; do not change it during the call.
func (c *Cache[V]) GetMany(ctx context.Context, keys []string) (map[string]V, error) {
	if err := c.canRead(ctx); err != nil {
		return nil, err
	}
	m := c.multiGets.get(c, len(keys))
	for _, key := range keys {
		m.add(key)
	}
	m.readMany(ctx)
	now := m.readLate(ctx)
	out := make(map[string]V, len(m.reads))
	var failed *ManyError
	for i := range m.reads {
		r := &m.reads[i]
		if r.err == nil {
			a, ok, err := c.handOut(&r.finding, now)
			if ok && err == nil {
				out[r.key] = a.Value
			}
			if ok {
				continue
			}
			r.err = c.expired(r.key)
		}
		if failed == nil {
			failed = &ManyError{Namespace: c.cfg.Namespace, Keys: len(m.reads), Errs: make(map[string]error)}
		}
		failed.Errs[r.key] = r.err
	}
	c.multiGets.put(m)
	if failed != nil {
		return out, failed
	}
	return out, nil
}

// GetEach is GetMany in the order of keys: it yields each key, as often as it is given, with its result. Each iteration
// over the sequence reads the keys again, some thousand at a time. For a long list this takes less memory than GetMany,
// and a caller that breaks off does not pay for the remaining groups. A key that is given twice within a group is read
// once.
//
// If the cache is closed, or ctx has ended, each key has that error.
func (c *Cache[V]) GetEach(ctx context.Context, keys []string) iter.Seq2[string, Result[V]] {
	return func(yield func(string, Result[V]) bool) {
		for some := range slices.Chunk(keys, eachGroup) {
			m := c.multiGets.get(c, len(some))
			at := make([]int, len(some))
			for i, key := range some {
				at[i] = m.add(key)
			}
			if err := c.canRead(ctx); err != nil {
				for i := range m.reads {
					m.reads[i].err = err
				}
			} else {
				m.readMany(ctx)
			}
			for i, key := range some {
				if !yield(key, c.resultOf(ctx, &m.reads[at[i]])) {
					return // m is not reused: the caller may have broken off by a panic
				}
			}
			c.multiGets.put(m)
		}
	}
}

// resultOf hands out one key's result. If the copy has reached its end since it was found, the key is read again.
func (c *Cache[V]) resultOf(ctx context.Context, r *keyRead[V]) (out Result[V]) {
	if r.err != nil {
		return Result[V]{Err: r.err}
	}
	var ok bool
	if out.Answer, ok, out.Err = c.handOut(&r.finding, c.own.Clock.Now()); !ok {
		out.Answer, out.Err = c.read(ctx, r.key, AnyAge, nil, 0)
	}
	return out
}

// readLate reads the keys again whose copies reached their end while the call waited for other keys. It returns the
// time at which the results are handed out.
func (m *multiGet[V]) readLate(ctx context.Context) (now int64) {
	c := m.c
	for range owner.MaxAgain {
		now = c.own.Clock.Now()
		m.singles = m.singles[:0]
		for i := range m.reads {
			if r := &m.reads[i]; r.err == nil && now >= r.end {
				m.singles = append(m.singles, r)
			}
		}
		if len(m.singles) == 0 {
			return now
		}
		m.readSingly(ctx)
	}
	return c.own.Clock.Now()
}

func (c *core) canRead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.own.Life.IsClosed() {
		return ErrClosed
	}
	return nil
}

// readMany answers the reads of m.
func (m *multiGet[V]) readMany(ctx context.Context) {
	c := m.c
	m.chain, m.wide, m.began = governor.ChainOf(ctx), c.own.Fences.TagClock(), c.own.Clock.Now()
	self, places := 0, 1
	if c.cfg.Cluster != nil {
		m.view = c.cfg.Cluster.View()
		self, places = m.view.Index(c.own.Self), m.view.Len()
	}
	cut, drilled := c.own.Isolation.Cut.Load(), c.own.Drill.Load() != nil
	left := 0
	for i := range m.reads {
		r := &m.reads[i]
		r.owner = -1
		if r.err = owner.CheckKey(r.key); r.err != nil {
			continue
		}
		if c.near != nil {
			b := c.near.Get(r.key)
			switch {
			case b != nil && !cut && c.takeNear(ctx, r, b, m.began):
				continue
			case b != nil:
				c.own.Stats.NearUnused.Add(1)
				if !cut {
					r.have = b
				}
			}
		}
		if cut {
			m.singles = append(m.singles, r)
			continue
		}
		r.hash = ring.Hash(r.key)
		r.stamp = c.own.Fences.Stamp(r.hash)
		if drilled {
			m.singles = append(m.singles, r)
			continue
		}
		r.owner = 0
		if m.view != nil {
			r.owner = int32(m.view.OwnerIndexOf(m.view.PartitionOf(r.hash)))
		}
		left++
	}
	if left > 0 {
		m.readOwners(ctx, self, m.sort(places, left))
		m.account()
	}
	if len(m.singles) > 0 {
		m.readSingly(ctx)
	}
}

// failWaited fails the reads that owners were asked for: the load that made them has no time left.
func (m *multiGet[V]) failWaited(err error) {
	for i := range m.reads {
		if r := &m.reads[i]; r.answered {
			r.source, r.err = 0, err
		}
	}
}

// takeNear answers r with a near copy, if the copy may be served.
func (c *Cache[V]) takeNear(ctx context.Context, r *keyRead[V], b *nearEntry[V], now int64) bool {
	if now >= b.until || !c.unfenced(r.key, b) {
		return false
	}
	if x := mix(now, b.slot); x < c.own.Watch.Load() {
		if d := c.sampleNearHit(r.key, b, now, x); d != nil {
			var a answer[V]
			r.err = c.drillNearHit(ctx, d, r.key, b, &a)
			r.finding = a.finding
			return true
		}
	}
	r.finding.takeNear(b, now)
	return true
}

// readSingly makes the reads in m.singles as Get makes them.
func (m *multiGet[V]) readSingly(ctx context.Context) {
	c := m.c
	if n := governor.NestingOf(ctx); n != nil {
		n.Wait() // until the last of them has its answer
		defer func() {
			if over := n.Resume(); over != nil {
				for _, r := range m.singles {
					r.source, r.err = 0, over
				}
			}
		}()
	}
	var wg sync.WaitGroup
	next := make(chan *keyRead[V], len(m.singles))
	for _, r := range m.singles {
		next <- r
	}
	close(next)
	for range min(len(m.singles), owner.MaxSingles) {
		wg.Go(func() {
			for r := range next {
				var a answer[V]
				r.err = c.find(ctx, r.key, AnyAge, nil, 0, &a)
				r.finding = a.finding
			}
		})
	}
	wg.Wait()
}

// got settles a read that an owner answered at now, or failed to answer.
func (m *multiGet[V]) got(r *keyRead[V], a *answer[V], err error, now int64) {
	c := m.c
	if m.warming {
		if r.source, r.err = a.source, err; a.notFound {
			r.err = ErrNotFound
		}
		return
	}
	r.answered, r.size, r.cost = true, int32(a.size), a.cost
	if err != nil {
		r.err = err
		return
	}
	if !a.private && !a.passing && c.near != nil && a.first() {
		c.keepNear(now, r.key, r.hash, a, r.stamp, m.wide)
	}
	r.finding, r.why, r.err = a.finding, a.why, nil
}

// account counts what the owners have answered, once all answers are there. All goroutines share the counters, so each
// counter is touched once for all keys.
func (m *multiGet[V]) account() {
	c := m.c
	c.own.Demand.ReadMany(len(m.reads), func(i int) (string, uint64, int, time.Duration, bool) {
		r := &m.reads[i]
		return r.key, r.hash, int(r.size), r.cost, r.answered
	})
	now := c.own.Clock.Now()
	var failed, owned, filled int64
	var old [counters.Sources]counters.Batch
	for i := range m.reads {
		r := &m.reads[i]
		switch {
		case !r.answered:
			continue
		case r.source == SourceOwned:
			owned++
		case r.source == SourceFill:
			filled++
		}
		if r.source == 0 {
			failed++
			continue
		}
		old[r.source-1].Add(&c.own.Stats.Ages.By[r.source-1], max(now-r.loaded, 0))
		if r.stale {
			c.own.Stats.Stale.Add(1)
			c.staleServed(r.why, 1)
		}
	}
	for i := range old {
		old[i].Flush(&c.own.Stats.Ages.By[i])
	}
	owner.AddTo(&c.own.Stats.Errors, failed)
	owner.AddTo(&c.own.Stats.Owned, owned)
	owner.AddTo(&c.own.Stats.Filled, filled)
}

// pendingReads is the reads of own keys that have to be loaded. Their loads have begun.
type pendingReads[V any] struct {
	ws    []*owner.OwnedRead
	reads []*keyRead[V]
	wide  uint64
	began int64
}

// seekOwn answers the reads of own keys that need no waiting. It returns the others, nil if there are none.
func (m *multiGet[V]) seekOwn(ctx context.Context, reads []*keyRead[V]) (rest *pendingReads[V]) {
	c := m.c
	var now int64
	for i, r := range reads {
		if i%owner.ClockEvery == 0 {
			now = c.own.Clock.Now()
		}
		w := owner.OwnedRead{Key: r.key, Hash: r.hash}
		if c.own.LookUp(&w, m.chain, now) {
			m.gotOwn(r, &w, now)
			continue
		}
		if rest == nil {
			rest = new(pendingReads[V])
		}
		own := w // only the ones that must wait move to the heap
		rest.ws, rest.reads = append(rest.ws, &own), append(rest.reads, r)
	}
	if rest != nil {
		rest.began, rest.wide = c.own.Clock.Now(), c.own.Fences.TagClock()
		c.own.JoinFlights(ctx, rest.ws, m.chain)
	}
	return rest
}

// awaitOwn answers the reads that seekOwn returned.
func (m *multiGet[V]) awaitOwn(ctx context.Context, rest *pendingReads[V]) {
	c := m.c
	over := governor.NestingOf(ctx).Around(func() error {
		c.own.AwaitFlights(ctx, rest.ws, m.chain, rest.wide, rest.began)
		return nil
	})
	if over != nil {
		for _, w := range rest.ws {
			w.Err = over
		}
	}
	for i, w := range rest.ws {
		m.gotOwn(rest.reads[i], w, c.own.Clock.Now())
	}
}

func (m *multiGet[V]) gotOwn(r *keyRead[V], w *owner.OwnedRead, now int64) {
	c := m.c
	var a answer[V]
	err := w.Err
	if m.warming && err == nil {
		a.source, a.notFound = SourceOwned, w.F.E.Flags&store.NotFound != 0
		if w.F.Filled {
			a.source = SourceFill
		}
	} else if err == nil {
		if err = c.answerTo(now, w.Key, &w.F, m.began, &a); isUndecodable(err) {
			m.single(r) // a single read loads it again
			return
		}
	}
	m.got(r, &a, err, now)
}
