package tier

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
)

// tenMillis lets each frame take 5 ms, so that a request and its answer take 10.
func tenMillis(string, string, codec.Kind, bool) hop { return hop{delay: 5 * time.Millisecond} }

// throng runs n callers for the key on the cache: the first at once and the others within a millisecond. It returns
// how long the last one waited.
func throng(t *testing.T, c *Cache[simValue], key string, n int) time.Duration {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	var worst atomic.Int64
	for i := range n {
		wg.Go(func() {
			time.Sleep(time.Millisecond * time.Duration(i) / time.Duration(n))
			if v, err := c.Get(background, key); err != nil || v.Began == 0 {
				t.Errorf("%+v, %v", v, err)
			}
			for d := int64(time.Since(began)); ; {
				if old := worst.Load(); old >= d || worst.CompareAndSwap(old, d) {
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Duration(worst.Load())
}

// apart makes a cluster of three in which n0 has another view than n1. n1 owns the key in both views and has a copy,
// so its answers to n0 are private.
func apart(t *testing.T) (s *simNet, o *simOrigin, caches map[string]*Cache[simValue], key string) {
	s, o = newSim(t, 3), newOrigin()
	caches = s.start(o, Config[simValue]{})
	s.acquaint(caches)
	small := simView(t, "n0", "n1")
	for i := 0; key == ""; i++ {
		if k := keyOf(small, "n1", i); s.nodes["n1"].View().Owner(k).Name == "n1" {
			key = k
		}
	}
	time.Sleep(time.Minute) // no cache is new
	s.nodes["n0"].setView(small)
	gets(t, caches["n0"], key, 0)
	s.setRule(tenMillis)
	return s, o, caches, key
}

// While views differ, callers of one key on one node cost two requests, however many callers there are.
func TestPrivateAnswersAreShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o, caches, key := apart(t)
		defer s.stop(caches)
		before, loads := s.count("n0", "n1"), o.loads.Load()
		worst := throng(t, caches["n0"], key, 500)
		if n := s.count("n0", "n1") - before; n != 2 || worst > 25*time.Millisecond || o.loads.Load() != loads {
			t.Errorf("500 callers cost %d requests and %d loads, the last one waited for %v", n, o.loads.Load()-loads, worst)
		}
		if b := caches["n0"].near.Get(key); b != nil {
			t.Error("a private answer is kept near")
		}
	})
}

// A leaving node no longer receives invalidations: its callers share answers as others do while views differ.
func TestAnswersOfALeaverAreShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _, caches, key := apart(t)
		defer s.stop(caches)
		s.nodes["n0"].setView(s.nodes["n1"].View())
		caches["n0"].own.Leaving.Store(true)
		before := s.count("n0", "n1")
		worst := throng(t, caches["n0"], key, 500)
		if n := s.count("n0", "n1") - before; n != 2 || worst > 25*time.Millisecond {
			t.Errorf("500 callers cost %d requests, the last one waited for %v", n, worst)
		}
	})
}

// A read that began after a private answer was sent does not get that answer: the copy may have been invalidated
// since by a member that does not know this node.
func TestPrivateAnswerIsNotForLaterReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o, caches, key := apart(t)
		defer s.stop(caches)
		c := caches["n0"]
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Get(background, key) })
		wg.Go(func() { time.Sleep(time.Millisecond); _, _ = c.Get(background, key) })
		for round := range 4 { // the first answer is being sent in one round, the second in the next, and so on
			time.Sleep(7*time.Millisecond + time.Duration(min(round, 1))*3*time.Millisecond)
			least := o.seq.Add(1)
			apply(caches["n1"], key, mark(uint64(round)+1)) // n0 is told nothing
			wg.Go(func() {
				if v, err := c.Get(background, key); err != nil || v.Began < least {
					t.Errorf("round %d: %+v, %v: loaded before the invalidation at %d", round, v, err, least)
				}
			})
		}
		wg.Wait()
	})
}

// A caller that asks on behalf of the others and gives up costs them one more request.
func TestNextAskOutlivesItsLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _, caches, key := apart(t)
		defer s.stop(caches)
		c := caches["n0"]
		before := s.count("n0", "n1")
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Get(background, key) })
		synctest.Wait()
		short, cancel := context.WithTimeout(background, 12*time.Millisecond)
		defer cancel()
		var left, worst atomic.Int64
		for i := range 100 { // the first ones to wait are the first ones to wake, so one of them leads
			wg.Go(func() {
				ctx := background
				if i < 50 {
					ctx = short
				}
				_, err := c.Get(ctx, key)
				if i < 50 && err != nil {
					left.Add(1)
				} else if err != nil {
					t.Error(err)
				}
				worst.Store(max(worst.Load(), int64(time.Since(began))))
			})
			synctest.Wait()
		}
		wg.Wait()
		if n, d := s.count("n0", "n1")-before, time.Duration(worst.Load()); n > 3 || d > 35*time.Millisecond || left.Load() != 50 {
			t.Errorf("%d requests, %d callers left, the last of the others waited for %v", n, left.Load(), d)
		}
	})
}

