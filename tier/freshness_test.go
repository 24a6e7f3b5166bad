package tier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var errDown = errors.New("origin is down")

// read is a Read that must succeed.
func read(t *testing.T, c *Cache[string], key string, maxAge time.Duration) Answer[string] {
	t.Helper()
	a, err := c.Read(t.Context(), key, ReadOptions{MaxAge: maxAge})
	if err != nil {
		t.Fatalf("Read(%q, %v): %v", key, maxAge, err)
	}
	return a
}

func TestNegativeCaching(t *testing.T) {
	for _, x := range []struct {
		ttl   time.Duration // NegativeTTL
		lasts time.Duration
	}{{0, 5 * time.Second}, {2 * time.Second, 2 * time.Second}, {-1, 0}} {
		bubble(t, func(t *testing.T) {
			o := &counter{}
			o.setFail(fmt.Errorf("no row: %w", ErrNotFound))
			cfg := plain(ByKey(o.load))
			cfg.NearBytes = 1 << 20
			cfg.Freshness.NegativeTTL = x.ttl
			cfg.Freshness.StaleIfError = time.Hour // does not apply to values that do not exist
			c := open(t, cfg)
			getErr(t, c, "k", ErrNotFound)
			if x.lasts > 0 {
				time.Sleep(x.lasts - 1)
				getErr(t, c, "k", ErrNotFound)
				a, err := c.Read(t.Context(), "k", ReadOptions{MaxAge: AnyAge})
				if !errors.Is(err, ErrNotFound) || a.Age != x.lasts-1 || a.Stale || a.Value != "" {
					t.Errorf("%+v, %v", a, err)
				}
				time.Sleep(time.Nanosecond)
			}
			o.want(t, 1)
			o.setFail(nil)
			get(t, c, "k", "k#2")
		})
	}
}

// An error is remembered for ErrorTTL, so that calls do not each ask a broken origin.
func TestErrorTTL(t *testing.T) {
	for _, x := range []struct {
		ttl   time.Duration // ErrorTTL
		loads int64         // in five seconds, with a read every 100 ms
	}{{0, 5}, {2500 * time.Millisecond, 2}, {-1, 50}} {
		bubble(t, func(t *testing.T) {
			o := &counter{}
			o.setFail(errDown)
			cfg := plain(ByKey(o.load))
			cfg.Freshness.ErrorTTL = x.ttl
			cfg.Origin.Breaker.Failures = -1
			c := open(t, cfg)
			for range 50 {
				getErr(t, c, "k", errDown)
				time.Sleep(100 * time.Millisecond)
			}
			o.want(t, x.loads)
			o.setFail(nil)
			get(t, c, "k", fmt.Sprintf("k#%d", x.loads+1))
		})
	}
}

// Past soft expiry no caller waits, and exactly one refresh runs.
func TestStaleWhileRevalidate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := &counter{}
		cfg := plain(ByKey(o.load))
		cfg.Freshness.StaleWhileRevalidate = time.Hour
		c := open(t, cfg)
		get(t, c, "k", "k#1")
		time.Sleep(time.Minute)
		o.takes.Store(int64(10 * time.Second))
		for range 3 { // while the refresh runs
			began := time.Now()
			values, errs := crowd(t, c, "k", 100)
			for i := range values {
				if values[i] != "k#1" || errs[i] != nil {
					t.Fatalf("caller %d: %q, %v", i, values[i], errs[i])
				}
			}
			if time.Since(began) != 0 {
				t.Fatalf("callers waited %v", time.Since(began))
			}
			if a := read(t, c, "k", AnyAge); !a.Stale || a.Source != SourceOwned {
				t.Fatalf("%+v", a)
			}
			time.Sleep(3 * time.Second)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		o.want(t, 2)
		if a := read(t, c, "k", AnyAge); a.Value != "k#2" || a.Stale || a.Age != 10*time.Second {
			t.Fatalf("%+v", a)
		}
		o.want(t, 2)
		if s := c.Stats(); s.Stale != 303 {
			t.Errorf("stale %d", s.Stale)
		}
		time.Sleep(time.Hour + 50*time.Second) // past hard expiry callers wait
		if a := read(t, c, "k", AnyAge); a.Value != "k#3" || a.Source != SourceFill || a.Age != 10*time.Second {
			t.Fatalf("%+v", a)
		}
	})
}

