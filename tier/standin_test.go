package tier

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// zoned returns a view of members in zones. zones maps names to zones.
func zoned(t *testing.T, zones map[string]string) *ring.View {
	t.Helper()
	var m []ring.Member
	for name, zone := range zones {
		m = append(m, ring.Member{Name: name, Addr: name + ":1", Zone: zone})
	}
	v, err := ring.New(m, ring.Config{Partitions: 61})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// lossAcrossZones is a cluster of four that is going to lose n1, with a key of n1's whose stand-in owner and next
// owner differ.
type lossAcrossZones struct {
	*simNet
	t           *testing.T
	o           *simOrigin
	caches      map[string]*Cache[simValue]
	key         string
	stood, next string
	without     *ring.View
}

func newLossAcrossZones(t *testing.T, f Freshness) *lossAcrossZones {
	l := &lossAcrossZones{simNet: newSim(t, 4), t: t, o: newOrigin()}
	all := zoned(t, map[string]string{"n0": "a", "n1": "a", "n2": "b", "n3": "b"})
	l.without = zoned(t, map[string]string{"n0": "a", "n2": "b", "n3": "b"})
	for _, n := range l.nodes {
		n.setView(all)
	}
	for i := 0; l.stood == l.next; i++ {
		l.key = fmt.Sprintf("k%d", i)
		if all.Owner(l.key).Name == "n1" {
			stood, _ := all.Successor(l.key)
			l.stood, l.next = stood.Name, l.without.Owner(l.key).Name
		}
	}
	l.caches = l.start(l.o, Config[simValue]{Freshness: f})
	l.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n1" || to == "n1"} })
	return l
}

// lose takes n1 out of the views.
func (l *lossAcrossZones) lose() {
	for name, n := range l.nodes {
		if name != "n1" {
			n.setView(l.without)
		}
	}
	synctest.Wait()
}

// read reads the key on all remaining members, the next owner first, and expects this many loads in total.
func (l *lossAcrossZones) read(want int64) {
	l.t.Helper()
	for _, name := range []string{l.next, "n0", "n2", "n3"} {
		if _, err := l.caches[name].Read(background, l.key, ReadOptions{MaxAge: AnyAge}); err != nil {
			l.t.Fatal(err)
		}
	}
	if n := l.o.loads.Load(); n != want {
		l.t.Errorf("%d loads, want %d", n, want)
	}
}

var minutely = Freshness{TTL: 2 * time.Minute, NearTTL: time.Second, Jitter: -1, RefreshAhead: -1}

// The next owner gets what the stand-in owner has filled, with its full lifetime, even if the stand-in owner itself
// no longer keeps it.
func TestStandInGivesToOwner(t *testing.T) {
	for _, wait := range []time.Duration{0, owner.SuccessorTTL + time.Second, 50 * time.Second} {
		bubble(t, func(t *testing.T) {
			l := newLossAcrossZones(t, minutely)
			defer l.stop(l.caches)
			l.read(1)
			if s := l.caches[l.stood].Stats(); s.OwnedEntries != 1 {
				t.Fatalf("%s does not stand in", l.stood)
			}
			_ = pause(background, wait)
			l.lose()
			l.read(1)
			if s := l.caches[l.next].Stats(); s.PreviousAsked != 1 || s.PreviousHits != 1 || s.LoadsBy["owner_lost"] != 0 {
				t.Errorf("%s asked %d times, %d times for something; loads %v", l.next, s.PreviousAsked, s.PreviousHits, s.LoadsBy)
			}
			_ = pause(background, time.Minute)
			l.read(1)
			_ = pause(background, time.Minute)
			l.read(2)
		})
	}
}

// What the stand-in owner loaded long ago, when the owner could not be reached for a while, is neither given nor
// adopted.
func TestStandInOfLongAgo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLossAcrossZones(t, minutely)
		defer l.stop(l.caches)
		l.read(1)
		_ = pause(background, time.Duration(store.StandInFor))
		l.lose()
		l.read(2)
	})
}

