package owner_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// hot plants an entry that was asked for.
func (c node) hot(key string, e store.Entry) *store.Entry {
	if e.Hard == 0 {
		e.Soft, e.SWR, e.Hard = 600*second, 600*second, 600*second
	}
	out := c.plant(key, e)
	c.Owned.Get(key)
	return out
}

func replicas() *owner.Replicas { return &owner.Replicas{Pace: &owner.Pacer{Rate: 1 << 40}} }

// An owner pushes what is hot and fresh to its successor: not what nobody asked for, not replicas, and not from a node that
// leaves, is isolated, or is not in the view.
func TestReplicate(t *testing.T) {
	for name, x := range map[string]struct {
		prep func(n *leaving, key string)
		want int64
	}{
		"hot": {func(n *leaving, key string) { n.a.node.hot(key, store.Entry{}) }, 1},
		"not wanted": {func(n *leaving, key string) {
			n.a.node.plant(key, store.Entry{Soft: second, SWR: second, Hard: second})
		}, 0},
		"stale": {func(n *leaving, key string) { n.a.node.hot(key, store.Entry{Soft: 0, SWR: second, Hard: second}) }, 0},
		"nearly so": {func(n *leaving, key string) {
			n.a.node.hot(key, store.Entry{Soft: int64(time.Millisecond), SWR: second, Hard: second})
		}, 1},
		"a replica": {func(n *leaving, key string) {
			n.a.node.hot(key, store.Entry{Replica: true, Soft: second, SWR: second, Hard: second})
		}, 0},
		"an absence": {func(n *leaving, key string) {
			n.a.node.hot(key, store.Entry{Flags: store.NotFound, Soft: second, SWR: second, Hard: second})
		}, 0},
		"another's":   {func(n *leaving, _ string) { n.a.node.hot(keyOf(n.before, "b", 0), store.Entry{}) }, 0},
		"leaving":     {func(n *leaving, key string) { n.a.node.hot(key, store.Entry{}); n.a.node.Leaving.Store(true) }, 0},
		"isolated":    {func(n *leaving, key string) { n.a.node.hot(key, store.Entry{}); n.a.node.Isolation.Cut.Store(true) }, 0},
		"not in view": {func(n *leaving, key string) { n.a.node.hot(key, store.Entry{}); n.show(n.after, n.a) }, 0},
		"no other":    {func(n *leaving, key string) { n.a.node.hot(key, store.Entry{}); n.show(viewOf(n.t, "a"), n.a) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newLeaving(t, constant, nil)
				key := keyOf(n.before, "a", 0)
				x.prep(n, key)
				r := replicas()
				if took := n.a.node.Replicate(r); took != 0 || n.a.node.Stats.ReplicasSent.Load() != x.want || n.a.node.Stats.Pushed.Load() != 0 {
					t.Fatalf("%d sent in %v, %d pushed", n.a.node.Stats.ReplicasSent.Load(), took, n.a.node.Stats.Pushed.Load())
				}
				if x.want == 0 {
					return
				}
				to, _ := n.before.Successor(key)
				got, ok := n.members[to.Name].node.Owned.Get(key)
				if !ok || !got.Replica || n.members[to.Name].node.Stats.ReplicasKept.Load() != 1 {
					t.Errorf("the successor has %+v", got)
				}
			})
		})
	}
}

// A copy is pushed again if it is a newer one, after ReplicaAgain, if the successor restarts, or if the push failed.
func TestReplicateAgain(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		n := newLeaving(t, constant, nil)
		a, key, r := n.a.node, keyOf(n.before, "a", 0), replicas()
		a.hot(key, store.Entry{})
		step := func(name string, want int64) {
			t.Helper()
			before := a.Stats.ReplicasSent.Load()
			if a.Replicate(r); a.Stats.ReplicasSent.Load() != before+want {
				t.Errorf("%s: %d sent", name, a.Stats.ReplicasSent.Load()-before)
			}
		}
		began := a.Clock.Now()
		step("first", 1)
		step("at once again", 0)
		time.Sleep(time.Duration(owner.ReplicaAgain - (a.Clock.Now() - began) - 1))
		step("just before ReplicaAgain", 0)
		time.Sleep(time.Nanosecond)
		step("after ReplicaAgain", 1)
		a.hot(key, store.Entry{Loaded: second})
		step("a newer copy", 1)
		var members []ring.Member
		for _, m := range n.before.Members() {
			m.Incarnation += 7
			members = append(members, m)
		}
		restarted, _ := ring.New(members, ring.Config{Partitions: 31})
		n.show(restarted, n.a, n.b, n.c)
		synctest.Wait()
		for _, m := range n.members {
			m.node.await(m.node.Journal.IsAcquainted)
		}
		step("the successor has restarted", 1)
		n.setMeddle(func(_, _ string, req *codec.Request, _ *codec.Response) (bool, error) {
			if req.Kind == codec.KindPush {
				return false, errDown
			}
			return false, nil
		})
		a.hot(key, store.Entry{Loaded: 2 * second})
		step("the push fails", 0)
		if n.count(codec.KindPush, "a", "b") > 0 && n.count(codec.KindPush, "a", "c") > 0 {
			t.Error("a replica goes through another member")
		}
		n.setMeddle(nil)
		step("after the failure", 1)
	})
}

