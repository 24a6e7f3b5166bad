package tier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/tier/internal/owner"
)

// Whatever the pattern of the loads, no more than the cap run, including loads that hang, and no permit is lost.
func TestCapIsNeverExceeded(t *testing.T) { capIsNeverExceeded(t, 3) }

func TestCapIsNeverExceededLong(t *testing.T) { capIsNeverExceeded(t, 30) }

func capIsNeverExceeded(t *testing.T, rounds int) {
	t.Helper()
	for round := range rounds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Logf("seed %d", seed)
			bubble(t, func(t *testing.T) { capUnderLoad(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func capUnderLoad(t *testing.T, rnd *rand.Rand) {
	limit := 1 + rnd.IntN(6)
	var running, most atomic.Int64
	delays := make([]time.Duration, 64)
	for i := range delays { // some exceed the timeout, and the loader ignores its context
		delays[i] = time.Duration(rnd.IntN(1500)) * time.Millisecond
	}
	cfg := plain(func(ctx context.Context, f *Fill[string]) (string, error) {
		n := running.Add(1)
		for {
			old := most.Load()
			if n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		defer running.Add(-1)
		time.Sleep(delays[int(f.Key[0])%len(delays)])
		if f.Key[0]%7 == 0 {
			panic("boom")
		}
		return "v", nil
	})
	cfg.Freshness = Freshness{TTL: time.Second, StaleWhileRevalidate: time.Second, ErrorTTL: time.Millisecond, NearTTL: -1}
	cfg.Origin = Origin{Concurrency: limit, Timeout: time.Second, Queue: 20}
	c := open(t, cfg)
	var wg sync.WaitGroup
	for range 40 {
		local := rand.New(rand.NewPCG(rnd.Uint64(), 2))
		wg.Go(func() {
			for range 30 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(local.IntN(3000))*time.Millisecond)
				_, _ = c.Read(ctx, string(rune('A'+local.IntN(40))), ReadOptions{MaxAge: time.Duration(local.IntN(3)-1) * 500 * time.Millisecond})
				cancel()
				time.Sleep(time.Duration(local.IntN(300)) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()
	g := c.Stats().Governor
	if int(most.Load()) > limit || g.Peak > limit || g.InUse != 0 || g.Waiting != 0 {
		t.Errorf("limit %d: most at once %d, governor %+v", limit, most.Load(), g)
	}
	if int(most.Load()) != limit {
		t.Errorf("only %d of %d permits were ever in use: the test proves nothing", most.Load(), limit)
	}
	if live, run := c.own.Flights.Size(); live != 0 || run != 0 {
		t.Errorf("%d flights, %d loads left", live, run)
	}
}

// A read without a copy that joins a waiting refresh makes the refresh as urgent as itself.
func TestJoinPromotes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex // guards order
		var order []string
		cfg := plain(ByKey(func(_ context.Context, key string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, key)
			time.Sleep(time.Second)
			return key, nil
		}))
		cfg.Freshness = Freshness{TTL: time.Minute, StaleWhileRevalidate: time.Hour, Jitter: -1, RefreshAhead: -1}
		cfg.Origin.Concurrency, cfg.Origin.QueueInterval = 1, -1
		c := open(t, cfg)
		get(t, c, "a", "a")
		get(t, c, "b", "b")
		time.Sleep(2 * time.Minute)
		go func() { _, _ = c.Get(t.Context(), "hold") }()
		synctest.Wait()
		get(t, c, "a", "a") // stale, and a refresh waits
		get(t, c, "b", "b")
		synctest.Wait()
		if err := c.Invalidate(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		get(t, c, "b", "b") // has no copy any more
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"a", "b", "hold", "b", "a"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
	})
}

func TestQueueFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Second)
		cfg := plain(ByKey(o.load))
		cfg.Origin = Origin{Concurrency: 1, Queue: 2, Timeout: 10 * time.Second, QueueInterval: -1}
		c := open(t, cfg)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { _, _ = c.Get(t.Context(), fmt.Sprint(i)) })
			synctest.Wait()
		}
		began := time.Now()
		_, err := c.Get(t.Context(), "x")
		var over *OverloadedError
		if !errors.Is(err, ErrOverloaded) || !errors.As(err, &over) || over.RetryAfter <= 0 {
			t.Errorf("got %v", err)
		}
		if time.Since(began) != 0 {
			t.Errorf("the refusal took %v", time.Since(began))
		}
		wg.Wait()
		o.want(t, 3)
		if s := c.Stats(); s.Shed != 1 {
			t.Errorf("shed %d", s.Shed)
		}
		get(t, c, "x", "x#4") // a refusal is not remembered
	})
}

