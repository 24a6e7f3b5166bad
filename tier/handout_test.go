package tier

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// The tests in this file check that a value that is handed out once is not handed out, shared or kept near for longer
// than the rules allow.

// tagging returns a loader from o that gives every value the tag "t".
func tagging(o *simOrigin) Loader[simValue] {
	return func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
		f.Tag("t")
		return o.loader("any")(ctx, f)
	}
}

// A caller joins a flight between a fence and the detaching of the flight, and is the only caller left when the flight
// ends. Its near copy counts from the load, not from the caller's own start.
func TestJoinerOfFencedFlightKeepsNoNearCopy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := newOrigin()
		o.delay = func() time.Duration { return 20 * time.Millisecond }
		c, key := single(t, o, Config[simValue]{NearBytes: MinBytes}), "k"
		defer shut(t, c)
		hash := ring.Hash(key)
		ctx, leave := context.WithCancel(background)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Get(ctx, key) })
		synctest.Wait()
		least := o.seq.Add(1)
		at, _ := c.own.Fences.Apply(key, hash, mark(1), 0, func(bool) { c.own.Owned.Delete(key) })
		wg.Go(func() { _, _ = c.Get(background, key) })
		synctest.Wait()
		c.own.Flights.Detach(key, hash, at.Loads)
		leave()
		wg.Wait()
		synctest.Wait()
		if o.loads.Load() != 1 {
			t.Fatalf("%d loads: the second caller did not join", o.loads.Load())
		}
		getsSince(t, c, key, least)
	})
}

// A caller that comes after InvalidateTag has returned joins a request that began before: the answer is too old for it.
func TestJoinerOfRequestSeesItsTagInvalidated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{Loader: tagging(o)})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		gets(t, caches["n1"], key, 0)
		if err := exchange(caches["n0"], "n1"); err != nil {
			t.Fatal(err)
		}
		s.setRule(func(_, _ string, kind codec.Kind, answer bool) hop {
			if kind == codec.KindGet && answer {
				return hop{delay: 50 * time.Millisecond}
			}
			return hop{}
		})
		var wg sync.WaitGroup
		wg.Go(func() { gets(t, caches["n0"], key, 0) })
		time.Sleep(10 * time.Millisecond) // n1 has given its old copy
		o.write(key)
		if err := caches["n0"].InvalidateTag(background, "t"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			gets(t, caches["n0"], key, 1)
		}
		wg.Wait()
		gets(t, caches["n0"], key, 1)
	})
}

// A caller that comes after InvalidateTag has returned joins a load that began before: the result is too old for it.
func TestJoinerOfFlightSeesItsTagInvalidated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := newOrigin()
		o.delay = func() time.Duration { return 20 * time.Millisecond }
		c := single(t, o, Config[simValue]{Loader: tagging(o), NearBytes: MinBytes})
		defer shut(t, c)
		var wg sync.WaitGroup
		wg.Go(func() { gets(t, c, "k", 0) })
		time.Sleep(30 * time.Millisecond) // the load has read the version
		o.write("k")
		if err := c.InvalidateTag(background, "t"); err != nil {
			t.Fatal(err)
		}
		gets(t, c, "k", 1)
		wg.Wait()
		gets(t, c, "k", 1)
	})
}

// A copy that was found before a fence is not handed out after it.
func TestFlightHandsOutNoCopyThatIsNoLongerValid(t *testing.T) {
	flights := owner.NewFlights()
	start := func() *owner.Flight {
		f, _ := flights.Join(1, "k", true, nil, func() *owner.Flight {
			return &owner.Flight{Key: "k", Hash: 1, Done: make(chan struct{})}
		})
		return f
	}
	for _, valid := range []bool{false, true} {
		asked := func(*store.Entry) bool { return valid }
		copied := new(store.Entry)
		f := start()
		flights.Finish(f, owner.Result{E: copied, Err: errDown}, asked)
		<-f.Done
		if has := f.Res.E == copied; has != valid || f.Res.Err != errDown {
			t.Errorf("valid %v: a failed flight ended with %+v", valid, f.Res)
		}
		f = start()
		if skipped := flights.Skip(f, copied, asked); skipped != valid {
			t.Errorf("valid %v: skip = %v", valid, skipped)
		}
		if live := start() == f; live == valid {
			t.Errorf("valid %v: the flight is live: %v", valid, live)
		}
	}
}

