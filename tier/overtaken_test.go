package tier

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
)

// pair returns two nodes and a key that n1 owns and has a copy of. Answers to gets take 50 ms.
func pair(t *testing.T) (s *simNet, o *simOrigin, caches map[string]*Cache[simValue], key string) {
	s, o = newSim(t, 2), newOrigin()
	caches = s.start(o, Config[simValue]{})
	key = keyOf(s.nodes["n0"].View(), "n1", 0)
	if _, err := caches["n1"].Get(background, key); err != nil {
		t.Fatal(err)
	}
	s.setRule(func(_, _ string, kind codec.Kind, answer bool) hop {
		if kind == codec.KindGet && answer {
			return hop{delay: 50 * time.Millisecond}
		}
		return hop{}
	})
	return s, o, caches, key
}

// A read takes its stamp, is overtaken by a fence, and only then sends its request, which others can join. A read that
// begins after the invalidation must not join it.
func TestAskOvertakenByFence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o, caches, key := pair(t)
		defer s.stop(caches)
		c, hash := caches["n0"], ring.Hash(key)
		if err := exchange(c, "n1"); err != nil {
			t.Fatal(err)
		}
		known, stamp := c.own.Journal.Member("n1").Watermark(), c.own.Fences.Stamp(hash)
		least := o.seq.Add(1)
		apply(c, key, mark(1))
		var wg sync.WaitGroup
		wg.Go(func() {
			to, _ := s.nodes["n0"].View().Member("n1")
			var a answer[simValue]
			_, _ = c.callShared(background, &request[simValue]{Lookup: owner.Lookup{Key: key, Hash: hash, MaxAge: AnyAge}, stamp: stamp, known: known, to: to, view: s.nodes["n0"].View().Fingerprint()}, &a)
		})
		_ = pause(background, 10*time.Millisecond) // n1 has given its old copy
		apply(caches["n1"], key, mark(1))
		getsSince(t, c, key, least)
		wg.Wait()
	})
}

// The key's fence was forgotten early, so a request does not carry it: no caller may join that request.
func TestAskWithoutItsFence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o, caches, key := pair(t)
		defer s.stop(caches)
		c := caches["n0"]
		least := o.seq.Add(1)
		apply(c, key, mark(1))
		flood(c.own.Fences, key, 2*fence.PerShard)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Get(background, key) })
		_ = pause(background, 10*time.Millisecond) // n1 has given its old copy
		apply(caches["n1"], key, mark(1))
		for range 2 {
			getsSince(t, c, key, least)
		}
		wg.Wait()
		getsSince(t, c, key, least)
	})
}

// A read joins a flight after a fence was applied and before the fence detaches the flight. The read may return the
// value, but may not keep it as a near copy.
func TestJoinBeforeDetach(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 1), newOrigin()
		o.delay = func() time.Duration { return 20 * time.Millisecond }
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		c, key := caches["n0"], "k"
		hash := ring.Hash(key)
		var wg sync.WaitGroup
		get := func() { _, _ = c.Get(background, key) }
		wg.Go(get)
		synctest.Wait()
		least := o.seq.Add(1)
		at, _ := c.own.Fences.Apply(key, hash, mark(1), 0, func(bool) { c.own.Owned.Delete(key) })
		wg.Go(get)
		synctest.Wait()
		c.own.Flights.Detach(key, hash, at.Loads)
		c.calls.Detach(key, hash, at.Copies)
		wg.Wait()
		synctest.Wait()
		getsSince(t, c, key, least)
	})
}

// A flight found a copy; before the flight hands it out, the copy is fenced and the fence is forgotten. The flight must
// not hand it out.
func TestFlightHandsOutNothingForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 1), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		c, key := caches["n0"], "k"
		hash := ring.Hash(key)
		_, _ = c.Get(background, key)
		e := c.own.Valid(key, hash, c.own.Clock.Now())
		still := c.own.StillValid(&owner.Flight{Key: key, Hash: hash})
		if e == nil || !still(e) {
			t.Fatalf("%v is not valid", e)
		}
		c.own.Owned.Delete(key)
		if !still(e) {
			t.Error("what was evicted is no longer valid")
		}
		apply(c, key, mark(1))
		flood(c.own.Fences, key, 2*fence.PerShard)
		if c.own.Fences.Fenced(key, hash) {
			t.Fatal("the fence is still there")
		}
		if still(e) {
			t.Error("a copy from before the fence is valid")
		}
	})
}

// exchanged has an exchange with a member, so that no read needs one: n0 may have found that n1 had no cache yet.
func exchanged(t *testing.T, c *Cache[simValue], name string) {
	t.Helper()
	if err := exchange(c, name); err != nil {
		t.Fatal(err)
	}
}

// getsSince checks that a Get returns a value whose load did not begin before least, the moment of an invalidation.
func getsSince(t *testing.T, c *Cache[simValue], key string, least int64) {
	t.Helper()
	if v, err := c.Get(background, key); err != nil || v.Began < least {
		t.Errorf("%+v, %v: loaded before the invalidation at %d", v, err, least)
	}
}
