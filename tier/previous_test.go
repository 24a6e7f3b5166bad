package tier

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/placement"
)

// aged returns a view of members whose incarnations are their places: a member named later has started later.
func aged(t *testing.T, names ...string) *ring.View {
	t.Helper()
	var m []ring.Member
	for i, name := range names {
		m = append(m, ring.Member{Name: name, Addr: name + ":1", Incarnation: uint64(i + 1)})
	}
	v, err := ring.New(m, ring.Config{Partitions: 61})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// moving is a cluster of three in which n2 is going to join the others.
type moving struct {
	*simNet
	t      *testing.T
	o      *simOrigin
	cfg    Config[simValue]
	caches map[string]*Cache[simValue]
	old    *ring.View // of n0 and n1
	new    *ring.View // of all
}

func newMoving(t *testing.T, cfg Config[simValue]) *moving {
	m := &moving{simNet: newSim(t, 3), t: t, o: newOrigin(), cfg: cfg, caches: make(map[string]*Cache[simValue]), old: aged(t, "n0", "n1"), new: aged(t, "n0", "n1", "n2")}
	for _, name := range []string{"n0", "n1"} {
		m.nodes[name].setView(m.old)
		m.caches[name] = m.open(name, m.o, cfg)
	}
	return m
}

// join starts n2. The named members see it.
func (m *moving) join(seenBy ...string) {
	m.nodes["n2"].setView(m.new)
	for _, name := range seenBy {
		m.nodes[name].setView(m.new)
	}
	m.caches["n2"] = m.open("n2", m.o, m.cfg)
	synctest.Wait()
}

func (m *moving) end() { m.stop(m.caches) }

// moved returns a key that n2 takes over from n0.
func (m *moving) moved(nth int) string {
	for i := 0; ; i++ {
		if k := fmt.Sprintf("k%d", i); m.new.Owner(k).Name == "n2" && m.old.Owner(k).Name == "n0" {
			if nth--; nth < 0 {
				return k
			}
		}
	}
}

func (m *moving) read(name, key string) Answer[simValue] {
	m.t.Helper()
	a, err := m.caches[name].Read(m.t.Context(), key, ReadOptions{MaxAge: AnyAge})
	if err != nil {
		m.t.Fatalf("read of %s on %s: %v", key, name, err)
	}
	return a
}

func (m *moving) loads(want int64) {
	m.t.Helper()
	if n := m.o.loads.Load(); n != want {
		m.t.Errorf("%d loads, want %d", n, want)
	}
}

// G9: a joining node costs the origin no loads for fresh values, and copies keep their age.
func TestJoinCostsNoLoads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{})
		defer m.end()
		const keys = 300
		for i := range keys {
			m.read("n0", fmt.Sprintf("k%d", i))
		}
		m.loads(keys)
		time.Sleep(2 * time.Minute) // long enough for all near copies to expire
		m.join("n0", "n1")
		for i := range keys {
			key := fmt.Sprintf("k%d", i)
			for _, name := range []string{"n1", "n2", "n0"} {
				if a := m.read(name, key); a.Age < 2*time.Minute || a.Source == SourceFill || a.Stale {
					t.Fatalf("%s: %+v", key, a)
				}
			}
		}
		m.loads(keys)
		s := m.caches["n2"].Stats()
		if s.PreviousHits == 0 || s.PreviousHits != s.PreviousAsked || s.LoadsBy["moved"] != 0 || s.OwnedEntries != int(s.PreviousHits) {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour) // TTL counts from the load
		m.read("n1", m.moved(0))
		m.loads(keys + 1)
	})
}

// A leaving node is the first to see that it leaves. Until the others see it, and before the handoff begins, it
// answers with what it has.
func TestLeaverAnswersAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{NearBytes: -1})
		defer m.end()
		m.join("n0", "n1")
		key := m.moved(0)
		m.read("n1", key)
		m.loads(1)
		m.nodes["n2"].setView(m.old)
		for _, name := range []string{"n0", "n1"} {
			if a := m.read(name, key); a.Source == SourceFill {
				t.Errorf("%s: %+v", name, a)
			}
		}
		m.loads(1)
	})
}

// The previous owner's copy does not replace a newer copy that this node has loaded and lost.
func TestJoinNeverGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{NearBytes: -1})
		defer m.end()
		key := m.moved(0)
		first := m.read("n0", key)
		time.Sleep(2 * time.Minute)
		m.join("n0", "n1")
		n2 := m.caches["n2"]
		if _, err := n2.Refresh(background, key); err != nil {
			t.Fatal(err)
		}
		own := m.read("n2", key)
		if own.Value.Began <= first.Value.Began {
			t.Fatalf("%+v, and then %+v: it was not loaded again", first, own)
		}
		before := n2.Stats()
		for range 2 { // as if it had been evicted
			n2.own.Owned.Delete(key)
			if a := m.read("n2", key); a.Value.Began < own.Value.Began {
				t.Errorf("%+v after %+v", a, own)
			}
		}
		if s := n2.Stats(); s.PreviousAsked == before.PreviousAsked || s.PreviousHits != before.PreviousHits {
			t.Errorf("%d asked, %d taken", s.PreviousAsked-before.PreviousAsked, s.PreviousHits-before.PreviousHits)
		}
	})
}

