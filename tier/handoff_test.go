package tier

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/store"
)

// newLeaving makes a cluster of three members, of which n2 leaves.
func newLeaving(t *testing.T, cfg Config[simValue]) *moving {
	m := newMoving(t, cfg)
	m.nodes["n0"].setView(m.new)
	m.nodes["n1"].setView(m.new)
	m.join()
	time.Sleep(20 * time.Second) // no member is young any more
	return m
}

// unsee removes n2 from the views of the named members.
func (m *moving) unsee(names ...string) {
	for _, name := range names {
		m.nodes[name].setView(m.old)
	}
	synctest.Wait()
}

func (m *moving) drain(d time.Duration) (took time.Duration) {
	ctx, cancel := context.WithTimeout(m.t.Context(), d)
	defer cancel()
	began := time.Now()
	newHandler(m.caches["n2"]).Drain(ctx)
	return time.Since(began)
}

// gone removes n2 from the network.
func (m *moving) gone() {
	m.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
		return hop{lost: from == "n2" || to == "n2"}
	})
}

// G9: a member that leaves costs the origin nothing for what was fresh, and the copies keep their age, expiry and other
// properties.
func TestLeaveCostsNoLoads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var o atomic.Pointer[simOrigin]
		cfg := Config[simValue]{Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
			f.Tag("all", "tag of "+f.Key)
			f.SetVersion(7)
			time.Sleep(3 * time.Millisecond)
			if f.Key == "none" {
				return simValue{}, ErrNotFound
			}
			return o.Load().loader("any")(ctx, f)
		}, Freshness: Freshness{TTL: time.Hour, NegativeTTL: time.Hour, NearTTL: time.Second, RefreshAhead: -1, Jitter: -1}}
		m := newLeaving(t, cfg)
		o.Store(m.o)
		defer m.end()
		const keys = 300
		var loaded [keys]time.Time
		for i := range keys {
			loaded[i] = time.Now()
			m.read("n0", fmt.Sprintf("k%d", i))
		}
		time.Sleep(2 * time.Minute)
		key := m.moved(0)
		before, _ := m.caches["n2"].own.Owned.Get(key)
		held := m.caches["n2"].own.Owned.Len()
		m.unsee("n0", "n1", "n2")
		m.setRule(func(from, to string, kind codec.Kind, answer bool) hop { return hop{delay: 50 * time.Millisecond} })
		if took := m.drain(10 * time.Second); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		m.gone()
		for i := range keys {
			k := fmt.Sprintf("k%d", i)
			for _, name := range []string{"n0", "n1"} {
				if a := m.read(name, k); a.Age < time.Since(loaded[i]) || a.Age > time.Since(loaded[i])+time.Second || a.Source == SourceFill || a.Stale {
					t.Fatalf("%s: %+v after %v", k, a, time.Since(loaded[i]))
				}
			}
		}
		m.loads(keys)
		after, ok := m.caches[m.old.Owner(key).Name].own.Owned.Get(key)
		if !ok || after.Version != 7 || after.Cost != before.Cost || after.Tags == nil || len(after.Tags.List()) != 2 || !bytes.Equal(after.Value, before.Value) ||
			after.Hard-after.Loaded > before.Hard-before.Loaded || after.Soft-after.Loaded > before.Soft-before.Loaded {
			t.Errorf("%+v became %+v", before, after)
		}
		s := m.caches["n2"].Stats()
		if kept := m.caches["n0"].Stats().PushesKept + m.caches["n1"].Stats().PushesKept; s.Pushed != int64(held) || kept != s.Pushed {
			t.Errorf("%d held, %d pushed, %d kept", held, s.Pushed, kept)
		}
		// The tags came with the copies.
		if err := m.caches["n1"].InvalidateTag(t.Context(), "tag of "+key); err != nil {
			t.Fatal(err)
		}
		if a := m.read("n0", key); a.Source != SourceFill {
			t.Errorf("%+v", a)
		}
	})
}

