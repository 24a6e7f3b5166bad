package tier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
)

// counter is an origin that counts its loads and takes a while for each.
type counter struct {
	n     atomic.Int64
	takes atomic.Int64          // ns
	fail  atomic.Pointer[error] // what a load returns, if set
}

func (o *counter) setFail(err error) {
	if err == nil {
		o.fail.Store(nil)
		return
	}
	o.fail.Store(&err)
}

// load returns the key and the number of the load, as "key#1".
func (o *counter) load(ctx context.Context, key string) (string, error) {
	n := o.n.Add(1)
	if takes := time.Duration(o.takes.Load()); takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	if err := o.fail.Load(); err != nil {
		return "", *err
	}
	return fmt.Sprintf("%s#%d", key, n), nil
}

// slow is an origin that takes d for each load.
func slow(d time.Duration) *counter {
	o := &counter{}
	o.takes.Store(int64(d))
	return o
}

func (o *counter) want(t *testing.T, n int64) {
	t.Helper()
	if got := o.n.Load(); got != n {
		t.Fatalf("%d loads, want %d", got, n)
	}
}

// plain is a configuration without randomness: a TTL of one minute and no near tier.
func plain(load Loader[string]) Config[string] {
	return Config[string]{
		Loader:    load,
		Freshness: Freshness{TTL: time.Minute, Jitter: -1, RefreshAhead: -1},
		Origin:    Origin{Timeout: 30 * time.Second},
		NearBytes: -1,
	}
}

// open starts a cache without a cluster and closes it when the test ends.
func open[V any](t testing.TB, cfg Config[V]) *Cache[V] {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// get is a Get that must succeed with want.
func get(t *testing.T, c *Cache[string], key, want string) {
	t.Helper()
	got, err := c.Get(t.Context(), key)
	if err != nil || got != want {
		t.Fatalf("Get(%.40q) = %q, %v; want %q", key, got, err, want)
	}
}

// getErr is a Get that must fail with want.
func getErr(t *testing.T, c *Cache[string], key string, want error) {
	t.Helper()
	if got, err := c.Get(t.Context(), key); !errors.Is(err, want) {
		t.Fatalf("Get(%.40q) = %q, %v; want error %v", key, got, err, want)
	}
}

func TestKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := &counter{}
		for _, near := range []int64{-1, 1 << 20} {
			cfg := plain(ByKey(o.load))
			cfg.NearBytes = near
			c := open(t, cfg)
			for _, key := range []string{"a", strings.Repeat("k", codec.MaxKey), "a\x00b", "\x00", "\xff\xfe", "héé", " "} {
				o.n.Store(0)
				for range 3 {
					get(t, c, key, key+"#1")
					synctest.Wait()
				}
			}
			o.n.Store(0)
			getErr(t, c, "", ErrEmptyKey)
			getErr(t, c, strings.Repeat("k", codec.MaxKey+1), ErrKeyTooLarge)
			if _, err := c.Read(t.Context(), "", ReadOptions{}); !errors.Is(err, ErrEmptyKey) {
				t.Fatalf("Read of the empty key: %v", err)
			}
			if err := c.Invalidate(t.Context(), "a", ""); !errors.Is(err, ErrEmptyKey) {
				t.Fatalf("Invalidate of the empty key: %v", err)
			}
			if err := c.Invalidate(t.Context(), strings.Repeat("k", codec.MaxKey+1)); !errors.Is(err, ErrKeyTooLarge) {
				t.Fatalf("Invalidate of a key too large: %v", err)
			}
			get(t, c, "a", "a#1") // the rejected call did not affect the other key
		}
	})
}

// A context that has ended returns its error, even if the near tier has the value.
func TestContextPast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := &counter{}
		cfg := plain(ByKey(o.load))
		cfg.NearBytes = 1 << 20
		c := open(t, cfg)
		past, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		check := func() {
			t.Helper()
			if _, err := c.Get(past, "k"); !errors.Is(err, context.Canceled) {
				t.Fatalf("cancelled: %v", err)
			}
			if _, err := c.Get(late, "k"); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("deadline: %v", err)
			}
			if _, err := c.Read(past, "k", ReadOptions{MaxAge: AnyAge}); !errors.Is(err, context.Canceled) {
				t.Fatalf("Read, cancelled: %v", err)
			}
		}
		check()
		o.want(t, 0)
		get(t, c, "k", "k#1")
		synctest.Wait()
		if a, err := c.Read(t.Context(), "k", ReadOptions{MaxAge: AnyAge}); err != nil || a.Source != SourceNear {
			t.Fatalf("not in the near tier: %+v, %v", a, err)
		}
		check()
		if err := c.Invalidate(past, "k"); !errors.Is(err, context.Canceled) {
			t.Fatalf("Invalidate, cancelled: %v", err)
		}
	})
}