// longOpen is longer than the first reads of a new cache wait for its exchanges.
const longOpen = 200 * time.Millisecond

// A copy is private if the previous owner cannot vouch for it. Callers of its key cost two requests to that owner.
func TestPrivateCopiesAreShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{})
		defer m.end()
		key := m.moved(0)
		m.read("n0", key)
		m.join() // unseen: n0 cannot vouch for what it gives
		time.Sleep(longOpen)
		m.setRule(tenMillis)
		before := m.count("n2", "n0")
		worst := throng(t, m.caches["n2"], key, 500)
		if n := m.count("n2", "n0") - before; n != 2 || worst > 25*time.Millisecond {
			t.Errorf("500 callers cost %d requests, the last one waited for %v", n, worst)
		}
		m.loads(1)
	})
}

// A read that began after a private copy was sent does not get that copy either.
func TestPrivateCopyIsNotForLaterReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{})
		defer m.end()
		key := m.moved(0)
		m.read("n0", key)
		m.join()
		time.Sleep(longOpen)
		m.setRule(tenMillis)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = m.caches["n2"].Get(background, key) })
		time.Sleep(7 * time.Millisecond) // n0 has given its copy
		least := m.o.seq.Add(1)
		apply(m.caches["n0"], key, mark(1)) // the sender of the invalidation does not know n2
		if v, err := m.caches["n2"].Get(background, key); err != nil || v.Began < least {
			t.Errorf("%+v, %v: loaded before the invalidation at %d", v, err, least)
		}
		wg.Wait()
	})
}

// A drilled read does not take the private result of a flight that it joins.
func TestDrillTakesNoPrivateCopy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 1), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		c, hash := caches["n0"], ring.Hash("k")
		gets(t, c, "k", 0)
		e := c.own.Valid("k", hash, c.own.Clock.Now())
		given := *e
		fl, _ := c.own.Flights.Join(hash, "k", true, nil, func() *owner.Flight {
			return &owner.Flight{Key: "k", Hash: hash, Done: make(chan struct{})}
		})
		time.AfterFunc(time.Millisecond, func() {
			c.own.Flights.Finish(fl, owner.Result{E: &given, Private: true}, c.own.StillValid(fl))
		})
		f, err := c.own.Refill(background, &owner.Lookup{Key: "k", Hash: hash, MaxAge: AnyAge})
		if err != nil || f.E != e {
			t.Errorf("%+v, %v", f, err)
		}
	})
}

// All callers that waited on an ask share its next ask. That includes a caller that wakes after the next ask has
// ended, and a caller whose read began after a fence that came later than the first of them.
func TestNextAskIsForAllThatWaited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _, caches, key := pair(t)
		defer s.stop(caches)
		c, hash := caches["n0"], ring.Hash(key)
		shard := &c.calls.shards[hash%64]
		reads := func() *request[simValue] {
			return &request[simValue]{Lookup: owner.Lookup{Key: key, Hash: hash, MaxAge: AnyAge}, stamp: c.own.Fences.Stamp(hash), wide: c.own.Fences.TagClock()}
		}
		end := func(w *call[simValue]) {
			shard.mu.Lock()
			defer shard.mu.Unlock()
			delete(shard.m, key)
			close(w.done)
		}
		one, two := reads(), reads()
		first, leads := c.joinCall(shard, one, nil)
		if w, again := c.joinCall(shard, two, nil); !leads || again || w != first {
			t.Fatal("two callers do not share an ask")
		}
		end(first)
		apply(c, key, mark(1))
		three := reads() // it joined first after that, which does not matter here
		next, leads := c.joinCall(shard, one, first)
		if !leads || next.stamp != c.own.Fences.Stamp(hash) {
			t.Errorf("the first caller leads the next ask: %v, at %d; the clock shows %d", leads, next.stamp, c.own.Fences.Stamp(hash))
		}
		end(next)
		for _, q := range []*request[simValue]{two, three} {
			if w, leads := c.joinCall(shard, q, first); leads || w != next {
				t.Error("a caller that wakes when the next has ended leads another")
			}
		}
	})
}

// The same for flights.
func TestNextFlightIsForAllThatWaited(t *testing.T) {
	flights := owner.NewFlights()
	join := func(before *owner.Flight) (*owner.Flight, bool) {
		return flights.Join(1, "k", true, before, func() *owner.Flight {
			return &owner.Flight{Key: "k", Hash: 1, Done: make(chan struct{})}
		})
	}
	first, _ := join(nil)
	if f, started := join(nil); started || f != first {
		t.Fatal("two callers do not share a flight")
	}
	flights.Finish(first, owner.Result{Private: true}, nil)
	next, started := join(first)
	if !started {
		t.Fatal("the first caller does not start the next flight")
	}
	flights.Finish(next, owner.Result{Private: true}, nil)
	if f, started := join(first); started || f != next {
		t.Error("a caller that wakes when the next has ended starts another")
	}
}