// The hottest copies go first, at the allowed rate; the new owners ask for those that are left when the time is over.
func TestLeaveHottestFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := Config[simValue]{HandoffRate: 1 << 20, Freshness: Freshness{TTL: time.Hour, NearTTL: -1, RefreshAhead: -1, Jitter: -1}}
		cfg.Codec = padded{}
		m := newLeaving(t, cfg)
		defer m.end()
		const keys = 800 // of 10 KiB each, about 2.6 MiB of them n2's
		var own []string
		for i := range keys {
			key := fmt.Sprintf("k%d", i)
			m.read("n0", key)
			if m.new.Owner(key).Name == "n2" {
				own = append(own, key)
			}
		}
		hot := own[len(own)-20:]
		for range 3 {
			for _, key := range hot {
				m.read("n1", key)
			}
		}
		m.unsee("n0", "n1", "n2")
		if took := m.drain(time.Second); took != time.Second {
			t.Errorf("took %v", took)
		}
		if s := m.caches["n2"].Stats(); s.Pushed < 50 || s.Pushed > 170 {
			t.Errorf("%d pushed of %d", s.Pushed, len(own))
		}
		for _, key := range hot {
			if _, ok := m.caches[m.old.Owner(key).Name].own.Owned.Get(key); !ok {
				t.Errorf("%s was not pushed", key)
			}
		}
		for _, key := range own { // n2 has not gone yet
			m.read("n0", key)
		}
		m.loads(keys)
	})
}

// A hot entry stays even though cold ones are pushed after it, to a member that is full.
func TestLeaveToTheFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newLeaving(t, Config[simValue]{OwnedBytes: 256 << 10, Freshness: Freshness{TTL: time.Hour, NearTTL: -1, RefreshAhead: -1, Jitter: -1}})
		defer m.end()
		for i := range 4000 {
			m.read("n0", fmt.Sprintf("k%d", i))
			m.read("n0", fmt.Sprintf("k%d", i))
		}
		var own []string
		m.caches["n2"].own.Owned.Each(func(key string, _ *store.Entry) bool {
			own = append(own, key)
			return true
		})
		hot := own[:50]
		for range 3 {
			for _, key := range hot {
				m.read("n1", key)
			}
		}
		loads := m.o.loads.Load()
		m.unsee("n0", "n1", "n2")
		m.drain(5 * time.Second)
		m.gone()
		for _, key := range hot {
			m.read("n0", key)
		}
		m.loads(loads)
	})
}

// padded is a codec whose encoded values have 10 KiB.
type padded struct{}

func (padded) Name() string { return "padded" }
func (padded) Append(dst []byte, v simValue) ([]byte, error) {
	return append(dst, make([]byte, 10<<10)...), nil
}
func (padded) Decode([]byte) (simValue, error) { return simValue{}, nil }

// Fills in progress on a member that leaves are handed over as well, and the member does not take longer than
// necessary.
func TestLeaveWithFills(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newLeaving(t, Config[simValue]{})
		defer m.end()
		m.o.delay = func() time.Duration { return time.Second }
		key, unasked := m.moved(0), m.moved(1)
		for _, k := range []string{key, unasked} {
			go func() { _, _ = m.caches["n0"].Get(context.Background(), k) }()
		}
		time.Sleep(time.Second)
		m.unsee("n0", "n1", "n2")
		done := make(chan time.Duration, 1)
		go func() { done <- m.drain(10 * time.Second) }()
		synctest.Wait()
		m.read("n1", key)
		if took := <-done; took > 1200*time.Millisecond {
			t.Errorf("took %v", took)
		}
		m.gone()
		m.read("n1", key)
		m.read("n1", unasked)
		m.loads(2)
	})
}

