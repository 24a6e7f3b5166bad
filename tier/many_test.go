package tier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
)

// keysNamed returns n keys.
func keysNamed(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%d", i)
	}
	return keys
}

// kindCount counts requests by kind.
type kindCount [256]atomic.Int64

func (n *kindCount) of(kind codec.Kind) int { return int(n[kind].Load()) }

func (n *kindCount) clear() {
	for i := range n {
		n[i].Store(0)
	}
}

// countKinds counts the requests by kind, and lets each through.
func (s *simNet) countKinds() *kindCount {
	n := new(kindCount)
	s.setRule(func(_, _ string, kind codec.Kind, answer bool) hop {
		if !answer {
			n[kind].Add(1)
		}
		return hop{}
	})
	return n
}

func TestGetManyAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Second)
		for _, near := range []int64{-1, 1 << 20} {
			cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
				v, err := o.load(ctx, key)
				if strings.HasPrefix(key, "none") {
					return "", ErrNotFound
				}
				if strings.HasPrefix(key, "bad") {
					return "", errors.New("broken")
				}
				return v[:strings.Index(v, "#")], err
			}))
			cfg.NearBytes = near
			c := open(t, cfg)
			o.n.Store(0)
			long := strings.Repeat("x", codec.MaxKey+1)
			began := time.Now()
			got, err := c.GetMany(t.Context(), []string{"a", "b", "a", "none-1", "bad-1", "", long, "a"})
			if want := map[string]string{"a": "a", "b": "b"}; !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			var many *ManyError
			if !errors.As(err, &many) || len(many.Errs) != 3 || many.Keys != 6 || len(many.Unwrap()) != 3 {
				t.Fatalf("%v", err)
			}
			if !errors.Is(err, ErrEmptyKey) || !errors.Is(err, ErrKeyTooLarge) || errors.Is(err, ErrNotFound) {
				t.Errorf("%v", err)
			}
			var fill *FillError
			if !errors.As(many.Errs["bad-1"], &fill) || fill.Key != "bad-1" {
				t.Errorf("%v", many.Errs)
			}
			if d := time.Since(began); d != time.Second {
				t.Errorf("took %v: the loads were not at the same time", d)
			}
			o.want(t, 4)
			synctest.Wait()
			if got, err = c.GetMany(t.Context(), []string{"a", "none-1", "b"}); err != nil || len(got) != 2 {
				t.Errorf("%v, %v", got, err)
			}
			o.want(t, 4)
			for _, keys := range [][]string{nil, {}} {
				if got, err := c.GetMany(t.Context(), keys); err != nil || got == nil || len(got) != 0 {
					t.Errorf("no keys: %v, %v", got, err)
				}
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if got, err := c.GetMany(ended, []string{"a"}); err != context.Canceled || got != nil {
				t.Errorf("ended ctx: %v, %v", got, err)
			}
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, err := c.GetMany(t.Context(), []string{"a"}); err != ErrClosed || got != nil {
				t.Errorf("closed: %v, %v", got, err)
			}
			for _, r := range c.GetEach(t.Context(), []string{"a", "b"}) {
				if r.Err != ErrClosed {
					t.Errorf("closed: %v", r.Err)
				}
			}
		}
	})
}

func TestGetEachInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(time.Second)
		cfg := plain(ByKey(o.load))
		cfg.Origin.Concurrency = eachGroup
		c := open(t, cfg)
		keys := slices.Concat(keysNamed(5), []string{""}, keysNamed(7))
		for range 2 {
			i := 0
			for key, r := range c.GetEach(t.Context(), keys) {
				if key != keys[i] {
					t.Fatalf("%q at %d, want %q", key, i, keys[i])
				}
				if key == "" {
					if !errors.Is(r.Err, ErrEmptyKey) {
						t.Errorf("%v", r.Err)
					}
				} else if r.Err != nil || !strings.HasPrefix(r.Value, key+"#") || r.Age < time.Second || r.Source == 0 {
					t.Errorf("%s: %+v", key, r)
				}
				i++
			}
			if i != len(keys) {
				t.Errorf("%d of %d", i, len(keys))
			}
			o.want(t, 7)
		}
		n := 0
		for range c.GetEach(t.Context(), keysNamed(2*eachGroup)) {
			if n++; n == 3 {
				break
			}
		}
		if loads := o.n.Load(); loads != eachGroup {
			t.Errorf("%d loads: who breaks off must not cost those of a later group", loads)
		}
	})
}