// An owner keeps replicas of an eighth of its bytes, those that spare the origin most, and a successor takes a quarter.
func TestRoomForReplicas(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		const size = 10 << 10
		n := newLeaving(t, constant, func(s *setup) { s.OwnedBytes, s.ValueLimit = 1<<20, 1<<20 })
		a := n.a.node
		fits := 0
		for weight := int64(0); ; fits++ {
			key := keyOf(n.before, "a", fits)
			e := a.hot(key, store.Entry{Value: make([]byte, size), Cost: time.Duration(100-fits) * time.Second})
			if weight += store.Weight(key, e); weight > a.Config.OwnedBytes/8 {
				break
			}
		}
		for i := range 5 {
			a.hot(keyOf(n.before, "a", fits+1+i), store.Entry{Value: make([]byte, size), Cost: time.Second})
		}
		a.Replicate(replicas())
		if got := a.Stats.ReplicasSent.Load(); got != int64(fits) || fits < 10 {
			t.Errorf("%d sent, %d fit", got, fits)
		}
		for i := range fits {
			key := keyOf(n.before, "a", i)
			to, _ := n.before.Successor(key)
			if _, ok := n.members[to.Name].node.Owned.Get(key); !ok {
				t.Errorf("the successor lacks number %d", i)
			}
		}
	})
	simtime.Test(t, func(t *testing.T) {
		const small, large = 1 << 10, 64 << 10
		first, second := "k1", "k2" // replaced by keys of a; no longer than those
		room := store.Weight(first, &store.Entry{Value: make([]byte, small)}) + store.Weight(second, &store.Entry{Value: make([]byte, large)})
		n := newLeaving(t, constant, func(s *setup) { s.OwnedBytes, s.ValueLimit = 4*room, 1<<20 })
		first, second = keyOf(n.before, "a", 0), keyOf(n.before, "a", 1)
		if len(first) != 2 || len(second) != 2 {
			t.Fatal(first, second)
		}
		b := n.b.node
		resp := b.ask(background, &codec.Request{Kind: codec.KindPush, News: n.a.node.Journal.Positions()})
		spare := func(key string, size int) bool {
			kept := b.Stats.ReplicasKept.Load()
			b.ask(background, &codec.Request{Kind: codec.KindPush, Flags: codec.FlagSuccessor, Token: resp.Seq, News: &codec.News{},
				Pushed: []codec.Pushed{{Key: []byte(key), Value: make([]byte, size), Soft: time.Minute, Hard: time.Minute}}})
			return b.Stats.ReplicasKept.Load() > kept
		}
		if !spare(first, small) {
			t.Error("a small replica is not taken")
		}
		if spare(second, large+1) || b.Stats.ReplicasRefused.Load() != 1 {
			t.Error("more than a quarter is taken")
		}
		if !spare(second, large) {
			t.Error("a quarter is not taken")
		}
		time.Sleep(time.Millisecond)
		resp = b.ask(background, &codec.Request{Kind: codec.KindPush, News: n.a.node.Journal.Positions()})
		if !spare(second, large) {
			t.Error("a newer replica does not get the place of the older one")
		}
		own := keyOf(n.before, "b", 0)
		if !spare(own, large) {
			t.Error("this node's own key needs room among the replicas")
		}
		if e, _ := b.Owned.Get(own); e == nil || e.Replica {
			t.Errorf("an own key counts as a replica: %+v", e)
		}
	})
}

