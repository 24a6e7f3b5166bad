package tier

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
)

// replicaFresh is a contract with which every read reaches the owner and nothing expires during the test.
var replicaFresh = Freshness{TTL: time.Hour, NearTTL: -1, RefreshAhead: -1, Jitter: -1}

// spare is a cluster of three that is going to lose n2 or another member.
type spare struct {
	*moving
	keys []string // n2's in both views
}

func newSpare(t *testing.T, cfg Config[simValue], keys int) *spare {
	s := &spare{moving: newLeaving(t, cfg)}
	for i := 0; len(s.keys) < keys; i++ {
		if key := fmt.Sprintf("k%d", i); s.new.Owner(key).Name == "n2" {
			s.keys = append(s.keys, key)
		}
	}
	return s
}

// ask reads all keys from n0 and n1.
func (s *spare) ask() {
	s.t.Helper()
	for _, key := range s.keys {
		s.read("n0", key)
		s.read("n1", key)
	}
}

// holder returns the member that has the key's replica.
func (s *spare) holder(key string) *Cache[simValue] {
	to, _ := s.new.Successor(key)
	return s.caches[to.Name]
}

// other returns the name of the one of n0 and n1 that does not have the replica.
func (s *spare) other(key string) string {
	if to, _ := s.new.Successor(key); to.Name == "n0" {
		return "n1"
	}
	return "n0"
}

// push pushes what n2 would push in its next round.
func (s *spare) push(r *owner.Replicas) {
	r.Pace = &owner.Pacer{Rate: DefaultHandoffRate}
	s.caches["n2"].own.Replicate(r)
}

// A crash costs the origin no loads for hot keys, both before and after the members notice it.
func TestCrashWithReplicas(t *testing.T) {
	for _, n := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d", n), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newSpare(t, Config[simValue]{Replicas: n, Freshness: replicaFresh}, 40)
				defer s.end()
				began := time.Now()
				s.ask()
				time.Sleep(10 * time.Second)
				s.loads(40)
				own := s.caches["n0"].Stats().OwnedEntries + s.caches["n1"].Stats().OwnedEntries
				if own != 0 {
					t.Errorf("%d replicas count as owned", own)
				}
				s.gone()
				s.ask()
				want := int64(40)
				if n == 0 {
					want = 80
				}
				s.loads(want) // whichever member asks
				for _, key := range s.keys {
					if a := s.read("n0", key); n == 1 && (a.Age < time.Since(began) || a.Age > time.Since(began)+time.Second || a.Source != SourceOwned) {
						t.Fatalf("%+v after %v", a, time.Since(began))
					}
				}
				time.Sleep(time.Minute) // longer than the short lifetime of a stand-in's fill
				s.unsee("n0", "n1")
				s.ask()
				if n == 1 {
					s.loads(want)
				}
				var sum Stats
				for _, name := range []string{"n0", "n1"} {
					st := s.caches[name].Stats()
					sum.ReplicasKept, sum.ReplicasServed, sum.Replicas = sum.ReplicasKept+st.ReplicasKept, sum.ReplicasServed+st.ReplicasServed, sum.Replicas+st.Replicas
					sum.OwnedEntries += st.OwnedEntries
				}
				sent := s.caches["n2"].Stats().ReplicasSent
				if n == 1 && (sent != 40 || sum.ReplicasKept != 40 || sum.ReplicasServed != 3*40 || sum.OwnedEntries != 40 || sum.Replicas != 0) {
					t.Errorf("sent %d; %+v", sent, sum)
				}
				if n == 0 && (sent != 0 || sum.ReplicasKept != 0 || sum.ReplicasServed != 0) {
					t.Errorf("sent %d; %+v", sent, sum)
				}
				time.Sleep(10 * time.Second) // the new owners have successors of their own
				if got := s.caches["n0"].Stats().Replicas + s.caches["n1"].Stats().Replicas; got != 40*n {
					t.Errorf("%d replicas", got)
				}
			})
		})
	}
}

