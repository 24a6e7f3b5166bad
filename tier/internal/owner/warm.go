package owner

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/governor"
)

const (
	// WarmShare limits the permits that a member uses to warm: one in WarmShare of its share.
	WarmShare = 4
	// WarmPause is how long Warm waits after a round without progress, and then twice as long each time.
	WarmPause = 50 * time.Millisecond
)

// WarmOwn loads the keys that this node has to load to be warm. A key gets ErrNotWarmed if there was no permit or no
// time.
func (c *Owner) WarmOwn(ctx context.Context, ws []*OwnedRead, chain []uint64) {
	size := 1
	if c.Config.Batches {
		size = c.Config.BatchSize
	}
	patience := 2*c.Config.Origin.Timeout + time.Second
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline)
	}
	until := clock.Later(c.Clock.Now(), patience/2)
	share, _ := c.Config.Share()
	next := make(chan []*OwnedRead, len(ws))
	for some := range slices.Chunk(ws, size) {
		next <- some
	}
	close(next)
	var wg sync.WaitGroup
	for range min(max(share/WarmShare, 1), len(next)) {
		wg.Go(func() {
			for some := range next {
				if c.Clock.Now() >= until || ctx.Err() != nil {
					for _, w := range some {
						w.Err = ErrNotWarmed
					}
					continue
				}
				for _, w := range some {
					w.cl = governor.Warm
				}
				c.load(ctx, some, chain)
				var after time.Duration
				for _, w := range some {
					if over, refused := c.Config.Errors.AsRefused(w.Err); refused {
						w.Err, after = ErrNotWarmed, max(after, over.RetryAfter)
					} else if IsContext(ctx, w.Err) {
						w.Err = ErrNotWarmed
					}
				}
				if after > 0 {
					_ = Sleep(ctx, min(after, WarmPause))
				}
			}
		})
	}
	wg.Wait()
}
