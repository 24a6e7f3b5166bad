package tier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// PutOptions describes the value of a Put.
type PutOptions struct {
	// Version is the origin's version of the value, as a loader sets it with Fill.SetVersion. Required.
	Version uint64
	// TTL is the time until the value's soft expiry, as with Fill.SetTTL. 0 means Freshness.TTL. If TTL exceeds
	// Freshness.MaxTTL, where that is set, Put returns ErrTTLTooLong and does nothing.
	TTL time.Duration
	// Tags are the tags that a loader would give the value.
	Tags []string
}

// ErrNoVersion says that a Put has no version.
var ErrNoVersion = owner.ErrNoVersion

// Put invalidates key and hands its new value to the owner. Call it after the write to the origin has committed.
// Every copy becomes unusable, as with Invalidate, and the owner takes the value, so that the next Get does not cost
// a load. The errors are those of Invalidate, and ErrNoVersion, ErrValueTooLarge, ErrBadTag and the codec's. Put is
// safe for concurrent use.
//
// The owner keeps the value only if no newer one can exist. It drops the value if it knows a higher version of the
// key, if the key, one of the tags or the namespace was invalidated without a version within about the last half
// minute, or if the value takes longer than that to arrive. The value is also lost if the owner cannot be reached. In
// doubt the next Get loads, and Put returns no error for that. Stats counts the values that were kept. If the owner
// is another member, it gets two requests in addition to the invalidation: one that reads its clock, and one with the
// value. Do not change value after the call.
func (c *Cache[V]) Put(ctx context.Context, key string, value V, o PutOptions) error {
	if err := errors.Join(owner.CheckKey(key), owner.CheckTags(o.Tags)); err != nil {
		return err
	}
	switch {
	case o.Version == 0:
		return ErrNoVersion
	case o.TTL < 0:
		return fmt.Errorf("weir: Put: TTL is %v: it must not be below 0", o.TTL)
	case len(o.Tags) > codec.MaxTags:
		return fmt.Errorf("%w: more than %d: give the value fewer, wider ones", ErrBadTag, codec.MaxTags)
	}
	if err := owner.Contract(c.cfg.Freshness).Allows(o.TTL); err != nil {
		return fmt.Errorf("weir: Put: %w", err)
	}
	b, err := filling[V]{&Fill[V]{values: &c.values, value: value}}.Pack()
	if err != nil {
		return fmt.Errorf("weir: put of %s %q: %w", c.cfg.Namespace, key, err)
	}
	p := owner.Put{Key: strings.Clone(key), Hash: ring.Hash(key), Version: o.Version, TTL: o.TTL, Value: b, Began: c.own.Clock.Now()}
	for _, tag := range o.Tags {
		p.Tags = append(p.Tags, fence.TagHash(tag))
	}
	_, err = c.spread(ctx, o.Version, func(ctx context.Context, t Token) {
		p.Mark = t.mark
		if c.own.SendPut(ctx, &p) {
			c.own.Stats.PutKept.Add(1)
		} else {
			c.own.Stats.PutRefused.Add(1)
		}
	}, journal.Part{Scope: codec.ScopeKeys, Names: []string{key}})
	return err
}

// Refresh reloads key at its owner, whatever copies exist, and returns the loaded value. Callers share a load that
// begins after their calls. If the load fails, an existing copy stays. The errors are those of Get.
func (c *Cache[V]) Refresh(ctx context.Context, key string) (V, error) {
	a, err := c.Read(ctx, key, ReadOptions{MaxAge: store.RefreshAge})
	return a.Value, err
}

// A put travels to the owner for an unbounded time: a frame can wait in the sockets of a process that is stopped. The
// owner must not underestimate the value's age, and it must not keep a value older than what the fences remember. So
// the owner measures the age by its own clock. The putter first asks what that clock shows. With the value it sends
// that reading, and how long before the reading arrived the value was the origin's, by the putter's clock. The owner
// read its clock before the putter got the answer. So the resulting time is never too late, and it is too early by
// the time of one answer at most, however long the put takes. A reading serves for one put only: a reading from
// before the put would have to be carried forward on the putter's clock, which may have been set ahead since.
//
// A member of an earlier version sends neither. The owner assumes that its value is as old as the whole timeout of
// the call.
