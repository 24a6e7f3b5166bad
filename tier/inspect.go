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
	c     *core
	front front
}

func newHandler[V any](c *Cache[V]) handler { return handler{c.own.Handler(), &c.core, c} }

// front is what a handler needs of the part that knows the type of the values.
type front interface {
	// warmKeys is Cache.Warm.
	warmKeys(ctx context.Context, keys []string) (WarmReport, error)
	// nearCopy describes the near copy of a key, if there is one that could be served now.
	nearCopy(key string, now int64) (Copy, bool)
}

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
	if b, ok := h.front.nearCopy(key, now); ok {
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
	r, err := h.front.warmKeys(ctx, keys)
	var many *ManyError
	if errors.As(err, &many) {
		failed, err = many.Errs, nil
	}
	return r.Present, r.Loaded, r.NotFound, failed, err
}

// BeginDrill begins a drill for an operator. run watches it until it or ctx ends, and must be called. The namespace's
// statistics show the drill's results.
func (h handler) BeginDrill(fraction float64, duration time.Duration) (run func(ctx context.Context), err error) {
	if err := owner.CheckDrill(fraction, duration, MaxDrill); err != nil {
		return nil, err
	}
	d, err := h.c.beginDrill(fraction, duration)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { h.c.runDrill(ctx, d) }, nil
}

// Warming returns how far a new cache has come with its list of hot keys. finished: nothing is left to do.
func (h handler) Warming() (done, total int, finished bool) {
	s := h.c.hot.Stats()
	return s.Done + s.Failed, s.Total, s.Finished
}
