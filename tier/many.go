package tier

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

const (
	// eachGroup is how many keys GetEach asks for at a time.
	eachGroup = 4096
	// maxFrames is how many requests one call for many keys has under way at once.
	maxFrames = 16
	// maxSingles is how many keys of one call are read singly at once.
	maxSingles = 64
)

// ManyError says which keys of a call for many keys failed, and why. errors.Is and errors.As look
// into all of the errors.
type ManyError struct {
	Namespace string
	Keys      int              // how many different ones the call was for
	Errs      map[string]error // by key; what Get would have returned. Never ErrNotFound
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

// Result is what became of one key of GetEach.
type Result[V any] struct {
	Answer[V]
	Err error // what Get would have returned, ErrNotFound included; nil: Value is the key's
}

// GetMany returns the values of keys. It is Get for all of them at once: what is near is taken from there, each
// owner is asked once for the rest, all at the same time, and what an owner has to load is one call of
// Config.BatchLoader, if there is one. Keys that are given twice are asked for once; their order
// does not matter.
//
// A key that the origin has no value for is not in the map, and that is no error. If keys could not be
// read the error is a *ManyError, which names them, and the map has all others: a key that is in neither was
// not found. Each key's error is what Get would have returned for it, ErrEmptyKey and ErrKeyTooLarge included;
// those who had to be waited for when ctx ended have its error.
//
// ErrClosed, and the error of a ctx that has ended before the call, come without a map. Values are shared, as those
// of Get are. Safe for concurrent use; keys is not kept, and must not be changed during the call.
func (c *Cache[V]) GetMany(ctx context.Context, keys []string) (map[string]V, error) {
	if err := c.canRead(ctx); err != nil {
		return nil, err
	}
	out := make(map[string]V, len(keys))
	reads := make([]reading[V], 0, len(keys))
	var zero V
	for _, key := range keys {
		n := len(out)
		if out[key] = zero; len(out) > n {
			reads = append(reads, reading[V]{key: key})
		}
	}
	c.readMany(ctx, reads)
	var failed *ManyError
	for i := range reads {
		r := &reads[i]
		if r.err == nil {
			out[r.key] = c.clone(r.value)
			continue
		}
		delete(out, r.key)
		if errors.Is(r.err, ErrNotFound) {
			continue
		}
		if failed == nil {
			failed = &ManyError{Namespace: c.cfg.Namespace, Keys: len(reads), Errs: make(map[string]error)}
		}
		failed.Errs[r.key] = r.err
	}
	if failed != nil {
		return out, failed
	}
	return out, nil
}

// GetEach is GetMany in the order of keys: it yields each key, as often as it is given, with what became of it.
// It reads when it is ranged over, anew each time, some thousand keys at a time: for a long list it takes less
// memory than GetMany, and who breaks off spares the rest. Within such a group keys are asked for once.
//
// If the cache is closed, or ctx has ended, each key has that error.
func (c *Cache[V]) GetEach(ctx context.Context, keys []string) iter.Seq2[string, Result[V]] {
	return func(yield func(string, Result[V]) bool) {
		for some := range slices.Chunk(keys, eachGroup) {
			at := make(map[string]int, len(some))
			reads := make([]reading[V], 0, len(some))
			for _, key := range some {
				if _, ok := at[key]; !ok {
					at[key] = len(reads)
					reads = append(reads, reading[V]{key: key})
				}
			}
			if err := c.canRead(ctx); err != nil {
				for i := range reads {
					reads[i].err = err
				}
			} else {
				c.readMany(ctx, reads)
			}
			for _, key := range some {
				if !yield(key, c.resultOf(&reads[at[key]])) {
					return
				}
			}
		}
	}
}

func (c *Cache[V]) resultOf(r *reading[V]) (out Result[V]) {
	out.Err = r.err
	if r.source == 0 {
		return out
	}
	out.Age, out.Source, out.Stale = time.Duration(max(c.clock.now()-r.loaded, 0)), r.source, r.stale
	if r.err == nil {
		out.Value = c.clone(r.value)
	}
	return out
}

func (c *Cache[V]) canRead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.life.isClosed() {
		return ErrClosed
	}
	return nil
}

// reading is one key of a call for many.
type reading[V any] struct {
	key   string
	hash  uint64
	stamp uint64     // the fence clock when it began
	have  *box[V]    // a near copy that may turn out to be still good, nil: none
	fence codec.Mark // that its owner is to be told

	// what became of it
	value  V
	loaded int64 // start of the load
	source Source
	stale  bool
	err    error
}

// many is what the reads of one call have in common.
type many[V any] struct {
	view  *ring.View // nil: no cluster
	chain []uint64
	wide  uint64 // the tag clock when they began
	began int64
	// warming: nothing is read, only the owners' copies matter.
	warming bool

	mu      sync.Mutex    // guards the rest
	singles []*reading[V] // to be read as Get does
}