// A flight that gets no permit within Origin.Timeout ends, and gives back its place in the queue.
func TestPermitTooLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		free := make(chan struct{})
		cfg := plain(ByKey(func(_ context.Context, key string) (string, error) {
			if key == "hog" {
				<-free
			}
			return "v", nil
		}))
		cfg.Origin = Origin{Concurrency: 1, Timeout: time.Second, QueueInterval: -1}
		c := open(t, cfg)
		defer close(free)
		go func() { _, _ = c.Get(t.Context(), "hog") }()
		synctest.Wait()
		began := time.Now()
		_, errs := crowd(t, c, "x", 5)
		for _, err := range errs {
			if !errors.Is(err, ErrOverloaded) {
				t.Errorf("got %v", err)
			}
		}
		if g := c.Stats().Governor; time.Since(began) != time.Second || g.Waiting != 0 || g.InUse != 1 {
			t.Errorf("after %v: %+v", time.Since(began), g)
		}
	})
}

// If no permit is available, a stale copy is served when the contract allows it.
func TestNoPermitServesStale(t *testing.T) {
	bubble(t, func(t *testing.T) {
		free := make(chan struct{})
		cfg := plain(ByKey(func(_ context.Context, key string) (string, error) {
			if key == "hog" {
				<-free
			}
			return "v", nil
		}))
		cfg.Freshness = Freshness{TTL: time.Minute, StaleIfError: time.Hour, Jitter: -1}
		cfg.Origin = Origin{Concurrency: 1, Timeout: time.Second, QueueInterval: -1}
		c := open(t, cfg)
		defer close(free)
		get(t, c, "k", "v")
		time.Sleep(2 * time.Minute)
		go func() { _, _ = c.Get(t.Context(), "hog") }()
		synctest.Wait()
		a, err := c.Read(t.Context(), "k", ReadOptions{MaxAge: AnyAge})
		if err != nil || !a.Stale || a.Source != SourceOwned || a.Age < 2*time.Minute {
			t.Errorf("%+v, %v", a, err)
		}
		if _, err := c.Read(t.Context(), "k", ReadOptions{MaxAge: time.Minute}); !errors.Is(err, ErrOverloaded) {
			t.Errorf("a read that accepts a minute got %v", err)
		}
	})
}

// A flight that waits for its key's earlier loads to return does not keep a permit from other keys.
func TestBusyKeyHoldsNoPermit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hang := make(chan struct{})
		cfg := plain(func(ctx context.Context, f *Fill[string]) (string, error) {
			if f.Key == "hung" {
				<-hang
			}
			return "v", nil
		})
		cfg.Origin = Origin{Concurrency: 3, MinConcurrency: 3, Timeout: time.Second, Breaker: Breaker{Failures: -1}, QueueInterval: -1}
		cfg.Freshness.ErrorTTL = -1
		c := open(t, cfg)
		defer close(hang)
		for range owner.MaxRunning {
			getErr(t, c, "hung", ErrTimeout)
		}
		go func() { _, _ = c.Get(background, "hung") }()
		synctest.Wait()
		began := time.Now()
		get(t, c, "good", "v")
		if s := c.Stats(); time.Since(began) != 0 || s.Governor.InUse != owner.MaxRunning {
			t.Errorf("after %v, %d permits in use", time.Since(began), s.Governor.InUse)
		}
	})
}