// Each owner gets one request for what it has, and one more for what it has to load.
func TestGetManyOneRequestAnOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		o.delay = func() time.Duration { return 10 * time.Millisecond }
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		keys := keysNamed(100)
		kinds := s.countKinds()
		for round, most := range []int{4, 2} {
			kinds.clear()
			got, err := caches["n0"].GetMany(background, keys)
			if err != nil || len(got) != len(keys) {
				t.Fatalf("%d values, %v", len(got), err)
			}
			if kinds.of(codec.KindGetMany) > most || kinds.of(codec.KindGet) != 0 {
				t.Errorf("round %d: %d and %d requests", round, kinds.of(codec.KindGetMany), kinds.of(codec.KindGet))
			}
			if loads := o.loads.Load(); loads != int64(len(keys)) {
				t.Errorf("%d loads", loads)
			}
		}
		kinds.clear()
		if got, err := caches["n1"].GetMany(background, keys); err != nil || len(got) != len(keys) || kinds.of(codec.KindGetMany) != 2 {
			t.Errorf("another member: %d values, %v, %d requests", len(got), err, kinds.of(codec.KindGetMany))
		}
		if loads := o.loads.Load(); loads != int64(len(keys)) {
			t.Errorf("%d loads", loads)
		}
		kinds.clear()
		_ = pause(background, 2*time.Minute) // the near copies' leases end, and the copies are still good
		if got, err := caches["n1"].GetMany(background, keys); err != nil || len(got) != len(keys) || kinds.of(codec.KindGetMany) != 2 {
			t.Errorf("revalidated: %d values, %v, %d requests", len(got), err, kinds.of(codec.KindGetMany))
		}
		if n := caches["n1"].Stats().Revalidated; n < 50 {
			t.Errorf("%d revalidated", n)
		}
	})
}

// Concurrent Gets and GetManys of the same keys on all members cost one load each.
func TestGetManyJoins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		o.delay = func() time.Duration { return 50 * time.Millisecond }
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		keys := keysNamed(60)
		var wg sync.WaitGroup
		for _, name := range s.names {
			for range 3 {
				wg.Go(func() {
					if got, err := caches[name].GetMany(background, keys); err != nil || len(got) != len(keys) {
						t.Errorf("%d values, %v", len(got), err)
					}
				})
			}
			for _, key := range keys {
				wg.Go(func() {
					if _, err := caches[name].Get(background, key); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		if n := o.loads.Load(); n != int64(len(keys)) {
			t.Errorf("%d loads of %d keys", n, len(keys))
		}
	})
}

// GetMany gets its values although a member is not the owner or cannot be reached, and keeps its deadline if one does
// not answer in time.
func TestGetManyTrouble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{NearBytes: -1})
		defer s.stop(caches)
		keys := keysNamed(90)
		all := func(what string) {
			t.Helper()
			got, err := caches["n0"].GetMany(background, keys)
			if err != nil || len(got) != len(keys) {
				t.Errorf("%s: %d values, %v", what, len(got), err)
			}
		}
		all("cold")
		s.setRule(func(_, to string, _ codec.Kind, answer bool) hop { return hop{lost: to == "n1" && !answer} })
		all("an owner is unreachable")
		s.setRule(func(_, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: kind == codec.KindGetMany && answer}
		})
		all("answers are lost")
		s.setRule(nil)
		view := s.nodes["n0"].View()
		s.nodes["n1"].setView(simView(t, "n0", "n1")) // n0 still believes in n2
		s.nodes["n2"].setView(simView(t, "n0", "n1"))
		all("owners say that they are not")
		for _, n := range s.nodes {
			n.setView(view)
		}

		s.setRule(func(_, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: to == "n1" && !answer, silent: true}
		})
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		began := time.Now()
		got, err := caches["n0"].GetMany(ctx, keys)
		if d := time.Since(began); d > time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, %v", d, err)
		}
		var many *ManyError
		errors.As(err, &many)
		for _, key := range keys {
			if _, ok := got[key]; ok == (view.Owner(key).Name == "n1") || ok == (many.Errs[key] != nil) {
				t.Errorf("%s of %s: there is a value: %v; %v", key, view.Owner(key).Name, ok, many.Errs[key])
			}
		}
	})
}