func TestNearOffByConfig(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for name, off := range map[string]func(*Config[string]){
			"NearBytes": func(c *Config[string]) { c.NearBytes = -1 },
			"NearTTL":   func(c *Config[string]) { c.NearBytes, c.Freshness.NearTTL = 1<<20, -1 },
		} {
			o := &counter{}
			cfg := plain(ByKey(o.load))
			off(&cfg)
			c := open(t, cfg)
			for range 3 {
				get(t, c, "k", "k#1")
				synctest.Wait()
			}
			if s := c.Stats(); s.Near != 0 || s.Owned != 2 || s.Fill != 1 || s.NearBytes != 0 {
				t.Errorf("%s: near %d, owned %d, fill %d, bytes %d; want 0, 2, 1, 0", name, s.Near, s.Owned, s.Fill, s.NearBytes)
			}
		}
	})
}

// Every caller gets its own clone, made once: of a fill, of a near copy and of an owned one. The cache never keeps a
// clone.
func TestClone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(func(context.Context, string) (string, error) { return "v", nil }))
		cfg.NearBytes = 1 << 20
		cfg.Clone = func(v string) string { return v + "'" }
		c := open(t, cfg)
		sources := make(map[Source]bool)
		for i := range 6 {
			a, err := c.Read(t.Context(), "k", ReadOptions{MaxAge: time.Duration(-(i % 2))})
			if err != nil || a.Value != "v'" {
				t.Fatalf("read %d: %+v, %v", i, a, err)
			}
			sources[a.Source] = true
			get(t, c, "k", "v'")
			synctest.Wait()
		}
		if !sources[SourceFill] || !sources[SourceNear] || !sources[SourceOwned] {
			t.Errorf("only %v were read", sources)
		}
	})
}

// Every caller that waits when the cache closes gets ErrClosed, and so does every later caller.
func TestCloseWithWaiters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Hour)
		cfg := plain(ByKey(o.load))
		cfg.Origin = Origin{Concurrency: 2, Timeout: time.Hour}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		errs := make([]error, 40)
		for i := range errs { // two keys load, two wait for a permit
			wg.Go(func() { _, errs[i] = c.Get(t.Context(), fmt.Sprint(i%4)) })
		}
		synctest.Wait()
		if g := c.Stats().Governor; g.InUse != 2 || g.Waiting != 2 {
			t.Fatalf("governor %+v", g)
		}
		began := time.Now()
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("closing took %v", took)
		}
		for i, err := range errs {
			if err != ErrClosed {
				t.Errorf("caller %d got %v", i, err)
			}
		}
		getErr(t, c, "x", ErrClosed)
		if err := c.Invalidate(t.Context(), "x"); err != ErrClosed {
			t.Errorf("Invalidate after Close: %v", err)
		}
		if s := c.Stats(); s.Flights != 0 || s.Running != 0 || s.Governor.InUse != 0 {
			t.Errorf("after Close: %+v", s)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

// Close reports how many loads hang, waits as long as its context allows, and can be called again.
func TestCloseWithHungLoads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		free := make(chan struct{})
		cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
			if key == "quick" {
				return "v", nil
			}
			<-free // ignores ctx
			return "late", nil
		}))
		cfg.NearBytes = 1 << 20
		cfg.Freshness.NearTTL = time.Minute
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		get(t, c, "quick", "v")
		synctest.Wait()
		get(t, c, "quick", "v")
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b", "a"} {
			wg.Go(func() {
				if _, err := c.Get(context.Background(), key); err != ErrClosed {
					t.Errorf("waiter got %v", err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		closed := make(chan error)
		go func() { closed <- c.Close(ctx) }()
		wg.Wait() // although the loads hang
		synctest.Wait()
		getErr(t, c, "quick", ErrClosed) // even for a near copy, while Close still waits
		err = <-closed
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 loads") {
			t.Errorf("Close = %v", err)
		}
		getErr(t, c, "quick", ErrClosed)
		close(free)
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("Close after the loads have returned: %v", err)
		}
	})
}

// Calls of every kind race with Close. None hangs, none panics.
func TestCloseRace(t *testing.T) {
	for round := range 30 {
		c, err := New(Config[string]{
			Loader:    ByKey(func(context.Context, string) (string, error) { return "v", nil }),
			Freshness: Freshness{TTL: time.Minute}, NearBytes: 1 << 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for n := 0; ; n++ {
					var err error
					key := fmt.Sprint(n % 17)
					switch i % 4 {
					case 0, 1:
						_, err = c.Get(context.Background(), key)
					case 2:
						_, err = c.Read(context.Background(), key, ReadOptions{})
					case 3:
						err = c.Invalidate(context.Background(), key)
						_ = c.Stats()
					}
					if err != nil {
						if err != ErrClosed {
							t.Errorf("round %d: %v", round, err)
						}
						return
					}
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				if err := c.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
