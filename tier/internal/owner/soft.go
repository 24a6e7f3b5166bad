package owner

import (
	"context"
	"time"

	"github.com/weircache/weir/tier/internal/store"
)

// awaitSoftTimeout waits for fl, at most until Freshness.SoftTimeout has passed since the read began. It applies only if the
// caller has seen a copy e. When the time is over, awaitSoftTimeout returns the present copy instead of the fill's result, and
// the fill goes on.
func (c *Owner) awaitSoftTimeout(ctx context.Context, fl *Flight, e *store.Entry, maxAge time.Duration, began int64) (f Found, ok bool) {
	d := c.Config.Freshness.SoftTimeout
	if d <= 0 || e == nil || maxAge == 0 {
		return f, false
	}
	select {
	case <-fl.Done:
		return f, false
	default:
	}
	t := time.NewTimer(max(d-time.Duration(c.Clock.Now()-began), 0))
	defer t.Stop()
	select {
	case <-fl.Done:
		return f, false
	case <-ctx.Done():
		return f, false
	case <-t.C:
	}
	now := c.Clock.Now() // the copy may have been invalidated, or replaced, while this waited
	if e = c.Valid(fl.Key, fl.Hash, now); e == nil || e.Flags != 0 || maxAge > 0 && now-e.Loaded > int64(maxAge) {
		return f, false
	}
	c.Stats.Soft.Add(1)
	return Found{E: e, Late: true, Why: store.StaleSoft}, true
}
