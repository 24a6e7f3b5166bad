package tier

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/counters"
)

// A multi-get that reuses the memory of an earlier one sees nothing of it.
func TestLotsEmpty(t *testing.T) {
	l := &multiGetPool[int]{seed: maphash.MakeSeed()}
	for _, n := range []int{300, 7, 0, 1000, 100} {
		m := l.get(nil, n)
		if len(m.reads)+len(m.order)+len(m.frames)+len(m.singles)+len(m.done) != 0 || m.view != nil || m.chain != nil || m.warming {
			t.Fatal("not empty")
		}
		for i := range n {
			if at := m.add(fmt.Sprint("key-", i)); at != i {
				t.Fatalf("key %d is at %d", i, at)
			}
		}
		for i := range n {
			if at := m.add(fmt.Sprint("key-", i)); at != i || len(m.reads) != n {
				t.Fatalf("key %d again: at %d of %d", i, at, len(m.reads))
			}
		}
		for i := range m.reads {
			r := m.reads[i]
			r.key, r.hash = "", 0
			if r != (keyRead[int]{}) {
				t.Fatalf("%+v is left", r)
			}
			m.reads[i].owner, m.reads[i].err, m.reads[i].answered = int32(i%5), errDown, true
		}
		of := m.sort(7, n)
		sorted := 0
		for owner := range 7 {
			for _, r := range of(owner) {
				if sorted++; int(r.owner) != owner {
					t.Fatalf("one of %d among those of %d", r.owner, owner)
				}
			}
		}
		if sorted != n {
			t.Fatalf("%d of %d have an owner", sorted, n)
		}
		m.singles, m.warming, m.chain = append(m.singles, m.order...), true, []uint64{1}
		m.frames = append(m.frames, frame[int]{reads: m.order})
		l.put(m)
	}
}

// Keys with the same hash in the table are told apart.
func TestLotsSameHash(t *testing.T) {
	l := &multiGetPool[int]{seed: maphash.MakeSeed()}
	m := l.get(nil, 2)
	if m.add("a") != 0 {
		t.Fatal("a is not the first")
	}
	m.reads[0].key = "b" // under a's hash
	if at := m.add("a"); at != 1 {
		t.Errorf("another key with the same hash is at %d", at)
	}
}

// GetMany counts what a Get of each key would count.
func TestGetManyCounts(t *testing.T) {
	counts := func(many bool) (out string) {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 3), newOrigin()
			caches := s.start(o, Config[simValue]{NearBytes: -1, Freshness: Freshness{TTL: time.Minute, StaleWhileRevalidate: time.Hour, NegativeTTL: time.Minute},
				Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
					switch f.Key[len(f.Key)-1] {
					case '3':
						return simValue{}, errDown
					case '4':
						return simValue{}, ErrNotFound
					}
					return simValue{}, pause(ctx, time.Millisecond)
				}})
			defer s.stop(caches)
			keys := keysNamed(100)
			c := caches["n0"]
			for round := range 4 {
				if round == 3 {
					pause(background, 2*time.Minute) // stale
				}
				if many {
					if got, err := c.GetMany(background, keys); len(got) != 80 || !errors.Is(err, errDown) {
						t.Errorf("%d values, %v", len(got), err)
					}
					continue
				}
				for _, key := range keys {
					_, _ = c.Get(background, key)
				}
			}
			st := c.Stats()
			out = fmt.Sprintf("owned %d, filled %d, errors %d, stale %d, asked %d", st.Owned, st.Fill, st.Errors, st.Stale, st.Asked)
			for _, from := range []string{"owned", "fill"} {
				out += fmt.Sprintf("; %s %d", from, st.Ages[from].Answers)
			}
			for _, name := range s.names {
				out += fmt.Sprintf("; %s served %d", name, caches[name].Stats().ServedPeers)
			}
			out += fmt.Sprintf("; %v reads", c.own.Demand.Reads())
		})
		return out
	}
	if one, all := counts(false), counts(true); one != all {
		t.Errorf("one by one: %s\nall at once: %s", one, all)
	}
}

func TestSomeAges(t *testing.T) {
	var one, all counters.Histogram
	var some counters.Batch
	for i, ns := range []int64{0, 5, 5e6, 5e6, 4.9e6, 7e9, 7e9, 1, 5e6} {
		one.Add(ns, 1)
		some.Add(&all, ns)
		if i == 5 {
			some.Flush(&all)
		}
	}
	some.Flush(&all)
	some.Flush(&all)
	if one.Snapshot() != all.Snapshot() || one.Max.Load() != all.Max.Load() {
		t.Error("not the same")
	}
}

// A request that is given back keeps nothing of what it asked for.
func TestWireEmpty(t *testing.T) {
	w := &wire{req: codec.Request{Key: []byte("k"), Many: []codec.Wanted{{Key: []byte("a"), Fence: codec.Mark{Seq: 1}}}}}
	many := w.req.Many
	w.empty()
	if many[0].Key != nil || many[0].Fence.Seq != 0 {
		t.Errorf("%+v is left", many[0])
	}
}

// A caller that ends ctx does not wait for owners that do not answer, and gets what other owners have answered.
func TestGetManyCancelled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{NearBytes: -1})
		defer s.stop(caches)
		keys := keysNamed(90)
		for range 3 { // every third request does not go through Send
			if got, err := caches["n0"].GetMany(background, keys); len(got) != 90 || err != nil {
				t.Fatalf("%d values, %v", len(got), err)
			}
			s.setRule(func(_, to string, _ codec.Kind, answer bool) hop {
				return hop{lost: to == "n1" && !answer, silent: true}
			})
			ctx, cancel := context.WithCancel(background)
			began := time.Now()
			time.AfterFunc(10*time.Millisecond, cancel)
			got, err := caches["n0"].GetMany(ctx, keys)
			if took := time.Since(began); took > 10*time.Millisecond || !errors.Is(err, context.Canceled) {
				t.Errorf("%v after %v", err, took)
			}
			for _, key := range keys {
				if _, ok := got[key]; ok == (s.nodes["n0"].View().Owner(key).Name == "n1") {
					t.Errorf("%s: there is a value: %v", key, ok)
				}
			}
			s.setRule(nil)
		}
	})
}