// While views differ, a member that leaves answers with what it has, and no member loads.
func TestLeaveSeenByFew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newLeaving(t, Config[simValue]{Freshness: Freshness{TTL: time.Hour, NearTTL: -1, RefreshAhead: -1, Jitter: -1}})
		defer m.end()
		key := m.moved(0)
		m.read("n0", key)
		m.unsee("n2")
		m.setRule(func(string, string, codec.Kind, bool) hop { return hop{delay: time.Millisecond} })
		go m.drain(10 * time.Second)
		time.Sleep(time.Second)
		m.read("n0", key)
		m.read("n1", key)
		m.unsee("n1")
		m.read("n0", key)
		m.read("n1", key)
		m.unsee("n0")
		m.read("n0", key)
		m.loads(1)
	})
}

// newestMark returns the mark of the newest invalidation that j started.
func newestMark(j *journal.Journal) codec.Mark {
	for _, p := range j.Positions().Positions {
		if p.Incarnation == j.Incarnation() {
			return codec.Mark{Incarnation: p.Incarnation, Seq: p.Seq}
		}
	}
	return codec.Mark{}
}

// No push brings back a value that the receiver has invalidated, or invalidates while pushes are in transit.
func TestPushNeverBringsBackWhatWasInvalidated(t *testing.T) {
	for _, s := range []struct {
		name string
		do   func(t *testing.T, c *Cache[simValue], key string)
	}{
		{"key", func(t *testing.T, c *Cache[simValue], key string) { _ = c.Invalidate(t.Context(), key) }},
		{"tag", func(t *testing.T, c *Cache[simValue], _ string) { _ = c.InvalidateTag(t.Context(), "tag") }},
		{"all", func(t *testing.T, c *Cache[simValue], _ string) { _ = c.InvalidateAll(t.Context()) }},
	} {
		for _, when := range []string{"before", "with a request", "on the way"} {
			t.Run(s.name+" "+when, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					var o atomic.Pointer[simOrigin]
					m := newLeaving(t, Config[simValue]{InvalidateTimeout: 100 * time.Millisecond, Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
						f.Tag("tag")
						return o.Load().loader("any")(ctx, f)
					}, Freshness: Freshness{TTL: time.Hour, NearTTL: -1, RefreshAhead: -1, Jitter: -1}})
					o.Store(m.o)
					defer m.end()
					key := m.moved(0) // goes from n2 to n0
					m.read("n0", key)
					m.o.write(key)
					m.unsee("n0", "n1", "n2")
					lose := func(kinds ...codec.Kind) {
						m.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
							for _, k := range kinds {
								if kind == k {
									return hop{lost: true}
								}
							}
							if kind == codec.KindPush && answer {
								return hop{}
							}
							return hop{delay: time.Millisecond}
						})
					}
					switch when {
					case "before":
						lose(codec.KindInvalidate, codec.KindSync)
						s.do(t, m.caches["n0"], key)
						go m.drain(5 * time.Second)
					case "with a request":
						lose(codec.KindInvalidate, codec.KindSync)
						s.do(t, m.caches["n1"], key)
						hash := ring.Hash(key)
						if s.name == "key" {
							m.caches["n0"].own.Note(key, hash, newestMark(m.caches["n1"].own.Journal), 0)
						} else {
							s.do(t, m.caches["n0"], key)
						}
						go m.drain(5 * time.Second)
					case "on the way":
						go m.drain(5 * time.Second)
						m.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
							if kind == codec.KindPush {
								return hop{delay: 500 * time.Millisecond}
							}
							return hop{lost: kind == codec.KindInvalidate || kind == codec.KindSync}
						})
						time.Sleep(1250 * time.Millisecond) // the token is there, the copies are in transit
						s.do(t, m.caches["n0"], key)
					}
					time.Sleep(10 * time.Second)
					e := m.caches["n0"].own.Valid(key, ring.Hash(key), m.caches["n0"].own.Clock.Now())
					if e != nil {
						v, err := m.caches["n0"].values.decode(e.Value)
						if err != nil || v.Version != 1 {
							t.Errorf("%+v, %v", v, err)
						}
					}
					if p := m.caches["n2"].Stats().Pushed; p == 0 && when == "on the way" {
						t.Error("nothing was pushed: the test proves nothing")
					}
				})
			})
		}
	}
}
