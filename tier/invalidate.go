package tier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

const (
	// invalidateBatch is how many bytes of keys go into one frame.
	invalidateBatch = 256 << 10
	// After a failed attempt to reach a member the next waits for retryMin, then twice
	// as long each time up to retryMax.
	retryMin = 20 * time.Millisecond
	retryMax = 500 * time.Millisecond
)

// marks numbers the invalidations that this cache starts.
type marks struct {
	incarnation uint64 // random for each cache that is made
	seq         atomic.Uint64
}

func (m *marks) next() codec.Mark {
	return codec.Mark{Incarnation: m.incarnation, Seq: m.seq.Add(1)}
}

// Invalidate makes every copy of the keys, on every member, unusable. Call it after the
// write to the origin has committed. When it returns nil, no Get or Read that starts later on
// any member of the view returns data whose load started before the call.
//
// The error is a *InvalidateError if some members did not confirm within
// Config.InvalidateTimeout, or by ctx's end: it names them and says when their copies are
// gone. The keys are then still invalidated everywhere else. A key that is empty or too
// large is refused before anything is done, as is a closed cache and a ctx that has ended.
func (c *Cache[V]) Invalidate(ctx context.Context, keys ...string) error {
	for i, key := range keys {
		if err := checkKey(key); err != nil {
			return fmt.Errorf("key %d of %d: %w", i+1, len(keys), err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !c.life.begin() {
		return ErrClosed
	}
	defer c.life.end()
	if len(keys) == 0 {
		return nil
	}
	frames := c.invalidations(keys)
	for _, f := range frames {
		for _, k := range f.Keys {
			key := cloneString(stringOf(k))
			c.applyOne(key, ring.Hash(key), f.Mark)
		}
	}
	c.stats.invalidated.Add(int64(len(keys)))
	if c.cfg.Cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.InvalidateTimeout)
	defer cancel()
	return c.tell(ctx, frames)
}

// invalidations cuts keys into requests, each with a mark of its own.
func (c *Cache[V]) invalidations(keys []string) (frames []codec.Request) {
	size := 0
	for _, key := range keys {
		if n := len(frames); n == 0 || size+len(key) > invalidateBatch || len(frames[n-1].Keys) == codec.MaxKeysPerFrame {
			frames = append(frames, codec.Request{Kind: codec.KindInvalidate, Namespace: c.ns, Schema: c.schema, Mark: c.marks.next()})
			size = 0
		}
		f := &frames[len(frames)-1]
		f.Keys = append(f.Keys, bytesOf(key))
		size += len(key)
	}
	return frames
}

// tell sends frames to every other member, and to those who come into the view meanwhile,
// and waits until all have applied them.
func (c *Cache[V]) tell(ctx context.Context, frames []codec.Request) error {
	var mu sync.Mutex // guards failed and errs
	failed, errs := []string(nil), []error(nil)
	told := map[string]bool{c.self: true}
	// A member without the cache holds nothing of it, but one that opens it now may copy from
	// a member that has not applied the fences. So who has none is asked again at the end.
	again := make(map[string]bool)
	for {
		var wg sync.WaitGroup
		for _, m := range c.cfg.Cluster.View().Members() {
			if told[m.Name] {
				continue
			}
			told[m.Name] = true
			wg.Go(func() {
				without, err := c.tellMember(ctx, m, frames)
				mu.Lock()
				defer mu.Unlock()
				if _, ok := again[m.Name]; without && err == nil && !ok {
					again[m.Name] = true
				}
				if err != nil {
					failed, errs = append(failed, m.Name), append(errs, fmt.Errorf("%s: %w", m.Name, err))
				}
			})
		}
		wg.Wait()
		for name, due := range again {
			if due {
				again[name], told[name] = false, false
			}
		}
		if !slices.ContainsFunc(c.cfg.Cluster.View().Members(), func(m ring.Member) bool { return !told[m.Name] }) {
			break
		}
	}
	if len(failed) == 0 {
		return nil
	}
	slices.Sort(failed)
	c.stats.unconfirmed.Add(1)
	now := time.Now()
	if c.cfg.Now != nil {
		now = c.cfg.Now()
	}
	return &InvalidateError{
		Namespace: c.cfg.Namespace, Unreached: failed, CleanBy: now.Add(c.cfg.Freshness.Bound()), Err: errors.Join(errs...),
	}
}

// tellMember sends frames to one member until it has applied them all, or says that it has
// no such cache: without.
func (c *Cache[V]) tellMember(ctx context.Context, m ring.Member, frames []codec.Request) (without bool, err error) {
	wait := retryMin
	for i := 0; i < len(frames); {
		req, resp := frames[i], codec.Response{} // Call numbers the request
		if deadline, ok := ctx.Deadline(); ok {
			req.Timeout = max(time.Until(deadline), time.Microsecond)
		}
		err := c.cfg.Cluster.Call(ctx, m, &req, &resp)
		if err == nil {
			status, text := resp.Status, string(resp.Text)
			resp.Release()
			switch status {
			case codec.StatusUnknown, codec.StatusClosed:
				without = true
				fallthrough
			case codec.StatusDone:
				i++
				continue
			}
			err = fmt.Errorf("status %d: %s", status, text)
		}
		current, ok := c.cfg.Cluster.View().Member(m.Name)
		if !ok {
			return without, fmt.Errorf("gone from the view: %w", err)
		}
		m = current // it may have another address by now
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return without, err
		}
		wait = min(2*wait, retryMax)
	}
	return without, nil
}

// applyOne makes this node's copies of key unusable. false: that invalidation was applied
// here before.
func (c *Cache[V]) applyOne(key string, hash uint64, mark codec.Mark) bool {
	stamp, applied := c.fences.apply(key, hash, mark, func() { c.owned.delete(key) })
	// From here on whoever comes must not join what began before. Who applied the same
	// invalidation before may not have come to this yet.
	c.flights.detach(key, hash, stamp)
	c.asks.detach(key, hash, stamp)
	if applied {
		c.stats.fences.Add(1)
	}
	return applied
}