// A joining node joins a fill that runs at the previous owner, however long it takes.
func TestJoinMeetsFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := Config[simValue]{}
		cfg.Origin.Timeout = 10 * time.Second
		m := newMoving(t, cfg)
		defer m.end()
		m.o.delay = func() time.Duration { return 2 * time.Second }
		key := m.moved(0)
		done := make(chan error, 1)
		go func() {
			_, err := m.caches["n0"].Get(context.Background(), key)
			done <- err
		}()
		time.Sleep(time.Second)
		m.join("n0", "n1")
		began := time.Now()
		m.read("n2", key)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		m.loads(1)
	})
}

// The previous owner also gives a stale copy: the new owner serves and refreshes it.
func TestJoinStaleCopy(t *testing.T) {
	for _, late := range []bool{false, true} { // past StaleWhileRevalidate: it is only a fallback
		bubble(t, func(t *testing.T) {
			cfg := Config[simValue]{Freshness: Freshness{TTL: time.Minute, StaleWhileRevalidate: time.Minute, StaleIfError: time.Hour, NearTTL: -1, RefreshAhead: -1, Jitter: -1}}
			m := newMoving(t, cfg)
			defer m.end()
			key := m.moved(0)
			m.read("n0", key)
			time.Sleep(90 * time.Second)
			if late {
				time.Sleep(time.Minute)
				m.o.mu.Lock()
				m.o.fail = errDown
				m.o.mu.Unlock()
			}
			m.join("n0", "n1")
			if a := m.read("n2", key); !a.Stale || a.Age < 90*time.Second {
				t.Errorf("%+v", a)
			}
			if late {
				m.loads(2) // which failed
				return
			}
			m.loads(1)
			m.read("n2", key)
			synctest.Wait()
			if a := m.read("n2", key); a.Stale {
				t.Errorf("%+v", a)
			}
			m.loads(2)
			time.Sleep(time.Second)
			if a, err := m.caches["n2"].Refresh(t.Context(), m.moved(0)); err != nil || a.Node != "n2" {
				t.Errorf("%+v, %v", a, err)
			}
			m.loads(3)
		})
	}
}

// A read's demands also hold for the previous owner's copies.
func TestJoinDemands(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{Freshness: Freshness{TTL: time.Minute, StaleWhileRevalidate: time.Hour, NearTTL: -1, RefreshAhead: -1, Jitter: -1}})
		defer m.end()
		young, old, fresh := m.moved(0), m.moved(1), m.moved(2)
		m.read("n0", old)
		time.Sleep(2 * time.Minute)
		m.read("n0", young)
		m.read("n0", fresh)
		m.loads(3)
		time.Sleep(5 * time.Second)
		m.join("n0", "n1")
		c := m.caches["n2"]
		for _, x := range []struct {
			key    string
			maxAge time.Duration
			loads  int64
		}{{young, 0, 3}, {fresh, time.Second, 4}, {old, 0, 5}} {
			a, err := c.Read(t.Context(), x.key, ReadOptions{MaxAge: x.maxAge})
			if err != nil || x.maxAge > 0 && a.Age > x.maxAge || a.Stale {
				t.Errorf("%+v: %+v, %v", x, a, err)
			}
			m.loads(x.loads)
		}
	})
}

// A previous owner that does not answer costs little and is left alone for a while. What is loaded then counts as
// moved.
func TestJoinSilentPreviousOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{})
		defer m.end()
		for i := range 3 {
			m.read("n0", m.moved(i))
		}
		m.join("n0", "n1")
		m.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: to == "n0", silent: true}
		})
		began := time.Now()
		m.read("n2", m.moved(0))
		if took := time.Since(began); took > owner.PreviousWait {
			t.Errorf("took %v", took)
		}
		began = time.Now()
		m.read("n2", m.moved(1))
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
		m.loads(5)
		if s := m.caches["n2"].Stats(); s.LoadsBy["moved"] != 2 {
			t.Errorf("%+v", s.LoadsBy)
		}
		m.setRule(nil)
		time.Sleep(time.Second)
		m.read("n2", m.moved(2))
		m.loads(5)
	})
}

