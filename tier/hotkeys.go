package tier

import (
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// A member that starts with nothing asks the origin for everything. It could know what it will be asked for first,
// because it was asked for the same before. So it keeps a list of its hottest keys in a file. It writes the file every
// minute, when its node leaves and when it closes. After a start it warms the keys on the list, at the lowest class, so
// that real misses go first.
//
// The hottest keys are those that spare the origin most: how often a key is asked for, times what its load takes. Each
// member lists the keys that it owns, so all lists together are the cluster's. While a list is being warmed it is not
// replaced by a worse one, and keys that could not be warmed stay on it as long as there is room.
const (
	// hotEvery is how often the list is written.
	hotEvery = time.Minute
	// hotChunk is how many keys are warmed, and then counted as progress, at a time.
	hotChunk = 128
	// hotPause is the time between checks whether warming can begin, or go on.
	hotPause = 100 * time.Millisecond
)

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

// hotKeys is the state of the list. One goroutine, keepHot, changes it; any goroutine may read the counters.
type hotKeys struct {
	total, done, failed, listed atomic.Int64
	damaged, saved, unsaved     atomic.Int64
	finished                    atomic.Bool
	now                         chan struct{} // asks for the file to be written; has room for one

	unwarmed []string // used by keepHot alone
	trouble  error    // likewise; why the last attempt to write failed
}

func (h *hotKeys) stats() HotKeysStats {
	return HotKeysStats{
		Total: int(h.total.Load()), Done: int(h.done.Load()), Failed: int(h.failed.Load()), Finished: h.finished.Load(),
		Damaged: h.damaged.Load(), Listed: int(h.listed.Load()), Saved: h.saved.Load(), Unsaved: h.unsaved.Load(),
	}
}

// save asks for the file to be written soon.
func (h *hotKeys) save() {
	select {
	case h.now <- struct{}{}:
	default:
	}
}

// Warming returns how far a new cache has come with its list of hot keys. finished: nothing is left to do.
func (h handler) Warming() (done, total int, finished bool) {
	s := h.c.hot.stats()
	return s.Done + s.Failed, s.Total, s.Finished
}

// keepHot warms what the file lists and then writes it again and again. It ends with c.ctx; Close waits for it.
func (c *core) keepHot() {
	c.warmHot()
	tick := time.NewTicker(hotEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.saveHot()
		case <-c.hot.now:
			c.saveHot()
		case <-c.own.Ctx.Done():
			if c.hot.finished.Load() {
				c.saveHot()
			}
			return
		}
	}
}

// warmHot warms what the file lists.
func (c *core) warmHot() {
	h, path := &c.hot, c.cfg.HotKeysFile
	keys, err := readHot(path, c.cfg.Namespace)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.damaged.Store(1)
		c.cfg.Logger.Warn("the list of hot keys cannot be used: starting without it", "namespace", c.cfg.Namespace, "file", path, "err", err)
	}
	h.total.Store(int64(len(keys)))
	until := c.own.Clock.Now() + int64(owner.NewFor)
	for c.own.Journal.IsOpening() && c.own.Clock.Now() < until && owner.Sleep(c.own.Ctx, hotPause) == nil { // a cache that is opening may not keep what it loads
	}
	for some := range slices.Chunk(keys, hotChunk) {
		report, err := c.front.warmKeys(c.own.Ctx, some)
		for errors.Is(err, ErrIsolated) && owner.Sleep(c.own.Ctx, hotPause) == nil {
			report, err = c.front.warmKeys(c.own.Ctx, some)
		}
		if c.own.Ctx.Err() != nil {
			return
		}
		var many *ManyError
		if errors.As(err, &many) {
			for key := range many.Errs {
				h.unwarmed = append(h.unwarmed, key)
			}
		} else if err != nil {
			return // closed
		}
		h.failed.Add(int64(report.Failed))
		h.done.Add(int64(len(some) - report.Failed))
	}
	h.finished.Store(true)
	if len(keys) > 0 {
		c.cfg.Logger.Info("hot keys are warm", "namespace", c.cfg.Namespace, "keys", len(keys), "failed", h.failed.Load())
	}
}

// saveHot writes the list. An empty list does not replace another one.
func (c *core) saveHot() {
	h := &c.hot
	keys := c.hotList()
	if len(keys) == 0 {
		return
	}
	listed := make(map[string]bool, len(keys))
	for _, key := range keys {
		listed[key] = true
	}
	for _, key := range h.unwarmed {
		if !listed[key] {
			keys = append(keys, key)
		}
	}
	b, kept := appendHot(nil, c.cfg.Namespace, keys)
	err := writeHot(c.cfg.HotKeysFile, b)
	if err != nil {
		h.unsaved.Add(1)
		if !sameTrouble(err, h.trouble) {
			c.cfg.Logger.Warn("the list of hot keys cannot be written", "namespace", c.cfg.Namespace, "file", c.cfg.HotKeysFile, "err", err)
		}
	} else {
		h.saved.Add(1)
		h.listed.Store(int64(kept))
		if h.trouble != nil {
			c.cfg.Logger.Info("the list of hot keys is written again", "namespace", c.cfg.Namespace, "file", c.cfg.HotKeysFile)
		}
	}
	h.trouble = err
}

// sameTrouble reports whether two errors have the same cause, even if they name different files.
func sameTrouble(a, b error) bool {
	var x, y syscall.Errno
	return a != nil && b != nil && errors.As(a, &x) == errors.As(b, &y) && x == y
}

// hotList returns the hottest of the keys that this node owns, hottest first. A node that leaves owns none any more,
// and lists what it has.
func (c *core) hotList() []string {
	now := c.own.Clock.Now()
	best := c.own.MostSparing(maxHotKeys, func(e *store.Entry, _ bool) bool { return !e.Replica && now < e.Hard })
	keys := make([]string, len(best))
	for i := range best {
		keys[i] = best[i].Key
	}
	return keys
}