// A replica and what a stand-in owner filled become ordinary entries, with their full times, in a view that gives the node the key.
func TestAdopt(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		n := newLeaving(t, constant, nil)
		b := n.b.node
		replica, stood, other, dead := n.key("b", 0), n.key("b", 1), n.key("c", 0), n.key("b", 2)
		b.plant(replica, store.Entry{Value: []byte("v"), Replica: true, Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
		b.plant(other, store.Entry{Value: []byte("v"), Replica: true, Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
		b.plant(dead, store.Entry{Value: []byte("v"), Replica: true})
		f, err := b.GetOwnedFor(background, &owner.Lookup{Key: stood, Hash: ring.Hash(stood), MaxAge: owner.AnyAge, Flags: codec.FlagSuccessor})
		if err != nil || f.E.Hard != b.Clock.Now()+int64(owner.SuccessorTTL) || f.E.Soft != f.E.Hard || f.E.Full() == nil {
			t.Fatalf("%+v, %v", f.E, err)
		}
		began := b.Clock.Now()
		time.Sleep(time.Second)
		n.show(viewOf(t, "a", "b", "c"), n.b) // the same members once more: nothing changes
		synctest.Wait()
		if e, _ := b.Owned.Get(stood); e.Full() == nil {
			t.Errorf("%+v before the view gives b the key", e)
		}
		n.show(n.after, n.b)
		synctest.Wait()
		for key, want := range map[string]bool{replica: false, other: true, dead: true} {
			if e, ok := b.Owned.Get(key); !ok || e.Replica != want {
				t.Errorf("%s: %+v", key, e)
			}
		}
		if e, _ := b.Owned.Get(stood); e.Full() != nil || e.Soft != began+60*second || e.Hard != began+120*second {
			t.Errorf("%+v", e)
		}
	})
}

// With Replicas an owner pushes about every two seconds, without it never.
func TestKeepReplicas(t *testing.T) {
	for count, want := range map[int]bool{0: false, 1: true} {
		simtime.Test(t, func(t *testing.T) {
			n := newLeaving(t, constant, func(s *setup) { s.Replicas = count })
			a, key := n.a.node, keyOf(n.before, "a", 0)
			for i := range 20 {
				a.hot(key, store.Entry{Loaded: int64(i)})
				began, before := time.Now(), a.Stats.ReplicasSent.Load()
				for a.Stats.ReplicasSent.Load() == before && time.Since(began) < 3*time.Second {
					time.Sleep(10 * time.Millisecond)
				}
				if took := time.Since(began); want && i > 0 && (took < 1490*time.Millisecond || took > 2520*time.Millisecond) || !want && a.Stats.ReplicasSent.Load() != 0 {
					t.Errorf("pushed after %v", took)
				}
			}
		})
	}
}

// The keys that spare the origin most are those with the highest product of rate and cost, both with a floor.
func TestMostSparing(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, constant, nil)
		plant := func(key string, heat int, cost time.Duration, e store.Entry) {
			e.Cost, e.Soft, e.SWR, e.Hard = cost, 60*second, 60*second, 60*second
			c.plant(key, e)
			for range heat {
				c.Owned.Get(key)
			}
		}
		plant("three of a second", 3, time.Second, store.Entry{})     // 3/60
		plant("one of four seconds", 1, 4*time.Second, store.Entry{}) // 4/60
		plant("none of a minute", 0, time.Minute, store.Entry{})      // 60e-4
		plant("one of nothing", 1, 0, store.Entry{})                  // 1e-3/60
		plant("two of a millisecond", 2, time.Millisecond, store.Entry{})
		plant("absent", 3, time.Hour, store.Entry{Flags: store.NotFound})
		plant("not wanted", 3, time.Hour, store.Entry{Version: 9})
		order := []string{"one of four seconds", "three of a second", "none of a minute", "two of a millisecond", "one of nothing"}
		for most := range len(order) + 2 {
			asked := 0
			got := c.MostSparing(most+1, func(e *store.Entry, was bool) bool {
				if was {
					asked++
				}
				return e.Version == 0
			})
			if len(got) != min(most+1, len(order)) || asked != 5 {
				t.Errorf("%d of at most %d, %d were asked for", len(got), most+1, asked)
			}
			for i := range got {
				if got[i].Key != order[i] {
					t.Errorf("number %d is %q", i, got[i].Key)
				}
			}
		}
	})
}
