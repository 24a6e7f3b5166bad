package tier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
)

func TestInvalidateNamesWhoIsMissing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{InvalidateTimeout: 2 * time.Second})
		defer s.stop(caches)
		s.setRule(func(_, to string, _ codec.Kind, _ bool) hop { return hop{lost: to == "n2"} })
		began := time.Now()
		err := caches["n0"].Invalidate(background, "k")
		var inv *InvalidateError
		if !errors.As(err, &inv) || !slices.Equal(inv.Unreached, []string{"n2"}) || !errors.Is(err, errLinkDown) {
			t.Fatalf("err = %v", err)
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("took %v", d)
		}
		if d := time.Until(inv.CleanBy); d != time.Hour {
			t.Errorf("clean in %v", d)
		}
		if n := s.count("n0", "n2"); n < 4 || n > 20 {
			t.Errorf("%d attempts", n)
		}
		// The pump retries until it succeeds.
		until := time.Now().Add(time.Second)
		s.setRule(func(_, to string, _ codec.Kind, _ bool) hop { return hop{lost: to == "n2" && time.Now().Before(until)} })
		if err := caches["n0"].Invalidate(background, "k"); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(background)
		cancel()
		fences := caches["n0"].Stats().Fences
		if err := caches["n0"].Invalidate(ctx, "k"); !errors.Is(err, context.Canceled) {
			t.Errorf("with a ctx that has ended: %v", err)
		}
		if err := caches["n0"].Invalidate(background); err != nil {
			t.Errorf("no keys: %v", err)
		}
		if err := caches["n0"].Invalidate(background, "k", ""); !errors.Is(err, ErrEmptyKey) {
			t.Errorf("empty key: %v", err)
		}
		if n := caches["n0"].Stats().Fences; n != fences {
			t.Error("something was fenced")
		}
	})
}

func TestInvalidateTellsWhoJoins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		for _, n := range s.nodes {
			n.setView(simView(t, "n0", "n1"))
		}
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		s.setRule(func(_, _ string, _ codec.Kind, _ bool) hop { return hop{delay: 20 * time.Millisecond} })
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := caches["n0"].Invalidate(background, "k"); err != nil {
				t.Error(err)
			}
			if caches["n2"].Stats().Fences != 1 {
				t.Error("n2 was not told")
			}
		})
		_ = pause(background, 10*time.Millisecond)
		s.nodes["n0"].setView(simView(t, "n0", "n1", "n2"))
		wg.Wait()
	})
}

// A member without the cache counts as confirmed. A member opens the cache while others have yet to apply the fence,
// and copies a value from them before it has had an exchange with every member: it does not keep that copy.
func TestInvalidateWithoutCache(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := map[string]*Cache[simValue]{}
		for _, name := range []string{"n0", "n1"} {
			caches[name] = s.open(name, o, Config[simValue]{})
		}
		defer s.stop(caches)
		if err := caches["n0"].Invalidate(background, "k"); err != nil {
			t.Fatal(err)
		}
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		if _, err := caches["n1"].Get(background, key); err != nil {
			t.Fatal(err)
		}
		_ = pause(background, time.Second) // no exchange is in progress that could bring the invalidation to n1
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			return hop{
				delay: map[bool]time.Duration{true: 500 * time.Millisecond}[kind == codec.KindInvalidate && to == "n1" && !answer],
				lost:  from == "n2" && to == "n0",
			}
		})
		var wg sync.WaitGroup
		least := o.seq.Add(1)
		wg.Go(func() {
			if err := caches["n0"].Invalidate(background, key); err != nil {
				t.Error(err)
			}
		})
		_ = pause(background, 10*time.Millisecond)
		caches["n2"] = s.open("n2", o, Config[simValue]{})
		if v, err := caches["n2"].Get(background, key); err != nil || v.Began > least {
			t.Errorf("%+v, %v: this read should have got the old value", v, err)
		}
		wg.Wait()
		getsSince(t, caches["n2"], key, least)
	})
}

func TestInvalidateManyKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		keys := make([]string, 20_000)
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		keys[7] = strings.Repeat("x", codec.MaxKey)
		for _, k := range keys[:20] {
			if _, err := caches["n0"].Get(background, k); err != nil {
				t.Fatal(err)
			}
		}
		if err := caches["n1"].Invalidate(background, keys...); err != nil {
			t.Fatal(err)
		}
		for name, c := range caches {
			if st := c.Stats(); st.Fences != int64(len(keys)) || st.FencesKept > fence.Shards*fence.PerShard {
				t.Errorf("%s: %d fences, %d kept", name, st.Fences, st.FencesKept)
			}
		}
		for _, k := range keys[:20] {
			if v, err := caches["n0"].Get(background, k); err != nil || v.Began <= 20 {
				t.Errorf("%s: %+v, %v", k, v, err)
			}
		}
	})
}

// TestInvalidationsThatCross applies two invalidations of a key in different orders. n1 owns the key. n0 has applied
// both; n1 has only applied one so far.
func TestInvalidationsThatCross(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 4), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		late := map[string]time.Duration{"n2>n0": 30, "n2>n1": 1, "n3>n0": 15, "n3>n1": 60}
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			if kind == codec.KindInvalidate && !answer {
				return hop{delay: late[from+">"+to] * time.Millisecond}
			}
			return hop{}
		})
		var wg sync.WaitGroup
		wg.Go(func() { _ = caches["n2"].Invalidate(background, key) })
		_ = pause(background, 5*time.Millisecond)
		if _, err := caches["n1"].Get(background, key); err != nil {
			t.Fatal(err)
		}
		least := o.seq.Add(1)
		wg.Go(func() {
			if err := caches["n3"].Invalidate(background, key); err != nil {
				t.Error(err)
			}
		})
		_ = pause(background, 40*time.Millisecond) // n0 applies n3's at 20 ms and n2's at 30; n1 applies n3's at 65
		_, _ = caches["n0"].Get(background, key)
		wg.Wait()
		getsSince(t, caches["n0"], key, least)
		// Now all members have both: no read fences again, whatever the order in which the marks came.
		loads := o.loads.Load()
		for range 20 {
			_ = pause(background, 100*time.Millisecond)
			for _, c := range caches {
				_, _ = c.Read(background, key, ReadOptions{MaxAge: 0})
			}
		}
		if n := o.loads.Load() - loads; n > 1 {
			t.Errorf("%d more loads", n)
		}
	})
}

// A fence that a request carries and the invalidation itself, which arrives later, cost one load together.
func TestCarriedFenceCostsOneLoad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		_, _ = caches["n0"].Get(background, key)
		s.setRule(func(_, _ string, kind codec.Kind, answer bool) hop {
			if kind == codec.KindInvalidate && !answer {
				return hop{delay: 50 * time.Millisecond}
			}
			return hop{}
		})
		var wg sync.WaitGroup
		wg.Go(func() { _ = caches["n0"].Invalidate(background, key) })
		_ = pause(background, 10*time.Millisecond)
		_, _ = caches["n0"].Get(background, key)
		if n := o.loads.Load(); n != 2 {
			t.Errorf("%d loads: the carried fence did nothing", n)
		}
		wg.Wait()
		for range 5 {
			_, _ = caches["n0"].Read(background, key, ReadOptions{})
		}
		if n := o.loads.Load(); n != 2 {
			t.Errorf("%d loads", n)
		}
	})
}