// What a replica holder does, and does not do, while it is asked instead of the owner.
func TestReplicaInTheOwnersPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := Freshness{TTL: 5 * time.Minute, NearTTL: time.Minute, RefreshAhead: 100, Jitter: -1}
		s := newSpare(t, Config[simValue]{Freshness: f}, 1)
		defer s.end()
		s.o.delay = func() time.Duration { return time.Second }
		key := s.keys[0]
		hash := ring.Hash(key)
		s.read("n0", key)
		s.read("n1", key)
		time.Sleep(time.Minute)
		loads := s.o.loads.Load()
		var r owner.Replicas
		s.push(&r)
		s.gone()
		synctest.Wait()
		h := s.holder(key)
		req := codec.Request{Kind: codec.KindGet, Flags: codec.FlagSuccessor, Namespace: h.own.NamespaceBytes, Schema: h.own.Config.Schema, View: s.new.Fingerprint(), Key: []byte(key)}
		for range 100 { // no refresh ahead
			var resp codec.Response
			if !newHandler(h).TryServe(&req, &resp) || resp.Status != codec.StatusValue || resp.Hard > owner.SuccessorTTL || resp.Soft > owner.SuccessorTTL || resp.Age < time.Minute {
				t.Fatalf("%+v", resp)
			}
		}
		var a answer[simValue]
		err := h.answerOwned(t.Context(), &request[simValue]{Lookup: owner.Lookup{Key: key, Hash: hash, MaxAge: AnyAge, Flags: codec.FlagSuccessor}}, &a)
		if now := h.own.Clock.Now(); err != nil || a.until > now+int64(owner.SuccessorTTL) || a.until <= now {
			t.Errorf("a lease of %v, %v", time.Duration(a.until-now), err)
		}
		synctest.Wait()
		s.loads(loads)
		if _, err := s.caches[s.other(key)].Read(t.Context(), key, ReadOptions{MaxAge: 0, NoFill: true}); !errors.Is(err, ErrNotCached) {
			t.Errorf("taken for the owner's word: %v", err)
		}
		if _, err := s.caches[s.other(key)].Read(t.Context(), key, ReadOptions{MaxAge: AnyAge, NoFill: true}); err != nil {
			t.Error(err)
		}
		if _, err := s.caches[s.other(key)].Read(t.Context(), key, ReadOptions{MaxAge: 30 * time.Second, NoFill: true}); !errors.Is(err, ErrNotCached) {
			t.Errorf("older than asked for: %v", err)
		}
		s.loads(loads)
		strict, err := s.caches[s.other(key)].Read(t.Context(), key, ReadOptions{MaxAge: 0})
		if err != nil || strict.Source != SourceFill {
			t.Errorf("%+v, %v", strict, err)
		}
		s.loads(loads + 1)
	})
}

// An invalidation ends replicas like any other copy.
func TestReplicaInvalidated(t *testing.T) {
	for name, invalidate := range map[string]func(ctx context.Context, c *Cache[simValue], key string) error{
		"key": func(ctx context.Context, c *Cache[simValue], key string) error { return c.Invalidate(ctx, key) },
		"tag": func(ctx context.Context, c *Cache[simValue], key string) error {
			return c.InvalidateTag(ctx, "of "+key)
		},
		"all": func(ctx context.Context, c *Cache[simValue], _ string) error { return c.InvalidateAll(ctx) },
		"at": func(ctx context.Context, c *Cache[simValue], key string) error {
			_, err := c.Apply(ctx, At(2, key))
			return err
		},
		"none": nil,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var loads int64
				cfg := Config[simValue]{Replicas: 1, Freshness: replicaFresh, Loader: func(_ context.Context, f *Fill[simValue]) (simValue, error) {
					f.Tag("of " + f.Key)
					loads++
					f.SetVersion(uint64(loads))
					return simValue{Version: loads}, nil
				}}
				s := newSpare(t, cfg, 1)
				defer s.end()
				key := s.keys[0]
				s.ask()
				time.Sleep(5 * time.Second)
				h := s.holder(key)
				if e := h.own.Valid(key, ring.Hash(key), h.own.Clock.Now()); e == nil || !e.Replica {
					t.Fatalf("no replica: %+v", e)
				}
				want := int64(1)
				if invalidate != nil {
					if err := invalidate(t.Context(), s.caches[s.other(key)], key); err != nil {
						t.Fatal(err)
					}
					want = 2
				}
				s.gone()
				if a := s.read(s.other(key), key); a.Value.Version != want {
					t.Errorf("%+v", a)
				}
			})
		})
	}
}