// What has been loaded by the deadline is not lost together with what has not.
func TestGetManyPartial(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
			if strings.HasSuffix(f.Key, "7") {
				return simValue{}, pause(ctx, time.Hour)
			}
			return simValue{}, pause(ctx, 100*time.Millisecond)
		}})
		defer s.stop(caches)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		got, err := caches["n0"].GetMany(ctx, keysNamed(100))
		var many *ManyError
		if !errors.As(err, &many) || len(got) != 90 || len(many.Errs) != 10 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d values, %v", len(got), err)
		}
	})
}

// An answer that does not fit into one frame arrives in parts. A value that fits into no frame with others is read
// alone.
func TestGetManyLarge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{NearBytes: -1, ValueLimit: 1 << 20, Loader: func(_ context.Context, f *Fill[simValue]) (simValue, error) {
			if f.Key == "key-3" || f.Key == "key-40" {
				return simValue{Node: f.Key + strings.Repeat("x", 700<<10)}, nil
			}
			return simValue{Node: f.Key + strings.Repeat("x", 100<<10)}, nil
		}})
		defer s.stop(caches)
		kinds := s.countKinds()
		for range 2 {
			got, err := caches["n0"].GetMany(background, keysNamed(60))
			if err != nil || len(got) != 60 {
				t.Fatalf("%d values, %v", len(got), err)
			}
			for key, v := range got {
				if !strings.HasPrefix(v.Node, key+"x") {
					t.Errorf("%s: %.20s", key, v.Node)
				}
			}
		}
		large := 0
		for _, key := range []string{"key-3", "key-40"} {
			if s.nodes["n0"].View().Owner(key).Name == "n1" {
				large++
			}
		}
		if n := kinds.of(codec.KindGet); n != 2*large || large == 0 {
			t.Errorf("%d single gets, %d values are too large", n, large)
		}
	})
}

func TestGetManyOfVeryMany(t *testing.T) { getManyOf(t, 3*codec.MaxKeysPerFrame) }

func TestGetManyOfVeryManyLong(t *testing.T) { getManyOf(t, 100_000) }

func getManyOf(t *testing.T, n int) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{Origin: Origin{Concurrency: 1 << 20, Queue: 1 << 20}, BatchLoader: func(_ context.Context, fills []*Fill[simValue]) error {
			for _, f := range fills {
				f.Set(simValue{Node: f.Key})
			}
			return nil
		}})
		defer s.stop(caches)
		keys := keysNamed(n)
		got, err := caches["n0"].GetMany(background, append(keys, keys[:n/2]...))
		if err != nil || len(got) != n {
			t.Fatalf("%d values, %v", len(got), err)
		}
		for key, v := range got {
			if v.Node != key {
				t.Fatalf("%s: %+v", key, v)
			}
		}
		if err := caches["n1"].Invalidate(background, keys...); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{keys[0], keys[n/2], keys[n-1]} {
			for _, name := range s.names {
				before := caches[s.nodes["n0"].View().Owner(key).Name].Stats().Loads
				if _, err := caches[name].Get(background, key); err != nil {
					t.Fatal(err)
				}
				if after := caches[s.nodes["n0"].View().Owner(key).Name].Stats().Loads; name == "n0" && after != before+1 {
					t.Errorf("%s was not invalidated", key)
				}
			}
		}
	})
}

