package tier

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetry(t *testing.T) {
	for name, x := range map[string]struct {
		loads   string // what the loads of a fill do: r(etryable error), e(rror), o(k), p(anic), g(oexit), h(ang); the last one repeats
		want    string // in the error; empty: a value
		n       int64  // loads
		retries int64
		within  time.Duration
	}{
		"at the second": {"ro", "", 2, 1, 60 * time.Millisecond},
		"at the third":  {"rro", "", 3, 2, 160 * time.Millisecond},
		"no more":       {"r", errDown.Error(), 3, 2, 160 * time.Millisecond},
		"not marked":    {"e", errDown.Error(), 1, 0, 0},
		"another error": {"re", errDown.Error(), 2, 1, 60 * time.Millisecond},
		"a panic":       {"rp", "boom", 2, 1, 60 * time.Millisecond},
		"goexit":        {"rg", ErrGoexit.Error(), 2, 1, 60 * time.Millisecond},
		"the time ends": {"rh", ErrTimeout.Error(), 2, 1, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := 0
				cfg := plain(func(ctx context.Context, _ *Fill[string]) (string, error) {
					act := x.loads[min(n, len(x.loads)-1)]
					n++
					switch act {
					case 'r':
						return "", Retryable(errDown)
					case 'e':
						return "", errDown
					case 'p':
						panic("boom")
					case 'g':
						runtime.Goexit()
					case 'h':
						<-ctx.Done()
						return "", ctx.Err()
					}
					return "v", nil
				})
				cfg.Origin.Timeout = time.Second
				c := open(t, cfg)
				began := time.Now()
				v, err := c.Get(t.Context(), "k")
				took := time.Since(began)
				synctest.Wait()
				s := c.Stats()
				if x.want == "" && (err != nil || v != "v") || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
					t.Errorf("got %q, %v", v, err)
				}
				if s.Loads != x.n || s.Ledger.Retries != x.retries || took > x.within {
					t.Errorf("%d loads, %d retries, %v", s.Loads, s.Ledger.Retries, took)
				}
				if s.Governor.InUse != 0 || s.Running != 0 || s.Flights != 0 || s.Ledger.OriginBusy < 0 {
					t.Errorf("left over: %+v", s)
				}
				var results int64
				for _, r := range s.ResultsBy {
					results += r
				}
				if name != "the time ends" && results != x.n { // there, timeout and overran
					t.Errorf("results %v of %d loads", s.ResultsBy, x.n)
				}
			})
		})
	}
}

// A failing origin sees at most a fifth more loads because of retries, not three times as many.
func TestRetryBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(func(context.Context, string) (string, error) { return "", Retryable(errDown) }))
		cfg.Origin.Breaker.Failures = -1
		c := open(t, cfg)
		for i := range 1000 {
			getErr(t, c, fmt.Sprint(i), errDown)
		}
		s := c.Stats()
		t.Logf("1000 fills, %d loads, %d retries, %d denied", s.Loads, s.Ledger.Retries, s.Ledger.RetriesDenied)
		if s.Ledger.Retries < 195 || s.Ledger.Retries > 210 || s.Loads != 1000+s.Ledger.Retries {
			t.Errorf("%d loads, %d retries", s.Loads, s.Ledger.Retries)
		}
		cfg.Origin.Retry.Budget = -1
		c = open(t, cfg)
		getErr(t, c, "k", errDown)
		if s := c.Stats(); s.Loads != 1 {
			t.Errorf("retries are off, %d loads", s.Loads)
		}
	})
}

// An invalidation between two attempts is older than the second attempt, so the second attempt's value is stored. An
// invalidation during the second attempt is not older, so that value is not stored.
func TestRetryAndFences(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var n atomic.Int64
		cfg := plain(ByKey(func(context.Context, string) (string, error) {
			i := n.Add(1)
			if i == 1 {
				return "", Retryable(errDown)
			}
			time.Sleep(100 * time.Millisecond)
			return fmt.Sprint(i), nil
		}))
		cfg.Origin.Retry.Backoff = time.Second
		for _, during := range []bool{false, true} {
			n.Store(0)
			c := open(t, cfg)
			var got string
			var wg sync.WaitGroup
			wg.Go(func() { got, _ = c.Get(t.Context(), "k") })
			synctest.Wait()
			for during && n.Load() < 2 {
				time.Sleep(time.Millisecond)
			}
			if err := c.Invalidate(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			want := map[bool]string{false: "2", true: "3"}[during]
			get(t, c, "k", want)
			if got != "2" {
				t.Errorf("during the load %v: the waiter got %q", during, got)
			}
		}
	})
}