// An invalidation during the stand-in also holds for what the stand-in owner gives.
func TestStandInInvalidated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLossAcrossZones(t, minutely)
		defer l.stop(l.caches)
		l.read(1)
		l.o.write(l.key)
		_ = l.caches["n0"].Invalidate(background, l.key) // n1 is not reached
		l.lose()
		l.read(2)
	})
}

// A stand-in owner that does not answer, or has no copy, costs one short wait, and no wait at the next read of the
// key.
func TestStandInSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLossAcrossZones(t, minutely)
		defer l.stop(l.caches)
		l.read(1)
		l.setRule(func(from, to string, _ codec.Kind, _ bool) hop {
			silent := from == l.stood || to == l.stood
			return hop{lost: from == "n1" || to == "n1" || silent, silent: silent}
		})
		l.lose()
		for _, limit := range []time.Duration{owner.PreviousWait, 0} {
			began := time.Now()
			if _, err := l.caches[l.next].Read(background, l.key, ReadOptions{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != limit {
				t.Errorf("took %v, want %v", took, limit)
			}
			if n := l.o.loads.Load(); n != 2 {
				t.Errorf("%d loads", n)
			}
			l.key = l.another()
			l.o.loads.Store(1)
		}
	})
}

// another returns another key with the same stand-in owner and next owner.
func (l *lossAcrossZones) another() string {
	all := zoned(l.t, map[string]string{"n0": "a", "n1": "a", "n2": "b", "n3": "b"})
	for i := 0; ; i++ {
		key := fmt.Sprintf("k%d", i)
		stood, _ := all.Successor(key)
		if key != l.key && all.Owner(key).Name == "n1" && stood.Name == l.stood && l.without.Owner(key).Name == l.next {
			return key
		}
	}
}

// orderly is a node that sees all members leave in order.
type orderly struct{ *simNode }

func (orderly) Lost(string) bool { return false }

// A member that leaves in order has no stand-in owner.
func TestStandInNotForWhoLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLossAcrossZones(t, minutely)
		defer l.stop(l.caches)
		if err := l.caches[l.next].Close(background); err != nil {
			t.Fatal(err)
		}
		var err error
		if l.caches[l.next], err = New(Config[simValue]{
			Cluster: orderly{l.nodes[l.next]}, Namespace: "sim", NearBytes: MinBytes, Loader: l.o.loader(l.next), Freshness: minutely,
		}); err != nil {
			t.Fatal(err)
		}
		l.read(1)
		l.lose()
		l.read(2)
		if s := l.caches[l.stood].Stats(); s.Given != 0 {
			t.Errorf("%d copies given", s.Given)
		}
	})
}

// The stand-in owner itself becomes the owner: what it filled counts as its own with its full lifetime, even if it
// has just ended there.
func TestStandInKeepsAsOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 4), newOrigin()
		caches := s.start(o, Config[simValue]{Freshness: minutely})
		defer s.stop(caches)
		view := s.nodes["n0"].View()
		key := keyOf(view, "n1", 0)
		next, _ := view.Successor(key)
		s.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n1" || to == "n1"} })
		read := func(want int64) {
			t.Helper()
			if _, err := caches[next.Name].Get(background, key); err != nil || o.loads.Load() != want {
				t.Errorf("%d loads, want %d; %v", o.loads.Load(), want, err)
			}
		}
		read(1)
		_ = pause(background, owner.SuccessorTTL+time.Second)
		without := simView(t, slices.DeleteFunc(slices.Clone(s.names), func(name string) bool { return name == "n1" })...)
		for _, name := range s.names {
			if name != "n1" {
				s.nodes[name].setView(without)
			}
		}
		synctest.Wait()
		read(1)
		_ = pause(background, 2*time.Minute)
		read(2)
	})
}
