package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/owner"
)

func TestPreviousAndKeep(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var seen []string // results of Previous; the loads run one after the other
		mode := "value"
		cfg := plain(func(_ context.Context, f *Fill[string]) (string, error) {
			prev, ok := f.Previous()
			seen = append(seen, fmt.Sprintf("%s %v", prev, ok))
			switch mode {
			case "keep":
				return f.KeepPrevious()
			case "missing":
				return "", ErrNotFound
			}
			return fmt.Sprintf("v%d", len(seen)), nil
		})
		cfg.Freshness.StaleIfError, cfg.Freshness.ErrorTTL = time.Hour, -1
		c := open(t, cfg)
		mode = "keep"
		getErr(t, c, "k", owner.ErrNoPrevious)
		mode = "value"
		get(t, c, "k", "v2")
		time.Sleep(time.Minute)
		get(t, c, "k", "v3")
		time.Sleep(time.Minute)
		mode = "keep"
		get(t, c, "k", "v3")
		if a := read(t, c, "k", AnyAge); a.Value != "v3" || a.Age != 0 || a.Stale || a.Source != SourceOwned {
			t.Errorf("kept: %+v", a)
		}
		mode = "value"
		if err := c.Invalidate(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		get(t, c, "k", "v5")
		time.Sleep(2 * time.Hour) // past hard expiry
		mode = "missing"
		getErr(t, c, "k", ErrNotFound)
		time.Sleep(5 * time.Second)
		mode = "value"
		get(t, c, "k", "v7") // not-found does not count as a previous value
		want := "[ false  false v2 true v3 true  false  false  false]"
		if got := fmt.Sprint(seen); got != want {
			t.Errorf("previous:\n got %s\nwant %s", got, want)
		}
	})
}

func TestSetTTL(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := 0
		cfg := plain(func(_ context.Context, f *Fill[string]) (string, error) {
			n++
			switch f.Key {
			case "long":
				f.SetTTL(time.Hour)
			case "negative":
				f.SetTTL(-time.Hour)
			case "huge":
				f.SetTTL(1<<63 - 1)
			}
			return fmt.Sprint(n), nil
		})
		cfg.Freshness.Jitter = 0.9 // does not apply to SetTTL
		c := open(t, cfg)
		get(t, c, "long", "1")
		time.Sleep(time.Hour - 1)
		get(t, c, "long", "1")
		time.Sleep(time.Nanosecond)
		get(t, c, "long", "2")
		get(t, c, "negative", "3")
		time.Sleep(time.Nanosecond)
		get(t, c, "negative", "4")
		get(t, c, "huge", "5")
		time.Sleep(2 * time.Minute)
		get(t, c, "huge", "5")
	})
}

// A value that is not kept, because the loader says so or because its load took longer than the value may live, is
// given to the waiting callers on every member and to no later caller. This is not an error, and no error is
// remembered.
func TestValuesThatAreNotKept(t *testing.T) {
	for name, x := range map[string]struct {
		takes time.Duration
		say   func(f *Fill[simValue])
		none  bool
	}{
		"DoNotKeep":           {time.Second, (*Fill[simValue]).DoNotKeep, false},
		"DoNotKeep not found": {time.Second, (*Fill[simValue]).DoNotKeep, true},
		"SetTTL(0)":           {time.Second, func(f *Fill[simValue]) { f.SetTTL(0) }, false},
		"SetTTL(-1)":          {time.Second, func(f *Fill[simValue]) { f.SetTTL(-1) }, false},
		"SetTTL(1ns)":         {time.Second, func(f *Fill[simValue]) { f.SetTTL(1) }, false},
		"a slow origin":       {4 * time.Second, func(*Fill[simValue]) {}, false},
		"slow and not found":  {4 * time.Second, func(*Fill[simValue]) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newSim(t, 2)
				var loads atomic.Int64
				caches := s.start(newOrigin(), Config[simValue]{
					Freshness: Freshness{TTL: 3 * time.Second, NegativeTTL: time.Second, NearTTL: time.Second, ErrorTTL: time.Minute, Jitter: -1, RefreshAhead: -1},
					Origin:    Origin{Timeout: 10 * time.Second},
					Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
						n := loads.Add(1)
						x.say(f)
						if err := pause(ctx, x.takes); err != nil || x.none {
							return simValue{}, cmp.Or(err, ErrNotFound)
						}
						return simValue{Version: n}, nil
					},
				})
				defer s.stop(caches)
				key := keyOf(s.nodes["n0"].View(), "n1", 0)
				for round := range int64(3) {
					var wg sync.WaitGroup
					for i := range 20 {
						wg.Go(func() {
							a, err := caches[s.names[i%2]].Read(background, key, ReadOptions{MaxAge: AnyAge})
							if x.none && !errors.Is(err, ErrNotFound) || !x.none && (err != nil || a.Value.Version != round+1 || a.Age < x.takes) {
								t.Errorf("%+v, %v", a, err)
							}
						})
					}
					wg.Wait()
					if n := loads.Load(); n != round+1 {
						t.Fatalf("%d loads in %d rounds", n, round+1)
					}
				}
			})
		})
	}
}

