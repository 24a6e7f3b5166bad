package tier

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A newcomer takes its share when all say that their loads fit; it waits for the silent for a while, and for those whose loads do not
// fit without end.
func TestMayTake(t *testing.T) {
	const silentFor = 10 * time.Second
	for _, x := range []struct {
		words  []word
		waited time.Duration
		want   bool
	}{
		{nil, 0, true},
		{[]word{wordFits, wordFits}, 0, true},
		{[]word{wordFits, wordNone}, silentFor - 1, false},
		{[]word{wordFits, wordNone}, silentFor, true},
		{[]word{wordFits, wordBeyond}, time.Hour, false},
	} {
		if got := mayTake(x.words, x.waited, silentFor); got != x.want {
			t.Errorf("%v after %v: %v", x.words, x.waited, got)
		}
	}
}

// What is withheld is queued for, not refused, and a member whose loads are more than its share says so.
func TestWithheldShare(t *testing.T) {
	bubble(t, func(t *testing.T) {
		share, clock := 2, newClock(nil)
		g := newGovernor(Origin{Concurrency: 2, MinConcurrency: 2}.withDefaults(), clock.now, func() (int, int) { return share, 1 })
		defer g.close()
		g.withhold()
		got := make(chan *ticket, 2)
		for range 2 {
			go func() {
				k := new(ticket)
				if err := g.acquire(t.Context(), k); err != nil {
					t.Error(err)
				}
				got <- k
			}()
		}
		time.Sleep(time.Second)
		if len(got) != 0 || !g.fits() {
			t.Errorf("%d loads with a share that is withheld", len(got))
		}
		g.allow()
		first, second := <-got, <-got
		if share = 1; g.fits() {
			t.Error("two loads fit a share of one")
		}
		g.release(first, loadOK, 0)
		if !g.fits() {
			t.Error("one load does not fit a share of one")
		}
		g.release(second, loadOK, 0)
		if g.withhold(); g.snapshot().Limit != 1 {
			t.Error("a share that was taken is withheld")
		}
	})
}

// A fill that has read its share before the share fell, and comes to the governor after this node has said that its loads fit, does
// not begin by the old one.
func TestNoShareOlderThanTheWord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var share, slow atomic.Int64
		share.Store(2)
		clock := newClock(nil)
		g := newGovernor(Origin{Concurrency: 2, MinConcurrency: 2}.withDefaults(), clock.now, func() (int, int) {
			now := int(share.Load())
			if slow.CompareAndSwap(1, 0) {
				time.Sleep(time.Second)
			}
			return now, 1
		})
		defer g.close()
		first, second := new(ticket), &ticket{until: int64(time.Hour)}
		if err := g.acquire(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		slow.Store(1)
		got := make(chan error, 1)
		go func() { got <- g.acquire(t.Context(), second) }()
		synctest.Wait() // it has read two
		share.Store(1)
		if !g.fits() {
			t.Fatal("one load does not fit a share of one")
		}
		time.Sleep(2 * time.Second)
		if used, _ := g.look(); used != 1 || len(got) != 0 {
			t.Errorf("%d loads after the word that one fits", used)
		}
		g.release(first, loadOK, 0)
		if err := <-got; err != nil {
			t.Error(err)
		}
		g.release(second, loadOK, 0)
	})
}

// Of several caches with one origin each has to have its answer, one that closes excepted; and caches on another Cluster ask again.
func TestShareOfSeveralCaches(t *testing.T) {
	clock := newClock(nil)
	g := newGovernor(Origin{Concurrency: 2}.withDefaults(), clock.now, func() (int, int) { return 2, 1 })
	limit := func(want int, when string) {
		t.Helper()
		if got := g.snapshot().Limit; got != want {
			t.Errorf("%d permits %s, want %d", got, when, want)
		}
	}
	for range 2 { // on one cluster, then on another
		for range 3 {
			g.open()
			if !g.withhold() {
				t.Error("not withheld")
			}
		}
		limit(0, "before any answer")
		g.allow()
		limit(0, "with one answer of three")
		g.waive()
		limit(0, "with one answer of two")
		g.allow()
		limit(2, "with all answers")
		if g.open(); g.withhold() {
			t.Error("a share that was taken is withheld")
		}
		for range 4 {
			g.close()
		}
	}
	g.open()
	g.withhold()
	g.waive()
	limit(0, "with no answer at all")
	g.close()
}

// sharing is a node whose members take their shares by one another's words.
type sharing struct{ *simNode }

func (sharing) SharesMove() bool { return true }

// twin is a node whose name an earlier process has, too.
type twin struct{ sharing }

func (twin) EarlierStart() bool { return true }

// A process that had this node's name before may load by its old share, and is in no view: the newcomer waits as for a member that is silent.
func TestShareBesideAnEarlierStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 1), newOrigin()
		c, err := New(Config[simValue]{
			Cluster: twin{sharing{s.nodes["n0"]}}, Namespace: "sim", NearBytes: MinBytes, Loader: o.loader("n0"),
			Freshness: Freshness{TTL: time.Hour, NearTTL: time.Minute}, Origin: Origin{Concurrency: 4, Timeout: 3 * time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.stop(map[string]*Cache[simValue]{"n0": c})
		time.Sleep(3 * time.Second)
		if c.Stats().Governor.Limit > 0 {
			t.Error("the share is taken while loads of the earlier process may run")
		}
		time.Sleep(shareGrace + time.Second)
		if c.Stats().Governor.Limit == 0 {
			t.Error("the share is not taken")
		}
	})
}

// A member that has no cache of the namespace has no loads of it. But if caches share an origin, others than this one may load there: the newcomer
// waits as for a member that is silent.
func TestShareBesideOtherCachesOfTheOrigin(t *testing.T) {
	for _, shared := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 2), newOrigin()
			other := s.open("n0", o, Config[simValue]{Namespace: "other"})
			cfg := Config[simValue]{
				Cluster: sharing{s.nodes["n1"]}, Namespace: "sim", NearBytes: MinBytes, Loader: o.loader("n1"),
				Freshness: Freshness{TTL: time.Hour, NearTTL: time.Minute}, Origin: Origin{Concurrency: 4, Timeout: 3 * time.Second},
			}
			if shared {
				var err error
				if cfg.SharedOrigin, err = NewSharedOrigin("database", cfg.Origin); err != nil {
					t.Fatal(err)
				}
				cfg.Origin = Origin{}
			}
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.stop(map[string]*Cache[simValue]{"n0": other, "n1": c})
			time.Sleep(time.Second)
			if taken := c.Stats().Governor.Limit > 0; taken == shared {
				t.Errorf("shared %v: taken %v at once", shared, taken)
			}
			time.Sleep(3*time.Second + shareGrace)
			if c.Stats().Governor.Limit == 0 {
				t.Errorf("shared %v: the share is not taken", shared)
			}
		})
	}
}
