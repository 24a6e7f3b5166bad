package hotkeys

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// Every is how often the list is written.
	Every = time.Minute
	// Chunk is how many keys are warmed, and then counted as progress, at a time.
	Chunk = 128
)

// Config is what a Keeper needs of its cache.
type Config struct {
	Namespace string
	File      string
	Logger    *slog.Logger
	// Ready waits until the cache may keep what it loads, or until ctx ends.
	Ready func(ctx context.Context)
	// Warm warms keys and returns those that it has given up. An error means that the cache is closed.
	Warm func(ctx context.Context, keys []string) (failed []string, err error)
	// Hottest returns the keys to list, hottest first.
	Hottest func() []string
}

// A Keeper warms the keys of a file and then keeps a list of the hottest keys in it. The zero Keeper has no file: it
// is finished, and Save does nothing. One goroutine runs Keep; the other methods are safe for concurrent use.
type Keeper struct {
	cfg                         Config
	total, done, failed, listed atomic.Int64
	damaged, saved, unsaved     atomic.Int64
	finished                    atomic.Bool
	now                         chan struct{} // asks for the file to be written; has room for one

	unwarmed []string // used by Keep alone
	trouble  error    // likewise; why the last attempt to write failed
}

// Init sets the file of a zero Keeper. Call it before any other method.
func (k *Keeper) Init(cfg Config) {
	k.cfg, k.now = cfg, make(chan struct{}, 1)
}

// Stats says how far a Keeper is.
type Stats struct {
	Total    int   // keys that the file had at the start
	Done     int   // of those, the ones that were warmed, or that the origin does not have
	Failed   int   // of those, the ones that were given up
	Finished bool  // all are done or failed, or there is nothing to warm
	Damaged  int64 // 1: there was a file and it could not be used; the log says why
	Listed   int   // keys in the file written last
	Saved    int64 // times that it was written
	Unsaved  int64 // times that it could not be written
}

// Stats returns how far the Keeper is.
func (k *Keeper) Stats() Stats {
	return Stats{
		Total: int(k.total.Load()), Done: int(k.done.Load()), Failed: int(k.failed.Load()), Finished: k.cfg.File == "" || k.finished.Load(),
		Damaged: k.damaged.Load(), Listed: int(k.listed.Load()), Saved: k.saved.Load(), Unsaved: k.unsaved.Load(),
	}
}

// Save asks for the file to be written soon.
func (k *Keeper) Save() {
	select {
	case k.now <- struct{}{}:
	default:
	}
}

// Keep warms what the file lists and then writes it again and again, until ctx ends. If ctx ends or the cache is closed
// before all is warm, Keep returns and leaves the file as it is.
func (k *Keeper) Keep(ctx context.Context) {
	if k.warm(ctx); !k.finished.Load() {
		return
	}
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.save()
		case <-k.now:
			k.save()
		case <-ctx.Done():
			k.save()
			return
		}
	}
}

// warm warms what the file lists.
func (k *Keeper) warm(ctx context.Context) {
	keys, err := Read(k.cfg.File, k.cfg.Namespace)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.damaged.Store(1)
		k.cfg.Logger.Warn("the list of hot keys cannot be used: starting without it", "namespace", k.cfg.Namespace, "file", k.cfg.File, "err", err)
	}
	k.total.Store(int64(len(keys)))
	k.cfg.Ready(ctx)
	for some := range slices.Chunk(keys, Chunk) {
		failed, err := k.cfg.Warm(ctx, some)
		if ctx.Err() != nil || err != nil {
			return
		}
		k.unwarmed = append(k.unwarmed, failed...)
		k.failed.Add(int64(len(failed)))
		k.done.Add(int64(len(some) - len(failed)))
	}
	k.finished.Store(true)
	if len(keys) > 0 {
		k.cfg.Logger.Info("hot keys are warm", "namespace", k.cfg.Namespace, "keys", len(keys), "failed", k.failed.Load())
	}
}

// save writes the list. An empty list does not replace another one.
func (k *Keeper) save() {
	keys := k.cfg.Hottest()
	if len(keys) == 0 {
		return
	}
	listed := make(map[string]bool, len(keys))
	for _, key := range keys {
		listed[key] = true
	}
	for _, key := range k.unwarmed {
		if !listed[key] {
			keys = append(keys, key)
		}
	}
	b, kept := Append(nil, k.cfg.Namespace, keys)
	err := Write(k.cfg.File, b)
	if err != nil {
		k.unsaved.Add(1)
		if !sameTrouble(err, k.trouble) {
			k.cfg.Logger.Warn("the list of hot keys cannot be written", "namespace", k.cfg.Namespace, "file", k.cfg.File, "err", err)
		}
	} else {
		k.saved.Add(1)
		k.listed.Store(int64(kept))
		if k.trouble != nil {
			k.cfg.Logger.Info("the list of hot keys is written again", "namespace", k.cfg.Namespace, "file", k.cfg.File)
		}
	}
	k.trouble = err
}

// sameTrouble reports whether an error has the same cause as the one before, if there was one, even if they name
// different files.
func sameTrouble(err, before error) bool {
	var x, y syscall.Errno
	return before != nil && errors.As(err, &x) == errors.As(before, &y) && x == y
}