// A value that is not kept replaces the copy that was there before.
func TestDoNotKeepReplaces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := 0
		cfg := plain(func(_ context.Context, f *Fill[string]) (string, error) {
			if n++; n > 1 {
				f.DoNotKeep()
			}
			return fmt.Sprint(n), nil
		})
		cfg.Freshness.StaleWhileRevalidate = time.Hour
		c := open(t, cfg)
		get(t, c, "k", "1")
		time.Sleep(2 * time.Minute)
		get(t, c, "k", "1")
		synctest.Wait() // it has been refreshed
		get(t, c, "k", "3")
	})
}

// A deadline that is centuries away works like any other.
func TestEndlessDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(slow(time.Second).load))
		cfg.Origin = Origin{Concurrency: 1, MinConcurrency: 1}
		c := open(t, cfg)
		get(t, c, "warm", "warm#1") // the governor learns how long a load takes
		ctx, cancel := context.WithTimeout(background, math.MaxInt64)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				if _, err := c.Get(ctx, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := c.Warm(ctx, []string{"w"}); err != nil {
			t.Error(err)
		}
		if got, err := c.GetMany(ctx, []string{"a", "b"}); err != nil || len(got) != 2 {
			t.Error(got, err)
		}
	})
}

func TestSteps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(func(_ context.Context, f *Fill[string]) (string, error) {
			for i := range 3 {
				done := f.Step("postgres")
				time.Sleep(time.Duration(i) * time.Second)
				done()
			}
			f.Step("\xff\xfe")()
			f.Step(f.Key)() // many names
			return "v", nil
		})
		c := open(t, cfg)
		for i := range 100 {
			get(t, c, fmt.Sprint(i), "v")
		}
		steps := c.Stats().Steps
		if s := steps["postgres"]; s != (Step{Calls: 300, Seconds: 300, Max: 2}) {
			t.Errorf("postgres %+v", s)
		}
		if s := steps["?"]; s.Calls != 100 {
			t.Errorf("a name that is not UTF-8 was counted %d times: %v", s.Calls, steps)
		}
		if s := steps[counters.OtherStep]; s.Calls != 38 || len(steps) != counters.MaxSteps+1 {
			t.Errorf("other %+v, %d names", s, len(steps))
		}
	})
}

