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

// hotKeys is what the keeper of the list of hot keys needs of a cache.
func hotKeys(c *core, f front) hotkeys.Config {
	return hotkeys.Config{
		Namespace: c.cfg.Namespace, File: c.cfg.HotKeysFile, Logger: c.cfg.Logger,
		Ready: c.awaitOpen, Warm: func(ctx context.Context, keys []string) ([]string, error) { return warmListed(ctx, f, keys) }, Hottest: c.hotList,
	}
}

// awaitOpen waits until the cache may keep what it loads, which one that is opening may not.
func (c *core) awaitOpen(ctx context.Context) {
	until := c.own.Clock.Now() + int64(owner.NewFor)
	for c.own.Journal.IsOpening() && c.own.Clock.Now() < until && owner.Sleep(ctx, hotPause) == nil {
	}
}

// warmListed warms keys of the list and returns those that it has given up.
func warmListed(ctx context.Context, f front, keys []string) (failed []string, err error) {
	_, err = f.warmKeys(ctx, keys)
	for errors.Is(err, ErrIsolated) && owner.Sleep(ctx, hotPause) == nil {
		_, err = f.warmKeys(ctx, keys)
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