// After an Invalidate has returned, no old value comes back, no matter how a member learned of it.
func TestGetManyFenced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		keys := keysNamed(50)
		for _, name := range s.names {
			if _, err := caches[name].GetMany(background, keys); err != nil {
				t.Fatal(err)
			}
		}
		fresh := func(what string, c *Cache[simValue], least int64, keys []string) {
			t.Helper()
			got, err := c.GetMany(background, keys)
			if err != nil || len(got) != len(keys) {
				t.Errorf("%s: %d values, %v", what, len(got), err)
			}
			for key, v := range got {
				if v.Began < least {
					t.Errorf("%s: %s was loaded before the invalidation", what, key)
				}
			}
		}
		least := o.seq.Add(1)
		if err := caches["n1"].Invalidate(background, keys[:20]...); err != nil {
			t.Fatal(err)
		}
		fresh("invalidated", caches["n0"], least, keys[:20])

		// Only n0 has applied these. It tells the owner of one with its request; for two it has an exchange first.
		seq := uint64(0)
		for n := 1; n <= 2; n++ {
			for range n {
				least = o.seq.Add(1)
				for _, key := range keys[20:] {
					seq++
					apply(caches["n0"], key, mark(seq))
				}
			}
			fresh(fmt.Sprintf("%d are known here alone", n), caches["n0"], least, keys[20:])
		}
	})
}

// The same holds for a tag, which only the answer names.
func TestGetManyTagged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		load := o.loader("any")
		caches := s.start(o, Config[simValue]{Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
			f.Tag("all")
			return load(ctx, f)
		}})
		defer s.stop(caches)
		keys := keysNamed(50)
		for _, name := range s.names {
			if _, err := caches[name].GetMany(background, keys); err != nil {
				t.Fatal(err)
			}
		}
		least := o.seq.Add(1)
		caches["n0"].own.Journal.Receive(&codec.News{Invalidations: []codec.Invalidation{{Mark: mark(1), Scope: codec.ScopeTags, Names: [][]byte{[]byte("all")}}}})
		got, err := caches["n0"].GetMany(background, keys)
		if err != nil || len(got) != len(keys) {
			t.Errorf("%d values, %v", len(got), err)
		}
		for key, v := range got {
			if v.Began < least {
				t.Errorf("%s of %s was loaded before the invalidation", key, s.nodes["n0"].View().Owner(key).Name)
			}
		}
	})
}

// A loader that wants many keys, its own among them, gets ErrCycle for its own and the values of the others.
func TestGetManyCycle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSim(t, 3)
		caches := make(map[string]*Cache[simValue])
		view := s.nodes["n0"].View()
		keys := []string{keyOf(view, "n0", 0), keyOf(view, "n1", 0), keyOf(view, "n2", 0)}
		var mu sync.Mutex
		var cycles, others int
		for _, name := range s.names {
			caches[name] = s.open(name, nil, Config[simValue]{Origin: Origin{Timeout: time.Minute}, Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
				if f.Key != keys[1] {
					return simValue{Node: f.Key}, nil
				}
				got, err := caches[name].GetMany(ctx, keys)
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, ErrCycle) {
					cycles++
				}
				others += len(got)
				return simValue{Node: f.Key}, nil
			}})
		}
		defer s.stop(caches)
		began := time.Now()
		if v, err := caches["n2"].Get(background, keys[1]); err != nil || v.Node != keys[1] {
			t.Errorf("%+v, %v", v, err)
		}
		if cycles != 1 || others != 2 || time.Since(began) > time.Second {
			t.Errorf("%d cycles, %d others, %v", cycles, others, time.Since(began))
		}
	})
}

func TestGetManyIsolated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{WhenIsolated: Bypass})
		defer s.stop(caches)
		keys := keysNamed(30)
		if _, err := caches["n0"].GetMany(background, keys); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"n0", "n1"} { // the member that asks, then an owner
			caches[name].own.Isolation.Cut.Store(true)
			least := o.seq.Add(1)
			got, err := caches["n0"].GetMany(background, keys)
			if err != nil || len(got) != len(keys) {
				t.Errorf("%s: %d values, %v", name, len(got), err)
			}
			for key, v := range got {
				if name == "n0" && v.Began < least {
					t.Errorf("%s comes from a copy", key)
				}
			}
			caches[name].own.Isolation.Cut.Store(false)
		}
	})
}