func TestLoaderAsksCache(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var c *Cache[string]
		var loads atomic.Int64
		cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
			loads.Add(1)
			if next, rest, ok := strings.Cut(key, ">"); ok {
				v, err := c.Get(ctx, rest)
				return next + v, err
			}
			switch key {
			case "self":
				return c.Get(ctx, "self")
			case "ping":
				return c.Get(ctx, "pong")
			case "pong":
				return c.Get(ctx, "ping")
			}
			return key, nil
		}))
		c = open(t, cfg)
		began := time.Now()
		get(t, c, "a>b>c", "abc")
		if loads.Load() != 3 {
			t.Errorf("%d loads", loads.Load())
		}
		getErr(t, c, "self", ErrCycle)
		getErr(t, c, "ping", ErrCycle)
		getErr(t, c, strings.Repeat("x>", codec.MaxChain)+"y", ErrCycle) // too deep
		get(t, c, strings.Repeat("z>", codec.MaxChain-1)+"y", strings.Repeat("z", codec.MaxChain-1)+"y")
		if time.Since(began) != 0 {
			t.Errorf("a cycle was found only after %v", time.Since(began))
		}
	})
}

// A loader may read the same key from another cache, even if neither cache has a name.
func TestLoaderAsksOtherCache(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inner := open(t, plain(ByKey(func(_ context.Context, key string) (string, error) {
			if key == "none" {
				return "", ErrNotFound
			}
			return "inner " + key, nil
		})))
		outer := open(t, plain(ByKey(func(ctx context.Context, key string) (string, error) {
			v, err := inner.Get(ctx, key)
			return "outer " + v, err
		})))
		get(t, outer, "k", "outer inner k")
		getErr(t, outer, "none", ErrNotFound)
	})
}

// Two fills that wait for each other, each started by its own caller, end with the timeout.
func TestCrossedFillsEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var c *Cache[string]
		cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
			time.Sleep(time.Millisecond)
			return c.Get(ctx, map[string]string{"a": "b", "b": "a"}[key])
		}))
		cfg.Origin.Timeout = time.Second
		c = open(t, cfg)
		done := make(chan error)
		for _, key := range []string{"a", "b"} {
			go func() { _, err := c.Get(t.Context(), key); done <- err }()
		}
		began := time.Now()
		for range 2 {
			if err := <-done; err == nil {
				t.Error("no error")
			}
		}
		if time.Since(began) > time.Second {
			t.Errorf("took %v", time.Since(began))
		}
	})
}

// brittle is a codec that fails and panics on demand.
type brittle struct{ encode, decode func() error }

func (b brittle) Name() string { return "brittle" }

func (b brittle) Append(dst []byte, v string) ([]byte, error) {
	if b.encode != nil {
		return dst, b.encode()
	}
	return append(dst, v...), nil
}

func (b brittle) Decode(p []byte) (string, error) {
	if b.decode != nil {
		return "", b.decode()
	}
	return string(p), nil
}

var _ codec.Codec[string] = brittle{}

func TestCodecFails(t *testing.T) {
	broken := errors.New("broken")
	fail := func() error { return broken }
	blow := func() error { panic(broken) }
	for name, x := range map[string]struct {
		codec brittle
	}{
		"encode error": {brittle{encode: fail}}, "encode panic": {brittle{encode: blow}},
		"decode error": {brittle{decode: fail}}, "decode panic": {brittle{decode: blow}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := &counter{}
				cfg := plain(ByKey(o.load))
				cfg.Codec = x.codec
				c := open(t, cfg)
				for range 3 { // the caller of the fill, and then callers that get its remembered error
					_, err := c.Get(t.Context(), "k")
					var fe *FillError
					if !errors.As(err, &fe) || !errors.Is(err, broken) {
						t.Fatalf("got %v", err)
					}
				}
				o.want(t, 1)
				if s := c.Stats(); s.Flights != 0 || s.Governor.InUse != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestValueTooLarge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		size := 100
		cfg := plain(ByKey(func(context.Context, string) (string, error) { return strings.Repeat("v", size), nil }))
		cfg.ValueLimit, cfg.Codec = 100, brittle{}
		cfg.Freshness.ErrorTTL = -1
		c := open(t, cfg)
		get(t, c, "fits", strings.Repeat("v", 100))
		size = 101
		getErr(t, c, "k", ErrValueTooLarge)
		size = 100
		get(t, c, "k", strings.Repeat("v", 100))
	})
}