// While the origin fails, the copy is served and attempts are ErrorTTL/2 to 3/2 ErrorTTL apart. When the origin is
// back, the copy is replaced.
func TestStaleIfError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := &counter{}
		cfg := plain(ByKey(o.load))
		cfg.Freshness.StaleIfError = time.Hour
		cfg.Freshness.ErrorTTL = 4 * time.Second
		c := open(t, cfg)
		get(t, c, "k", "k#1")
		o.setFail(errDown)
		time.Sleep(time.Minute)
		var last time.Time
		loads := o.n.Load()
		for range 1000 {
			get(t, c, "k", "k#1")
			if n := o.n.Load(); n != loads {
				if gap := time.Since(last); n != loads+1 || gap < 2*time.Second || !last.IsZero() && gap > 6100*time.Millisecond {
					t.Fatalf("%d attempts after %v", n-loads, gap)
				}
				last, loads = time.Now(), n
			}
			time.Sleep(100 * time.Millisecond)
		}
		if loads < 17 || loads > 51 {
			t.Errorf("%d attempts in 100 s", loads)
		}
		if s := c.Stats(); s.Rescued == 0 || s.Errors != 0 {
			t.Errorf("rescued %d, errors %d", s.Rescued, s.Errors)
		}
		o.setFail(nil)
		time.Sleep(6 * time.Second)
		get(t, c, "k", fmt.Sprintf("k#%d", loads+1))
		o.setFail(errDown)
		time.Sleep(time.Hour + time.Minute) // hard expiry
		getErr(t, c, "k", errDown)
	})
}

// Whatever the contract and the times of the reads, no value is past hard expiry, no age is understated, no answer is
// older than a read's MaxAge, and no near copy outlives its lease.
func TestHardExpiryIsNeverPassed(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		seconds := func(name string, lo, hi int) time.Duration {
			return time.Duration(rapid.IntRange(lo, hi).Draw(r, name)) * 100 * time.Millisecond
		}
		f := Freshness{
			TTL: seconds("TTL", 1, 50), StaleWhileRevalidate: seconds("SWR", 0, 50), StaleIfError: seconds("SIE", 0, 50),
			ErrorTTL: seconds("ErrorTTL", -1, 20), Jitter: float64(rapid.IntRange(-1, 9).Draw(r, "jitter")) / 10,
		}
		f.NearTTL = min(seconds("NearTTL", -1, 20), f.TTL)
		type step struct {
			pause, maxAge, takes time.Duration
			fails                bool
		}
		steps := make([]step, rapid.IntRange(1, 60).Draw(r, "steps"))
		for i := range steps {
			steps[i] = step{seconds("pause", 0, 30), max(seconds("maxAge", -30, 30), -1), seconds("takes", 0, 1), rapid.Bool().Draw(r, "fails")}
		}
		seed := rapid.Uint64Min(1).Draw(r, "seed")
		var err error
		bubble(t, func(t *testing.T) {
			err = hardExpiry(t, f, seed, len(steps), func(i int) (p, m, k time.Duration, fails bool) {
				s := steps[i]
				return s.pause, s.maxAge, s.takes, s.fails
			})
		})
		if err != nil { // outside of the bubble, which would not let rapid print how to repeat it
			r.Fatal(err)
		}
	})
}

// hardExpiry reads a key n times, and returns the first answer that breaks the contract, or an error that is neither the
// origin's nor that of a breaker which its errors have opened.
func hardExpiry(t *testing.T, f Freshness, seed uint64, n int, step func(int) (pause, maxAge, takes time.Duration, fails bool)) error {
	var mu sync.Mutex // guards takes and fails
	var takes time.Duration
	var fails bool
	c, err := New(Config[simValue]{
		Freshness: f, Seed: seed, NearBytes: 1 << 20,
		Loader: func(context.Context, *Fill[simValue]) (simValue, error) {
			began := time.Now().UnixNano()
			mu.Lock()
			d, bad := takes, fails
			mu.Unlock()
			time.Sleep(d)
			if bad {
				return simValue{}, errDown
			}
			return simValue{Began: began}, nil
		},
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(t.Context()) }()
	for i := range n {
		pause, maxAge, d, bad := step(i)
		mu.Lock()
		takes, fails = d, bad
		mu.Unlock()
		time.Sleep(pause)
		synctest.Wait()
		a, err := c.Read(t.Context(), "k", ReadOptions{MaxAge: maxAge})
		if err != nil {
			if !errors.Is(err, errDown) && !errors.Is(err, ErrOverloaded) {
				return fmt.Errorf("step %d: %w", i, err)
			}
			continue
		}
		age := time.Since(time.Unix(0, a.Value.Began))
		switch {
		case a.Age != age:
			return fmt.Errorf("step %d: age %v, really %v", i, a.Age, age)
		case a.Source == SourceFill: // its load has just ended, and may have taken longer than TTL
			if age > 200*time.Millisecond {
				return fmt.Errorf("step %d: a fill of %v", i, age)
			}
		case age >= f.Bound():
			return fmt.Errorf("step %d: %v old, the bound is %v", i, age, f.Bound())
		case maxAge > 0 && age > maxAge:
			return fmt.Errorf("step %d: %v old, wanted at most %v", i, age, maxAge)
		case maxAge == 0 && (a.Stale || a.Source == SourceNear):
			return fmt.Errorf("step %d: MaxAge 0 got %+v", i, a)
		case !a.Stale && age >= f.TTL:
			return fmt.Errorf("step %d: %v old and not called stale", i, age)
		}
	}
	return nil
}

// A hot key is refreshed ahead, so that no caller waits for its 40 ms, with a near tier or without.
func TestHotKeyNeverWaits(t *testing.T) {
	for _, near := range []int64{-1, 1 << 20} {
		bubble(t, func(t *testing.T) {
			o := slow(40 * time.Millisecond)
			cfg := plain(ByKey(o.load))
			cfg.NearBytes = near
			cfg.Seed = 7
			cfg.Freshness = Freshness{TTL: 10 * time.Second}
			c := open(t, cfg)
			_, _ = c.Get(t.Context(), "hot")
			waited := 0
			for range 60_000 { // 60 s; with fewer reads a second, chance would decide whether one starts the refresh in time
				began := time.Now()
				if _, err := c.Get(t.Context(), "hot"); err != nil {
					t.Fatal(err)
				}
				if time.Since(began) > 0 {
					waited++
				}
				time.Sleep(time.Millisecond)
			}
			s := c.Stats()
			if waited > 0 || s.LoadsBy["refresh_ahead"] < 5 {
				t.Errorf("near %d: %d reads waited; loads %v", near, waited, s.LoadsBy)
			}
			if s.Loads > 10 {
				t.Errorf("near %d: %d loads in 60 s at a TTL of 9 to 10 s", near, s.Loads)
			}
			if near > 0 && s.Near < 54_000 {
				t.Errorf("near hits %d of 60000", s.Near)
			}
		})
	}
}

func TestJitterOnlyShortens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := &counter{}
		cfg := plain(ByKey(o.load))
		cfg.Freshness.Jitter, cfg.Seed = 0.5, 11
		c := open(t, cfg)
		low, high := time.Hour, time.Duration(0)
		for i := range 1000 {
			key := fmt.Sprint(i)
			_ = read(t, c, key, AnyAge)
			e, _ := c.own.Owned.Get(key)
			d := time.Duration(e.Soft - e.Loaded)
			low, high = min(low, d), max(high, d)
		}
		if low < 30*time.Second || low > 31*time.Second || high > time.Minute || high < 59*time.Second {
			t.Errorf("from %v to %v, want all of 30 s to 60 s", low, high)
		}
	})
}

