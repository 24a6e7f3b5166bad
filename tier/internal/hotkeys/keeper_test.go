package hotkeys_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/tier/internal/hotkeys"
)

// cache is what a Keeper sees of a cache. A test changes it while the Keeper waits.
type cache struct {
	k       hotkeys.Keeper
	file    string
	hottest atomic.Pointer[[]string]
	fails   map[string]bool // keys that cannot be warmed
	hangs   int             // the number of the call of Warm that waits for its context; 0: none
	closed  int             // the number of the call of Warm that finds the cache closed; 0: none
	unready bool            // Ready waits for its context

	warmed [][]string
	log    testlog.Log
	stop   func() // ends Keep
}

func newCache(t *testing.T) *cache {
	return &cache{file: filepath.Join(t.TempDir(), "dir", "hot"), fails: make(map[string]bool)}
}

func (c *cache) setHottest(keys ...string) { c.hottest.Store(&keys) }

// list writes keys to the file.
func (c *cache) list(t *testing.T, keys ...string) {
	t.Helper()
	b, _ := hotkeys.Append(nil, "n", keys)
	if err := errors.Join(os.MkdirAll(filepath.Dir(c.file), 0o700), hotkeys.Write(c.file, b)); err != nil {
		t.Fatal(err)
	}
}

// expect compares what the file lists.
func (c *cache) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	synctest.Wait()
	if got, err := hotkeys.Read(c.file, "n"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: the file lists %d keys %.200q, %v; want %d %.200q", when, len(got), got, err, len(want), want)
	}
}

// start starts Keep.
func (c *cache) start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.k.Init(hotkeys.Config{
		Namespace: "n", File: c.file, Logger: slog.New(slog.NewTextHandler(&c.log, nil)),
		Ready: func(ctx context.Context) {
			if c.unready {
				<-ctx.Done()
			}
		},
		Warm: func(ctx context.Context, keys []string) (failed []string, err error) {
			c.warmed = append(c.warmed, slices.Clone(keys))
			switch len(c.warmed) {
			case c.hangs:
				<-ctx.Done()
				return nil, nil
			case c.closed:
				return nil, errors.New("closed")
			}
			return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !c.fails[key] }), nil
		},
		Hottest: func() []string {
			if keys := c.hottest.Load(); keys != nil {
				return slices.Clone(*keys)
			}
			return nil
		},
	})
	done := make(chan struct{})
	go func() { defer close(done); c.k.Keep(ctx) }()
	c.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (c *cache) logged(t *testing.T, line string, want int) {
	t.Helper()
	synctest.Wait()
	if got := strings.Count(c.log.String(), line); got != want {
		t.Errorf("%q was logged %d times, want %d:\n%s", line, got, want, c.log.String())
	}
}

func (c *cache) stats(t *testing.T, want hotkeys.Stats) {
	t.Helper()
	synctest.Wait()
	if got := c.k.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func named(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("key:%05d", i))
	}
	return keys
}

// A Keeper without a file has nothing to do.
func TestKeeperWithoutFile(t *testing.T) {
	var k hotkeys.Keeper
	k.Save()
	if s := k.Stats(); s != (hotkeys.Stats{Finished: true}) {
		t.Errorf("stats %+v", s)
	}
}

// A list is warmed in chunks, hottest first, before it is replaced, and keys that could not be warmed stay on it behind
// the hottest.
func TestKeeperWarms(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c, keys := newCache(t), named(2*hotkeys.Chunk+10)
		c.list(t, keys...)
		c.fails[keys[3]], c.fails[keys[200]], c.fails[keys[201]] = true, true, true
		c.setHottest("hot", keys[200], "warm")
		c.unready = true
		c.start()
		if len(c.warmed) > 0 {
			t.Error("keys were warmed before the cache was ready")
		}
		c.stats(t, hotkeys.Stats{Total: len(keys)})
		c.unready = false
		c.stop()
		c.expect(t, "never ready", keys...)
		c.warmed = nil
		c.start()
		if !slices.Equal(slices.Concat(c.warmed...), keys) || len(c.warmed) != 3 || len(c.warmed[0]) != hotkeys.Chunk {
			t.Errorf("warmed %d chunks: %q", len(c.warmed), c.warmed)
		}
		c.logged(t, "hot keys are warm", 1)
		c.stats(t, hotkeys.Stats{Total: len(keys), Done: len(keys) - 3, Failed: 3, Finished: true})
		c.expect(t, "warm", keys...)
		time.Sleep(hotkeys.Every)
		c.expect(t, "after the first minute", "hot", keys[200], "warm", keys[3], keys[201])
		c.stats(t, hotkeys.Stats{Total: len(keys), Done: len(keys) - 3, Failed: 3, Finished: true, Listed: 5, Saved: 1})
		hottest := named(hotkeys.MaxKeys + 1)[1:]
		c.setHottest(hottest...)
		c.stop()
		c.expect(t, "no room for others", hottest...)
	})
}

