package tier

import (
	"context"
	"errors"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// Copy describes what a member has of a key, as the stats endpoint shows it to an operator. It does not contain the
// value.
type Copy struct {
	Tier     string  `json:"tier"`          // "near" or "owned"
	Age      float64 `json:"age_seconds"`   // since the start of its load
	Fresh    float64 `json:"fresh_seconds"` // until its soft expiry; below 0: past it
	Left     float64 `json:"left_seconds"`  // until it can no longer be served from here
	Bytes    int     `json:"bytes"`         // of the encoded value
	NotFound bool    `json:"not_found"`     // the origin has no such key
	Failed   bool    `json:"failed"`        // the last fill failed, and its error is remembered
}

// handler answers for a cache: other members, and the operator of this one.
type handler struct {
	owner.Handler
	c *core
}

func (c *core) handler() handler { return handler{c.own.Handler(), c} }

var _ codec.Handler = handler{}

// Stats implements codec.Handler.
func (h handler) Stats() any { return h.c.allStats() }

// InspectKey returns this member's copies of a key that could be served now. It starts nothing and does not count as a
// read.
func (h handler) InspectKey(key string) any {
	c, out := h.c, []Copy{}
	if owner.CheckKey(key) != nil || c.own.Life.IsClosed() {
		return out
	}
	now := c.own.Clock.Now()
	if b, ok := c.front.nearCopy(key, now); ok {
		out = append(out, b)
	}
	if e := c.own.Valid(key, ring.Hash(key), now); e != nil {
		out = append(out, Copy{
			Tier: "owned", Age: seconds(now - e.Loaded), Fresh: seconds(e.Soft - now), Left: seconds(e.Hard - now),
			Bytes: len(e.Value), NotFound: e.Flags&store.NotFound != 0, Failed: e.Flags&store.Failed != 0,
		})
	}
	return out
}

// nearCopy implements front.
func (c *Cache[V]) nearCopy(key string, now int64) (Copy, bool) {
	b := c.near.Get(key)
	if b == nil {
		return Copy{}, false
	}
	c.own.Stats.NearUnused.Add(1) // takes the hit back
	if _, valid := c.own.Fences.NearValid(key, uint32(b.slot), b.checked); !valid || now >= b.until {
		return Copy{}, false
	}
	return Copy{
		Tier: "near", Age: seconds(now - b.loaded), Fresh: seconds(b.soft - now), Left: seconds(b.until - now),
		Bytes: int(b.size), NotFound: b.notFound,
	}, true
}

func seconds(ns int64) float64 { return time.Duration(ns).Seconds() }

// InvalidateFor is Apply for the operator. If some members have not confirmed, unreached names them, and their copies
// are gone by cleanBy. After any other error nothing is invalidated.
func (h handler) InvalidateFor(ctx context.Context, keys, tags []string, all bool, version uint64) (token string, unreached []string, cleanBy time.Time, err error) {
	t, err := h.c.applyChange(ctx, Change{Keys: keys, Tags: tags, All: all, Version: version})
	var e *InvalidateError
	if errors.As(err, &e) {
		unreached, cleanBy = e.Unreached, e.CleanBy
	}
	return t.String(), unreached, cleanBy, err
}

// WarmFor is Warm for the operator.
func (h handler) WarmFor(ctx context.Context, keys []string) (present, loaded, notFound int, failed map[string]error, err error) {
	r, err := h.c.front.warmKeys(ctx, keys)
	var many *ManyError
	if errors.As(err, &many) {
		failed, err = many.Errs, nil
	}
	return r.Present, r.Loaded, r.NotFound, failed, err
}