// A push that an invalidation overtakes is not kept.
func TestReplicaOvertaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSpare(t, Config[simValue]{Freshness: replicaFresh}, 1)
		defer s.end()
		key := s.keys[0]
		s.ask()
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			if kind == codec.KindPush {
				return hop{delay: 100 * time.Millisecond}
			}
			return hop{delay: time.Millisecond}
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			var r owner.Replicas
			s.push(&r)
		}()
		time.Sleep(250 * time.Millisecond) // the token has arrived, and the copy is being sent
		if err := s.caches["n0"].Invalidate(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		<-done
		h := s.holder(key)
		if st := h.Stats(); st.ReplicasKept != 0 || st.ReplicasRefused != 1 || st.Replicas != 0 {
			t.Errorf("%d kept, %d refused, %d there", st.ReplicasKept, st.ReplicasRefused, st.Replicas)
		}
		if e := h.own.Valid(key, ring.Hash(key), h.own.Clock.Now()); e != nil {
			t.Errorf("%+v", e)
		}
	})
}

// An entry that the owner has replaced is pushed again in the next round. Nothing else is pushed.
func TestReplicaReplaced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSpare(t, Config[simValue]{Replicas: 1, Freshness: replicaFresh}, 10)
		defer s.end()
		s.ask()
		time.Sleep(time.Minute)
		if n := s.caches["n2"].Stats().ReplicasSent; n != 10 {
			t.Errorf("%d sent", n)
		}
		key := s.keys[3]
		s.o.write(key)
		if _, err := s.caches["n0"].Refresh(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		if n := s.caches["n2"].Stats().ReplicasSent; n != 11 {
			t.Errorf("%d sent", n)
		}
		s.gone()
		loads := s.o.loads.Load()
		if a := s.read(s.other(key), key); a.Value.Version != 1 || a.Age > 5*time.Second {
			t.Errorf("%+v", a)
		}
		s.loads(loads)
	})
}

// An entry is not pushed if it has expired, if no caller asked for it, or if it expires while it waits for a token.
func TestReplicaNotOfTheExpired(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := replicaFresh
		f.TTL, f.StaleWhileRevalidate = time.Minute, time.Hour
		s := newSpare(t, Config[simValue]{Freshness: f}, 2)
		defer s.end()
		var r owner.Replicas
		once := s.keys[1]
		s.keys = s.keys[:1]
		s.ask()
		s.read("n0", once)
		sent := func(want int64) {
			t.Helper()
			s.push(&r)
			if n := s.caches["n2"].Stats().ReplicasSent; n != want {
				t.Errorf("%d sent, want %d", n, want)
			}
		}
		sent(1) // the control
		r = owner.Replicas{}
		time.Sleep(time.Minute - 10*time.Millisecond)
		s.setRule(func(string, string, codec.Kind, bool) hop { return hop{delay: 10 * time.Millisecond} })
		sent(1)
		s.setRule(nil)
		time.Sleep(time.Minute)
		sent(1)
	})
}

// Close does not wait for a member that does not answer.
func TestReplicaClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSpare(t, Config[simValue]{Replicas: 1, Freshness: replicaFresh}, 10)
		var pushes atomic.Int64
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			if kind == codec.KindPush && !answer {
				pushes.Add(1)
			}
			return hop{lost: kind == codec.KindPush, silent: true}
		})
		s.ask()
		time.Sleep(4 * time.Second) // a push is running
		began := time.Now()
		s.end()
		if took := time.Since(began); took > 0 || pushes.Load() == 0 {
			t.Errorf("took %v after %d pushes", took, pushes.Load())
		}
	})
}

// An entry that a successor could not take is pushed later, one that it has no room for is not, and the owner
// continues in any case.
func TestReplicaRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSpare(t, Config[simValue]{Replicas: 1, Codec: padded{}, OwnedBytes: 4 << 20, Freshness: replicaFresh}, 30)
		defer s.end()
		for _, name := range []string{"n0", "n1"} {
			if err := s.caches[name].Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			small := s.cfg
			small.OwnedBytes, small.Replicas = 200<<10, 0
			s.caches[name] = s.open(name, s.o, small)
		}
		time.Sleep(20 * time.Second)
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop { return hop{lost: kind == codec.KindPush} })
		s.ask()
		time.Sleep(10 * time.Second)
		if n := s.caches["n2"].Stats().ReplicasSent; n != 0 {
			t.Errorf("%d sent", n)
		}
		s.setRule(nil)
		time.Sleep(10 * time.Second)
		if n := s.caches["n2"].Stats().ReplicasSent; n != 30 {
			t.Errorf("%d sent", n)
		}
		var kept, refused int64
		for _, name := range []string{"n0", "n1"} {
			st := s.caches[name].Stats()
			kept, refused = kept+st.ReplicasKept, refused+st.ReplicasRefused
			if st.ReplicaBytes > 50<<10 || st.Replicas == 0 {
				t.Errorf("%s: %d bytes of %d replicas", name, st.ReplicaBytes, st.Replicas)
			}
		}
		if kept+refused != 30 || kept > 8 {
			t.Errorf("%d kept, %d refused", kept, refused)
		}
		s.ask()
		s.loads(30)
	})
}

