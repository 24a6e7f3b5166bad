package tier

import (
	"bytes"
	"context"
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

	"github.com/weircache/weir/tier/internal/hotkeys"
	"github.com/weircache/weir/tier/internal/store"
)

// After a cold restart, callers wait for fewer expensive loads with the file than without it.
func TestHotKeysColdStart(t *testing.T) {
	waits := func(t *testing.T, path string) (expensive int) {
		bubble(t, func(t *testing.T) {
			var loads atomic.Int64
			cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
				loads.Add(1)
				if strings.HasPrefix(key, "dear") {
					return key, pause(ctx, 2*time.Second)
				}
				return key, pause(ctx, 10*time.Millisecond)
			}))
			cfg.HotKeysFile, cfg.Freshness.TTL, cfg.Origin.Concurrency = path, time.Hour, 16
			visit := func(c *Cache[string]) {
				for i := range 300 {
					if i%5 == 0 { // read less often, and still worth more
						get(t, c, fmt.Sprintf("dear%d", i/5%20), fmt.Sprintf("dear%d", i/5%20))
					}
					get(t, c, fmt.Sprintf("cheap%d", i%60), fmt.Sprintf("cheap%d", i%60))
				}
			}
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			visit(c)
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if path != "" {
				keys, err := hotkeys.Read(path, DefaultNamespace)
				if err != nil || len(keys) != 80 || slices.ContainsFunc(keys[:20], func(key string) bool { return !strings.HasPrefix(key, "dear") }) {
					t.Errorf("%q, %v: not hottest first", keys, err)
				}
			}
			c = open(t, cfg)
			_ = pause(t.Context(), 90*time.Second)
			if s := c.Stats().HotKeys; path != "" && s != (HotKeysStats{Total: 80, Done: 80, Finished: true, Listed: 80, Saved: 1}) {
				t.Errorf("%+v", s)
			}
			if s := c.Stats(); s.Owned+s.Fill != 0 {
				t.Error("warming counts as reads")
			}
			before := loads.Load()
			for i := range 20 {
				began := time.Now()
				get(t, c, fmt.Sprintf("dear%d", i), fmt.Sprintf("dear%d", i))
				if time.Since(began) >= 2*time.Second {
					expensive++
				}
			}
			if n := loads.Load() - before; int(n) != expensive {
				t.Errorf("%d loads, %d waits", n, expensive)
			}
		})
		return expensive
	}
	path := filepath.Join(t.TempDir(), "hot")
	if n := waits(t, ""); n != 20 {
		t.Errorf("%d expensive waits without a file", n)
	}
	if n := waits(t, path); n != 0 {
		t.Errorf("%d expensive waits with a file", n)
	}
}

// The log names a damaged file, and reports trouble with writing once; the cache continues.
func TestHotKeysTrouble(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "hot")
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		o := &counter{}
		cfg := plain(ByKey(o.load))
		cfg.HotKeysFile, cfg.Freshness.TTL, cfg.Logger = path, time.Hour, slog.New(slog.NewTextHandler(&log, nil))
		c := open(t, cfg)
		get(t, c, "a", "a#1")
		_ = pause(t.Context(), 5*hotkeys.Every+time.Second)
		synctest.Wait()
		if s := c.Stats().HotKeys; s.Unsaved != 5 || s.Saved != 0 || !s.Finished || s.Damaged != 0 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), "cannot be written"); n != 1 || !strings.Contains(log.String(), path) {
			t.Errorf("%d times: %s", n, &log)
		}
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		get(t, c, "a", "a#1")
		_ = pause(t.Context(), 2*hotkeys.Every)
		synctest.Wait()
		if n := strings.Count(log.String(), "written again"); n != 1 || c.Stats().HotKeys.Saved != 2 {
			t.Errorf("%d times, %+v: %s", n, c.Stats().HotKeys, &log)
		}
	})
	if err := os.WriteFile(path, []byte("weir hot keys\nrubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		cfg := plain(ByKey((&counter{}).load))
		cfg.HotKeysFile, cfg.Logger = path, slog.New(slog.NewTextHandler(&log, nil))
		c := open(t, cfg)
		get(t, c, "a", "a#1")
		synctest.Wait()
		if s := c.Stats().HotKeys; s.Damaged != 1 || !s.Finished || s.Total != 0 || !strings.Contains(log.String(), path) {
			t.Errorf("%+v: %s", s, &log)
		}
	})
}

// Close stops warming. A list that was not warmed to its end stays as it is; one that was warmed keeps what failed.
func TestHotKeysUnfinished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hot")
	b, _ := hotkeys.Append(nil, "", keysNamed(300))
	if err := hotkeys.Write(path, b); err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(slow(10 * time.Second).load))
		cfg.HotKeysFile, cfg.Origin.Concurrency = path, 128
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_ = pause(t.Context(), 45*time.Second)
		if s := c.Stats().HotKeys; s.Total != 300 || s.Done != hotkeys.Chunk || s.Failed != 0 || s.Finished {
			t.Errorf("%+v", s)
		}
		if done, total, finished := newHandler(c).Warming(); done != hotkeys.Chunk || total != 300 || finished {
			t.Errorf("%d of %d, %v", done, total, finished)
		}
		began := time.Now()
		if err := c.Close(t.Context()); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	if keys, err := hotkeys.Read(path, DefaultNamespace); err != nil || !slices.Equal(keys, keysNamed(300)) {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(func(_ context.Context, key string) (string, error) {
			if strings.HasSuffix(key, "7") {
				return "", fmt.Errorf("broken")
			}
			return key, nil
		}))
		cfg.HotKeysFile = path
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_ = pause(t.Context(), 30*time.Second)
		if s := c.Stats().HotKeys; s.Done != 270 || s.Failed != 30 || !s.Finished {
			t.Errorf("%+v", s)
		}
		get(t, c, "key-1", "key-1")
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	keys, err := hotkeys.Read(path, DefaultNamespace)
	if n := len(keys); err != nil || n != 300 || keys[0] != "key-1" || !slices.Contains(keys, "key-297") {
		t.Errorf("%d keys, %v: %q", n, err, keys)
	}
}

// Each member lists the keys that it owns; one that leaves lists the keys that it had.
func TestHotKeysOwned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hot")
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := map[string]*Cache[simValue]{}
		for _, name := range s.names {
			caches[name] = s.open(name, o, Config[simValue]{HotKeysFile: path + name})
		}
		for range 2 {
			if _, err := caches["n0"].GetMany(background, keysNamed(100)); err != nil {
				t.Fatal(err)
			}
			caches["n0"].near.Clear()
		}
		view, sum := s.nodes["n0"].View(), 0
		foreign := keyOf(view, "n2", 0) // from a time when n2 could not be reached
		caches["n0"].own.Owned.Set(foreign, &store.Entry{Hard: 1 << 60, Cost: time.Hour})
		s.nodes["n1"].setView(simView(t, "n0", "n2"))
		newHandler(caches["n1"]).Drain(background)
		synctest.Wait()
		s.stop(caches)
		for _, name := range s.names {
			keys, err := hotkeys.Read(path+name, "sim")
			if err != nil {
				t.Error(err)
			}
			for _, key := range keys {
				if view.Owner(key).Name != name {
					t.Errorf("%s lists %s", name, key)
				}
			}
			sum += len(keys)
		}
		if sum != 100 {
			t.Errorf("%d keys in all", sum)
		}
	})
}