// Close ends a fill that waits for its next attempt.
func TestRetryAndClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(func(context.Context, string) (string, error) { return "", Retryable(errDown) }))
		cfg.Origin.Retry.Backoff = time.Hour
		cfg.Origin.Timeout = time.Hour
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var got error
		var wg sync.WaitGroup
		wg.Go(func() { _, got = c.Get(t.Context(), "k") })
		synctest.Wait()
		began := time.Now()
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if !errors.Is(got, ErrClosed) || time.Since(began) != 0 {
			t.Errorf("%v after %v", got, time.Since(began))
		}
	})
}

func TestSharedOrigin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared, err := NewSharedOrigin("db", Origin{Concurrency: 3, QueueInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		o := slow(time.Second)
		cfg := plain(ByKey(o.load))
		cfg.Origin, cfg.SharedOrigin = Origin{}, shared
		a, b := open(t, cfg), open(t, cfg)
		var wg sync.WaitGroup
		began := time.Now()
		for i := range 6 {
			wg.Go(func() { _, _ = a.Get(t.Context(), fmt.Sprint(i)) })
			wg.Go(func() { _, _ = b.Get(t.Context(), fmt.Sprint(i)) })
		}
		synctest.Wait()
		if g := shared.Stats(); g.InUse != 3 || g.Waiting != 9 {
			t.Errorf("%+v", g)
		}
		wg.Wait()
		if took := time.Since(began); took != 4*time.Second {
			t.Errorf("12 loads of a second, 3 at once: %v", took)
		}
		g := shared.Stats()
		la, lb := a.Stats().Ledger, b.Stats().Ledger
		if g.Peak != 3 || g.OriginSeconds != 12 || la.OriginSeconds != 6 || lb.OriginSeconds != 6 {
			t.Errorf("%+v, %v, %v", g, la.OriginSeconds, lb.OriginSeconds)
		}
	})
	if _, err := NewSharedOrigin("db", Origin{Concurrency: -1}); err == nil || !strings.Contains(err.Error(), `"db"`) || !strings.Contains(err.Error(), "Concurrency") {
		t.Errorf("got %v", err)
	}
	cfg := plain(ByKey((&counter{}).load))
	shared, err := NewSharedOrigin("db", Origin{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.SharedOrigin = shared
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "SharedOrigin") {
		t.Errorf("both: %v", err)
	}
}

// A load that hangs keeps its permit even when its cache is closed and another one is opened.
func TestSharedOriginOutlivesCaches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared, err := NewSharedOrigin("db", Origin{Concurrency: 1, Timeout: time.Second, QueueInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		free := make(chan struct{})
		cfg := plain(ByKey(func(_ context.Context, key string) (string, error) {
			if key == "hang" {
				<-free
			}
			return "v", nil
		}))
		cfg.Origin, cfg.SharedOrigin = Origin{}, shared
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Get(t.Context(), "hang")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closing: %v", err)
		}
		again := open(t, cfg)
		getErr(t, again, "k", ErrOverloaded)
		close(free)
		synctest.Wait()
		get(t, again, "k", "v")
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestSoftTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(10 * time.Millisecond)
		cfg := plain(ByKey(o.load))
		cfg.Freshness.StaleIfError, cfg.Freshness.SoftTimeout = time.Hour, 50*time.Millisecond
		c := open(t, cfg)
		get(t, c, "k", "k#1")
		timed := func(maxAge time.Duration) (Answer[string], time.Duration) {
			began := time.Now()
			a, err := c.Read(t.Context(), "k", ReadOptions{MaxAge: maxAge})
			if err != nil {
				t.Error(err)
			}
			return a, time.Since(began)
		}
		time.Sleep(2 * time.Minute)
		if a, took := timed(AnyAge); a.Value != "k#2" || took != 10*time.Millisecond {
			t.Errorf("a quick refill: %+v after %v", a, took)
		}
		time.Sleep(2 * time.Minute)
		o.takes.Store(int64(time.Second))
		if a, took := timed(AnyAge); a.Value != "k#2" || !a.Stale || took != 50*time.Millisecond || a.Source != SourceOwned {
			t.Errorf("a slow refill: %+v after %v", a, took)
		}
		if a, took := timed(10 * time.Second); a.Value != "k#3" || took != 950*time.Millisecond {
			t.Errorf("who wants no stale copy: %+v after %v", a, took)
		}
		o.want(t, 3)
		get(t, c, "k", "k#3") // the fill went on
		time.Sleep(2 * time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() { // the copy is invalidated while its reader waits
			if a, took := timed(AnyAge); a.Value != "k#4" || took != time.Second {
				t.Errorf("after an invalidation: %+v after %v", a, took)
			}
		})
		time.Sleep(10 * time.Millisecond)
		if err := c.Invalidate(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if s := c.Stats(); s.Ledger.SoftTimeouts != 1 {
			t.Errorf("%+v", s.Ledger)
		}
	})
	if got := (Freshness{TTL: time.Minute, StaleIfError: time.Hour, SoftTimeout: time.Second}).String(); !strings.Contains(got, "or takes longer than 1s") {
		t.Error(got)
	}
}