// A list that was not warmed to its end stays as it is.
func TestKeeperKeepsListNotWarmed(t *testing.T) {
	for name, change := range map[string]func(c *cache){
		"the cache closes":  func(c *cache) { c.closed = 2 },
		"Keep ends":         func(c *cache) { c.hangs = 2 },
		"Keep ends at once": func(c *cache) { c.hangs = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c, keys := newCache(t), named(3*hotkeys.Chunk)
				c.list(t, keys...)
				c.setHottest("hot")
				change(c)
				c.start()
				c.k.Save()
				c.stop()
				c.expect(t, name, keys...)
				if s := c.k.Stats(); s.Finished || s.Saved != 0 || s.Done > hotkeys.Chunk || s.Failed != 0 {
					t.Errorf("stats %+v", s)
				}
				if n := len(c.warmed); n != max(c.closed, c.hangs) {
					t.Errorf("Warm was called %d times", n)
				}
				c.logged(t, "hot keys are warm", 0)
			})
		})
	}
}

// The file is written every minute, when Save asks for it and at the end, but an empty list does not replace another.
func TestKeeperSaves(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := newCache(t)
		c.list(t, "old")
		if err := os.Remove(c.file); err != nil { // only its directory is there
			t.Fatal(err)
		}
		c.start()
		c.logged(t, "level=", 0) // a first start is nothing to report
		c.stats(t, hotkeys.Stats{Finished: true})
		c.setHottest("a", "b")
		time.Sleep(hotkeys.Every - 1)
		c.stats(t, hotkeys.Stats{Finished: true})
		time.Sleep(time.Nanosecond)
		c.expect(t, "after a minute", "a", "b")
		c.stats(t, hotkeys.Stats{Finished: true, Listed: 2, Saved: 1})
		c.setHottest("c")
		c.k.Save()
		c.expect(t, "asked for", "c")
		c.stats(t, hotkeys.Stats{Finished: true, Listed: 1, Saved: 2})
		c.setHottest()
		time.Sleep(hotkeys.Every)
		c.expect(t, "an empty list", "c")
		c.stats(t, hotkeys.Stats{Finished: true, Listed: 1, Saved: 2})
		c.setHottest("d")
		c.stop()
		c.expect(t, "the end", "d")
		c.stats(t, hotkeys.Stats{Finished: true, Listed: 1, Saved: 3})
	})
}

// A file that cannot be used is a warning, and the cache starts without it.
func TestKeeperDamagedFile(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := newCache(t)
		c.list(t, "old")
		if err := os.WriteFile(c.file, []byte("something else"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.start()
		c.logged(t, "level=WARN", 1)
		c.logged(t, "it is not a list of hot keys", 1)
		c.stats(t, hotkeys.Stats{Finished: true, Damaged: 1})
		c.setHottest("a")
		c.stop()
		c.expect(t, "the end", "a")
	})
}

// Trouble with writing is logged once, until its cause changes or it is over.
func TestKeeperLogsTroubleOnce(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		const trouble, over = "the list of hot keys cannot be written", "the list of hot keys is written again"
		c, dir := newCache(t), func(c *cache) string { return filepath.Dir(c.file) }
		c.setHottest("a")
		c.start()
		time.Sleep(3 * hotkeys.Every) // there is no directory
		c.logged(t, trouble, 1)
		c.stats(t, hotkeys.Stats{Finished: true, Unsaved: 3})
		if err := os.WriteFile(dir(c), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * hotkeys.Every) // it is not a directory
		c.logged(t, trouble, 2)
		if err := errors.Join(os.Remove(dir(c)), os.Mkdir(dir(c), 0o700)); err != nil {
			t.Fatal(err)
		}
		c.logged(t, over, 0)
		time.Sleep(3 * hotkeys.Every)
		c.logged(t, over, 1)
		c.expect(t, "written again", "a")
		c.stats(t, hotkeys.Stats{Finished: true, Unsaved: 6, Listed: 1, Saved: 3})
		if err := os.RemoveAll(dir(c)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(hotkeys.Every)
		c.logged(t, trouble, 3)
		c.stop()
		c.logged(t, trouble, 3)
	})
}
