package tier

import (
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// A late result never replaces a newer one.

// A value that is put arrives after a fill has brought a later version that only the fill knows.
func TestLatePutDoesNotReplaceALaterVersion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		o.tell = func(version int64) uint64 { return uint64(version) + 7 }
		caches := s.start(o, Config[simValue]{NearBytes: -1})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		s.setRule(func(_, _ string, kind codec.Kind, answer bool) hop {
			if kind == codec.KindPut && !answer {
				return hop{delay: 50 * time.Millisecond}
			}
			return hop{}
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := caches["n0"].Put(background, key, simValue{Version: 99}, PutOptions{Version: 7}); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(10 * time.Millisecond)
		o.write(key)
		gets(t, caches["n1"], key, 1) // its version is 8
		wg.Wait()
		gets(t, caches["n1"], key, 1)
		if n := o.loads.Load(); n != 1 {
			t.Errorf("%d loads, want 1: the later version is gone", n)
		}
		if st := caches["n0"].Stats(); st.PutKept != 0 || st.PutRefused != 1 {
			t.Errorf("kept %d, refused %d", st.PutKept, st.PutRefused)
		}
	})
}

// The previous owner's copy may only be given to the caller that asked. Even that caller does not get it if this node
// has loaded a later copy and lost it.
func TestPrivateCopyNeverGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMoving(t, Config[simValue]{NearBytes: -1})
		defer m.end()
		key := m.moved(0)
		first := m.read("n0", key)
		time.Sleep(2 * time.Minute)
		m.join() // unseen: n0 cannot vouch for what it gives
		n2 := m.caches["n2"]
		if _, err := n2.Refresh(background, key); err != nil {
			t.Fatal(err)
		}
		own := m.read("n2", key)
		if own.Value.Began <= first.Value.Began {
			t.Fatalf("%+v, and then %+v: it was not loaded again", first, own)
		}
		asked := n2.Stats().PreviousAsked
		n2.own.Owned.Delete(key) // as if it had been evicted
		if a := m.read("n2", key); a.Value.Began < own.Value.Began {
			t.Errorf("%+v after %+v", a, own)
		}
		if n2.Stats().PreviousAsked == asked {
			t.Error("the previous owner was not asked")
		}
	})
}

// replace does nothing if the present entry is not the one that its caller saw.
func TestReplaceComparesFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := single(t, newOrigin(), Config[simValue]{})
		defer shut(t, c)
		hash := ring.Hash("k")
		gets(t, c, "k", 0)
		seen, _ := c.own.Owned.Get("k")
		newer, late := *seen, *seen
		c.own.Owned.Set("k", &newer)
		if c.own.Replace("k", hash, seen, &late) {
			t.Error("an entry that was not seen was replaced")
		}
		if now, _ := c.own.Owned.Get("k"); now != &newer {
			t.Error("the newer entry is gone")
		}
		if !c.own.Replace("k", hash, &newer, &late) {
			t.Error("the entry that was seen was not replaced")
		}
		if now, _ := c.own.Owned.Get("k"); now != &late {
			t.Error("the new entry is not there")
		}
		c.own.Owned.Delete("k")
		if c.own.Replace("k", hash, &late, seen) || c.own.Owned.Len() != 0 {
			t.Error("an entry that is gone came back")
		}
	})
}

// A failed refresh postpones the next refresh of its own copy only.
func TestPostponeLeavesALaterFillAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := single(t, newOrigin(), Config[simValue]{})
		defer shut(t, c)
		gets(t, c, "k", 0)
		seen, _ := c.own.Owned.Get("k")
		newer := *seen
		f := &owner.Flight{Key: "k", Hash: ring.Hash("k")}
		c.own.Postpone(f, seen, c.own.Clock.Now(), int64(time.Second), store.StaleError)
		late, _ := c.own.Owned.Get("k")
		if late == seen || late.Retry() == 0 {
			t.Errorf("%+v: not postponed", late)
		}
		c.own.Owned.Set("k", &newer) // a fill that ended in the meantime
		c.own.Postpone(f, late, c.own.Clock.Now(), int64(time.Second), store.StaleError)
		if now, _ := c.own.Owned.Get("k"); now != &newer {
			t.Error("a later fill was replaced by a copy from before it")
		}
	})
}

// A fill ends between the lookup and the commit of a copy that another member gave: the fill's later result stays.
func TestGivenCopyDoesNotReplaceALaterFill(t *testing.T) {
	for _, pushed := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			var stop stopper
			c := single(t, newOrigin(), Config[simValue]{Now: stop.now})
			defer shut(t, c)
			gets(t, c, "k", 0)
			here, _ := c.own.Owned.Get("k")
			c.own.Owned.Delete("k")
			time.Sleep(time.Minute)
			now, hash := c.own.Clock.Now(), ring.Hash("k")
			by := fence.Claim{Stamp: here.Stamp, Began: now, Handed: true}
			if pushed {
				_, w := c.own.Journal.Missing(new(codec.News))
				by.Pushed = w.Fences()
			}
			given, later := *here, *here
			given.Loaded, later.Loaded = now-2, now-1
			c.own.Loads = new(store.OwnLoads)
			stop.at(2, func() { c.own.Owned.Set("k", &later) }) // the first reading of the clock comes before the lookup
			kept := c.own.KeepGiven("k", hash, &given, by)
			if !stop.ran() {
				t.Fatal("the fill did not come between")
			}
			if has, _ := c.own.Owned.Get("k"); has != &later || kept != &later {
				t.Errorf("pushed %v: a copy of %d, a fill of %d: kept %+v", pushed, given.Loaded, later.Loaded, kept)
			}
			if kept = c.own.KeepGiven("k", hash, &given, by); kept != &later {
				t.Errorf("pushed %v: kept %+v", pushed, kept)
			}
		})
	}
}