// single leaves reads to be made as Get does.
func (m *many[V]) single(reads ...*reading[V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.singles = append(m.singles, reads...)
}

// readMany answers reads of different keys.
func (c *Cache[V]) readMany(ctx context.Context, reads []reading[V]) {
	m := &many[V]{chain: chainOf(ctx), wide: c.fences.wide.Load(), began: c.clock.now()}
	if c.cfg.Cluster != nil {
		m.view = c.cfg.Cluster.View()
	}
	cut := c.isolation.cut.Load()
	var here []*reading[V]
	there := make(map[string][]*reading[V])
	for i := range reads {
		r := &reads[i]
		if r.err = checkKey(r.key); r.err != nil {
			continue
		}
		b := c.near.get(r.key)
		switch {
		case cut:
			if b != nil {
				c.stats.nearUnused.Add(1)
			}
			m.singles = append(m.singles, r)
			continue
		case b != nil && c.takeNear(ctx, r, b, m.began):
			continue
		case b != nil:
			c.stats.nearUnused.Add(1)
			r.have = b
		}
		r.hash = ring.Hash(r.key)
		r.stamp = c.fences.stamp(r.hash)
		if d := c.drill.Load(); d != nil {
			m.singles = append(m.singles, r)
			continue
		}
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
	c.readOwners(ctx, m, here, there)
	c.readSingly(ctx, m)
}

// takeNear answers r with a near copy, if that may be served.
func (c *Cache[V]) takeNear(ctx context.Context, r *reading[V], b *box[V], now int64) bool {
	if now >= b.until || !c.unfenced(r.key, b) {
		return false
	}
	if x := mix(now, b.slot); x < c.watch.Load() {
		if d := c.noticed(r.key, b, now, x); d != nil {
			a, loaded, err := c.rehearse(ctx, d, r.key, b)
			r.value, r.loaded, r.source, r.stale, r.err = a.Value, loaded, a.Source, a.Stale, err
			return true
		}
	}
	r.value, r.loaded, r.source, r.stale = b.value, b.loaded, SourceNear, now >= b.soft
	if b.notFound {
		r.stale, r.err = false, ErrNotFound
	}
	return true
}

// readOwners asks the keys' owners, all at once; here are those of which this node is one.
func (c *Cache[V]) readOwners(ctx context.Context, m *many[V], here []*reading[V], there map[string][]*reading[V]) {
	var frames [][]*reading[V]
	var owners []ring.Member
	for owner, reads := range there {
		to, _ := m.view.Member(owner)
		for len(reads) > 0 {
			n := frameful(reads)
			frames, owners = append(frames, reads[:n]), append(owners, to)
			reads = reads[n:]
		}
	}
	if len(frames) == 1 && len(here) == 0 {
		c.askMany(ctx, m, owners[0], frames[0])
		return
	}
	var wg sync.WaitGroup
	next := make(chan int, len(frames))
	for i := range frames {
		next <- i
	}
	close(next)
	for range min(len(frames), maxFrames) {
		wg.Go(func() {
			for i := range next {
				c.askMany(ctx, m, owners[i], frames[i])
			}
		})
	}
	c.readOwn(ctx, m, here)
	wg.Wait()
}

// readSingly makes the reads that are left to be made as Get makes them.
func (c *Cache[V]) readSingly(ctx context.Context, m *many[V]) {
	var wg sync.WaitGroup
	next := make(chan *reading[V], len(m.singles))
	for _, r := range m.singles {
		next <- r
	}
	close(next)
	for range min(len(m.singles), maxSingles) {
		wg.Go(func() {
			for r := range next {
				a, loaded, err := c.readAs(ctx, r.key, AnyAge, nil, 0)
				r.value, r.loaded, r.source, r.stale, r.err = a.Value, loaded, a.Source, a.Stale, err
			}
		})
	}
	wg.Wait()
}

// got settles a read that an owner has answered, or could not.
func (c *Cache[V]) got(m *many[V], r *reading[V], a *answer[V], err error) {
	if m.warming {
		if r.source, r.err = a.source, err; a.notFound {
			r.err = ErrNotFound
		}
		return
	}
	c.demand.read(r.key, r.hash, a.size, a.cost, c.demand.now.Load())
	if err != nil {
		c.stats.errors.Add(1)
		r.err = err
		return
	}
	if !a.private && !a.passing && c.near != nil {
		c.keepNear(r.key, r.hash, a, r.stamp, m.wide, m.began)
	}
	a.age = max(c.clock.now()-a.loaded, 0)
	c.answered(a)
	r.value, r.loaded, r.source, r.stale, r.err = a.value, a.loaded, a.source, a.stale, nil
	if a.notFound {
		r.stale, r.err = false, ErrNotFound
	}
}