// The copy that spares a flight its load is invalidated while the flight looks at it, at any point: the flight then
// loads.
func TestNeedlessFlightLoadsWhatIsInvalidatedMeanwhile(t *testing.T) {
	for n := range int64(4) {
		bubble(t, func(t *testing.T) {
			var stop stopper
			o := newOrigin()
			c := single(t, o, Config[simValue]{Now: stop.now})
			defer shut(t, c)
			gets(t, c, "k", 0)
			stop.at(n+1, func() { apply(c, "k", mark(1)) })
			f, err := c.own.Join(&owner.Joining{Lookup: owner.Lookup{Key: "k", Hash: ring.Hash("k")}, Class: governor.Miss, Cause: placement.Cold})
			if err != nil {
				t.Fatal(err)
			}
			<-f.Done
			if stop.ran() && o.loads.Load() != 2 {
				t.Errorf("look %d: %d loads: the flight ended with the old copy", n+1, o.loads.Load())
			}
		})
	}
}

// A read that is running when its node begins to leave keeps nothing near, because the others no longer tell the node
// of invalidations.
func TestReadKeepsNothingNearOnceItsNodeLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newLeaving(t, Config[simValue]{})
		defer m.end()
		key := m.stays()
		m.read("n0", key)
		m.slowAnswers(50 * time.Millisecond)
		var wg sync.WaitGroup
		wg.Go(func() { m.read("n2", key) })
		time.Sleep(10 * time.Millisecond) // n0 has answered, and sees n2
		wg.Go(func() { m.drain(time.Second) })
		wg.Wait()
		m.setRule(nil)
		m.unsee("n0", "n1", "n2")
		m.o.write(key)
		if err := m.caches["n1"].Invalidate(background, key); err != nil {
			t.Fatal(err)
		}
		gets(t, m.caches["n2"], key, 1)
	})
}

// Callers on a leaving node do not share a request, because nothing tells the node that the answer is outdated.
func TestCallersShareNoRequestOnceTheirNodeLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newLeaving(t, Config[simValue]{})
		defer m.end()
		key := m.stays()
		m.read("n0", key)
		m.unsee("n0", "n1", "n2")
		m.drain(time.Second)
		m.slowAnswers(50 * time.Millisecond)
		var wg sync.WaitGroup
		wg.Go(func() { gets(t, m.caches["n2"], key, 0) })
		time.Sleep(10 * time.Millisecond) // n0 has answered
		m.o.write(key)
		if err := m.caches["n1"].Invalidate(background, key); err != nil {
			t.Fatal(err)
		}
		gets(t, m.caches["n2"], key, 1)
		wg.Wait()
	})
}

// stays returns a key that n0 owns both with n2 and without it.
func (m *moving) stays() string {
	for i := 0; ; i++ {
		if key := keyOf(m.new, "n0", i); m.old.Owner(key).Name == "n0" {
			return key
		}
	}
}

// slowAnswers delays the members' answers to gets.
func (m *moving) slowAnswers(d time.Duration) {
	m.setRule(func(_, _ string, kind codec.Kind, answer bool) hop {
		if kind == codec.KindGet && answer {
			return hop{delay: d}
		}
		return hop{}
	})
}

// G6: the lease of a filled copy counts from the end of its load. If it counted from the beginning of the read, a slow
// load would leave no near copy; nor does it count from when the caller collects the value, after other keys of the
// same call.
func TestLeaseOfAFilledCopyCountsFromItsLoad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := single(t, newOrigin(), Config[simValue]{
			NearBytes: MinBytes,
			Freshness: Freshness{TTL: time.Hour, NearTTL: 2 * time.Second, RefreshAhead: -1, Jitter: -1},
			Origin:    Origin{Timeout: time.Minute},
			Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
				if f.Key == "slow" {
					return simValue{}, pause(ctx, 5*time.Second)
				}
				return simValue{}, nil
			},
		})
		defer shut(t, c)
		from := func(key string, want Source) {
			t.Helper()
			if a, err := c.Read(background, key, ReadOptions{MaxAge: AnyAge}); err != nil || a.Source != want {
				t.Errorf("%s after %v: %v, %v, want %v", key, time.Duration(c.own.Clock.Now()), a.Source, err, want)
			}
		}
		for _, keys := range [][]string{{"fast 1", "slow"}, {"slow", "fast 2"}} {
			if _, err := c.GetMany(background, keys); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // near copies become visible
			for _, key := range keys {
				if key != "slow" {
					from(key, SourceOwned)
				}
			}
			if err := c.Invalidate(background, "slow"); err != nil {
				t.Fatal(err)
			}
		}
		gets(t, c, "slow", 0)
		synctest.Wait()
		time.Sleep(2*time.Second - 1)
		from("slow", SourceNear)
		time.Sleep(time.Nanosecond)
		from("slow", SourceOwned)
	})
}