// When a view gives a key another successor, its copy is pushed there. Every copy is pushed again after a while.
func TestReplicaFollowsTheView(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSpare(t, Config[simValue]{Freshness: replicaFresh}, 20)
		defer s.end()
		s.ask()
		var r owner.Replicas
		s.push(&r)
		sent := s.caches["n2"].Stats().ReplicasSent
		s.push(&r)
		if n := s.caches["n2"].Stats().ReplicasSent; n != sent || n != 20 {
			t.Errorf("%d sent, then %d", sent, n)
		}
		at0 := s.caches["n0"].Stats().Replicas
		moved := 0
		for _, key := range s.keys {
			if to, _ := s.new.Successor(key); to.Name == "n0" {
				moved++
			}
		}
		two := func() *ring.View { // with their present incarnations
			m := []ring.Member{s.new.Members()[1], s.new.Members()[2]}
			v, err := ring.New(m, ring.Config{Partitions: 61})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}()
		s.nodes["n1"].setView(two)
		s.nodes["n2"].setView(two)
		synctest.Wait()
		s.push(&r)
		if n := s.caches["n2"].Stats().ReplicasSent; at0 != moved || moved == 0 || n != sent+int64(moved) {
			t.Errorf("%d had n0 as their successor, %d were there, then %d sent", moved, at0, n-sent)
		}
		if n := s.caches["n1"].Stats().Replicas; n != 20 {
			t.Errorf("%d at n1", n)
		}
		time.Sleep(time.Duration(owner.ReplicaAgain))
		s.push(&r)
		if n := s.caches["n2"].Stats().ReplicasSent; n != sent+int64(moved)+20 {
			t.Errorf("%d sent again", n-sent-int64(moved))
		}
	})
}

// A leaving member hands off what it owns. It does not push, list or serve others' replicas.
func TestReplicaHolderLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSpare(t, Config[simValue]{Freshness: replicaFresh}, 0)
		defer s.end()
		var key string // n0's, with n2 as its successor
		for i := 0; key == ""; i++ {
			k := fmt.Sprintf("k%d", i)
			if to, _ := s.new.Successor(k); to.Name == "n2" && s.new.Owner(k).Name == "n0" {
				key = k
			}
		}
		s.read("n0", key)
		s.read("n0", key)
		r := owner.Replicas{Pace: &owner.Pacer{Rate: DefaultHandoffRate}}
		s.caches["n0"].own.Replicate(&r)
		if st := s.caches["n2"].Stats(); st.Replicas != 1 || st.OwnedEntries != 0 || st.OwnedBytes != 0 {
			t.Fatalf("%d replicas, %d entries, %d bytes", st.Replicas, st.OwnedEntries, st.OwnedBytes)
		}
		if list := s.caches["n2"].hotList(); len(list) != 0 {
			t.Errorf("listed: %v", list)
		}
		s.unsee("n0", "n1", "n2")
		s.drain(10 * time.Second)
		h := newHandler(s.caches["n2"])
		var resp codec.Response
		req := codec.Request{Kind: codec.KindGet, Namespace: h.c.own.NamespaceBytes, Schema: h.c.own.Config.Schema, View: 1, Key: []byte(key)}
		if !h.TryServe(&req, &resp) || resp.Status != codec.StatusMoved {
			t.Errorf("%+v", resp)
		}
		if list := s.caches["n2"].hotList(); len(list) != 0 {
			t.Errorf("listed: %v", list)
		}
		if n := s.caches["n2"].Stats().Pushed; n != 0 {
			t.Errorf("%d pushed", n)
		}
	})
}
