package tier

import (
	"context"

	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// pendingReads is the reads of own keys that have to be loaded. Their loads have begun.
type pendingReads[V any] struct {
	ws    []*owner.OwnedRead
	reads []*keyRead[V]
	wide  uint64
	began int64
}

// seekOwn answers the reads of own keys that need no waiting. It returns the others, nil if there are none.
func (c *Cache[V]) seekOwn(ctx context.Context, m *multiGet[V], reads []*keyRead[V]) (rest *pendingReads[V]) {
	var now int64
	for i, r := range reads {
		if i%owner.ClockEvery == 0 {
			now = c.own.Clock.Now()
		}
		w := owner.OwnedRead{Key: r.key, Hash: r.hash}
		if c.own.LookUp(&w, m.chain, now) {
			c.gotOwn(m, r, &w, now)
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
func (c *Cache[V]) awaitOwn(ctx context.Context, m *multiGet[V], rest *pendingReads[V]) {
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
		c.gotOwn(m, rest.reads[i], w, c.own.Clock.Now())
	}
}

func (c *Cache[V]) gotOwn(m *multiGet[V], r *keyRead[V], w *owner.OwnedRead, now int64) {
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
	c.got(m, r, &a, err, now)
}