// A previous owner that has no copies is soon no longer asked.
func TestJoinUselessPreviousOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{})
		defer m.end()
		m.join("n0", "n1")
		for i := range 150 {
			m.read("n2", m.moved(i))
		}
		s := m.caches["n2"].Stats()
		if s.PreviousAsked < placement.PreviousMemory || s.PreviousAsked > 120 || s.PreviousHits != 0 || s.LoadsBy["cold"] < s.PreviousAsked {
			t.Errorf("asked %d times; %v", s.PreviousAsked, s.LoadsBy)
		}
	})
}

// Two members that each believe that the other is the previous owner do not wait for each other.
func TestPreviousOwnersOfEachOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{})
		defer m.end()
		m.join("n0", "n1")
		key := m.moved(0)
		m.o.delay = func() time.Duration { return 50 * time.Millisecond }
		m.setRule(func(string, string, codec.Kind, bool) hop { return hop{delay: 10 * time.Millisecond} })
		m.nodes["n0"].setView(m.old) // n0 takes the key back
		synctest.Wait()
		began := time.Now()
		errs := make(chan error, 2)
		for _, name := range []string{"n0", "n2"} {
			go func() {
				_, err := m.caches[name].Get(context.Background(), key)
				errs <- err
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// Part by part: the previous owner's copy is never older than an invalidation that the new owner has applied or has
// received.
func TestJoinNeverBringsBackWhatWasInvalidated(t *testing.T) {
	type scene struct {
		name string
		do   func(m *moving, c *Cache[simValue], key string)
	}
	keys := func(m *moving, c *Cache[simValue], key string) { _ = c.Invalidate(m.t.Context(), key) }
	for _, s := range []scene{
		{"key", keys},
		{"key twice", func(m *moving, c *Cache[simValue], key string) { keys(m, c, key); keys(m, c, key) }},
		{"key often", func(m *moving, c *Cache[simValue], key string) {
			for range 5 {
				keys(m, c, key)
			}
		}},
		{"tag", func(m *moving, c *Cache[simValue], _ string) { _ = c.InvalidateTag(m.t.Context(), "tag") }},
		{"all", func(m *moving, c *Cache[simValue], _ string) { _ = c.InvalidateAll(m.t.Context()) }},
	} {
		for _, by := range []string{"n1", "n2"} { // n2 is the new owner; if n1 starts it, n2 first hears of it with the request
			t.Run(s.name+" by "+by, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					var o atomic.Pointer[simOrigin]
					cfg := Config[simValue]{InvalidateTimeout: 100 * time.Millisecond, Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
						f.Tag("tag")
						return o.Load().loader("any")(ctx, f)
					}}
					m := newMoving(t, cfg)
					o.Store(m.o)
					defer m.end()
					key := m.moved(0)
					m.read("n0", key)
					m.join("n0", "n1")
					time.Sleep(20 * time.Second) // nobody is young
					m.read("n2", keyOf(m.new, "n0", 0))
					m.read("n1", keyOf(m.new, "n2", 7))
					m.o.write(key)
					// No invalidation arrives unasked.
					m.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
						return hop{lost: kind == codec.KindInvalidate && !answer}
					})
					s.do(m, m.caches[by], key)
					if a := m.read(by, key); a.Value.Version != 1 {
						t.Errorf("%+v", a)
					}
					m.setRule(nil)
					time.Sleep(time.Minute)
					if a := m.read("n0", key); a.Value.Version != 1 {
						t.Errorf("%+v", a)
					}
				})
			})
		}
	}
}

// While the giver does not know the new owner, an invalidation may bypass the new owner. Then the copy is for the
// caller that asked, and the next caller asks again. Once the two members have seen each other, the copy is kept.
func TestJoinUnknownToTheGiver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{})
		defer m.end()
		key := m.moved(0)
		m.read("n0", key)
		m.join() // unseen
		if a := m.read("n2", key); a.Value.Version != 0 {
			t.Errorf("%+v", a)
		}
		m.loads(1)
		if s := m.caches["n2"].Stats(); s.OwnedEntries != 0 || s.PreviousHits != 1 {
			t.Errorf("kept: %+v", s)
		}
		m.o.write(key)
		if err := m.caches["n1"].Invalidate(t.Context(), key); err != nil { // n2 hears nothing of n1
			t.Fatal(err)
		}
		if a := m.read("n2", key); a.Value.Version != 1 {
			t.Errorf("%+v: n2 has kept what it should not have", a)
		}
		other := m.moved(1)
		m.read("n0", other)
		m.nodes["n0"].setView(m.new)
		m.nodes["n1"].setView(m.new)
		time.Sleep(2 * time.Second)
		for range 2 {
			m.read("n2", other)
		}
		if s := m.caches["n2"].Stats(); s.OwnedEntries == 0 || !slices.Contains([]int64{2, 3}, s.PreviousHits) {
			t.Errorf("not kept: %+v", s)
		}
	})
}