func TestReadOptions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Second)
		cfg := plain(ByKey(o.load))
		cfg.NearBytes = 1 << 20
		cfg.Freshness.NearTTL, cfg.Freshness.StaleWhileRevalidate = 30*time.Second, time.Hour
		c := open(t, cfg)
		want := func(maxAge time.Duration, value string, age time.Duration, from Source, stale bool) {
			t.Helper()
			synctest.Wait()
			if got := read(t, c, "k", maxAge); got != (Answer[string]{value, age, from, stale}) {
				t.Fatalf("%+v, want %q, %v, %v, stale %v", got, value, age, from, stale)
			}
		}
		want(AnyAge, "k#1", time.Second, SourceFill, false)
		want(AnyAge, "k#1", time.Second, SourceNear, false)
		want(0, "k#1", time.Second, SourceOwned, false)
		time.Sleep(9 * time.Second)
		want(10*time.Second, "k#1", 10*time.Second, SourceNear, false)
		want(-5*time.Hour, "k#1", 10*time.Second, SourceNear, false)
		want(10*time.Second-1, "k#2", time.Second, SourceFill, false)
		time.Sleep(59 * time.Second)                        // soft expiry
		want(AnyAge, "k#2", time.Minute, SourceOwned, true) // starts a refresh
		want(0, "k#3", time.Second, SourceFill, false)      // joins it
		o.want(t, 3)
		time.Sleep(59*time.Second + 50*time.Second)
		want(2*time.Minute, "k#3", 110*time.Second, SourceOwned, true)
		time.Sleep(29 * time.Second) // the refresh has ended long ago, but the near copy has its lease
		want(AnyAge, "k#3", 139*time.Second, SourceNear, true)
		time.Sleep(time.Second)
		want(AnyAge, "k#4", 30*time.Second, SourceOwned, false)
	})
}

// A read that demands an age does not get an older value because it joined a fill that began long ago.
func TestMaxAgeOfJoinedFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(4 * time.Second)
		c := open(t, plain(ByKey(o.load)))
		go func() { _, _ = c.Get(t.Context(), "k") }()
		time.Sleep(3 * time.Second)
		o.takes.Store(int64(time.Second))
		a := read(t, c, "k", 2*time.Second)
		if a.Age > 2*time.Second || a.Value != "k#2" {
			t.Errorf("%+v", a)
		}
		o.takes.Store(int64(3 * time.Second)) // no load can do better: the first that began later is used
		if a := read(t, c, "k", 500*time.Millisecond); a.Age != 3*time.Second || a.Value != "k#3" {
			t.Errorf("%+v", a)
		}
	})
}

func TestSourceString(t *testing.T) {
	got := fmt.Sprint(SourceNear, SourceOwned, SourceFill, Source(0))
	if got != "near owned fill none" {
		t.Error(got)
	}
}
