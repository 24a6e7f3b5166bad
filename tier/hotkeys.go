package tier

import (
	"context"
	"errors"
	"time"

	"github.com/weircache/weir/tier/internal/hotkeys"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// hotPause is the time between checks whether warming can begin, or go on.
const hotPause = 100 * time.Millisecond

// HotKeysStats describes the file that Config.HotKeysFile names.
type HotKeysStats struct {
	Total    int   `json:"total"`    // keys that the file had at the start
	Done     int   `json:"done"`     // of those, the ones that were warmed, or that the origin does not have
	Failed   int   `json:"failed"`   // of those, the ones that were given up
	Finished bool  `json:"finished"` // all are done or failed, or there is nothing to warm
	Damaged  int64 `json:"damaged"`  // 1: there was a file and it could not be used; the log says why
	Listed   int   `json:"listed"`   // keys in the file written last
	Saved    int64 `json:"saved"`    // times that it was written
	Unsaved  int64 `json:"unsaved"`  // times that it could not be written
}

// hotKeys is what the keeper of the list of hot keys needs of the cache.
func (c *core) hotKeys() hotkeys.Config {
	return hotkeys.Config{
		Namespace: c.cfg.Namespace, File: c.cfg.HotKeysFile, Logger: c.cfg.Logger,
		Ready: c.awaitOpen, Warm: c.warmListed, Hottest: c.hotList,
	}
}

// Warming returns how far a new cache has come with its list of hot keys. finished: nothing is left to do.
func (h handler) Warming() (done, total int, finished bool) {
	s := h.c.hot.Stats()
	return s.Done + s.Failed, s.Total, s.Finished
}

// awaitOpen waits until the cache may keep what it loads, which one that is opening may not.
func (c *core) awaitOpen(ctx context.Context) {
	until := c.own.Clock.Now() + int64(owner.NewFor)
	for c.own.Journal.IsOpening() && c.own.Clock.Now() < until && owner.Sleep(ctx, hotPause) == nil {
	}
}

// warmListed warms keys of the list and returns those that it has given up.
func (c *core) warmListed(ctx context.Context, keys []string) (failed []string, err error) {
	_, err = c.front.warmKeys(ctx, keys)
	for errors.Is(err, ErrIsolated) && owner.Sleep(ctx, hotPause) == nil {
		_, err = c.front.warmKeys(ctx, keys)
	}
	many, ok := errors.AsType[*ManyError](err)
	if !ok {
		return nil, err
	}
	for key := range many.Errs {
		failed = append(failed, key)
	}
	return failed, nil
}

// hotList returns the hottest of the keys that this node owns, hottest first. A node that leaves owns none any more,
// and lists what it has.
func (c *core) hotList() []string {
	now := c.own.Clock.Now()
	best := c.own.MostSparing(hotkeys.MaxKeys, func(e *store.Entry, _ bool) bool { return !e.Replica && now < e.Hard })
	keys := make([]string, len(best))
	for i := range best {
		keys[i] = best[i].Key
	}
	return keys
}
