package tier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/governor"
)

func TestOtherContract(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := map[string]*Cache[simValue]{"n0": s.open("n0", o, Config[simValue]{})}
		defer s.stop(caches)
		// The same namespace with another type: its bytes must not be decoded here.
		other, err := New(Config[string]{
			Cluster: s.nodes["n1"], Namespace: "sim", Freshness: Freshness{TTL: time.Hour},
			Loader: ByKey(func(context.Context, string) (string, error) { return "text", nil }),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close(background)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		for range 3 {
			if v, err := caches["n0"].Get(background, key); err != nil || v.Node != "n0" {
				t.Errorf("%+v, %v", v, err)
			}
			if v, err := other.Get(background, key); err != nil || v != "text" {
				t.Errorf("%q, %v", v, err)
			}
		}
		if err := caches["n0"].Invalidate(background, key); err != nil || other.Stats().Fences != 1 {
			t.Errorf("%v: invalidations must reach another contract too", err)
		}
	})
}

func TestOwnerCloses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		o.delay = func() time.Duration { return 50 * time.Millisecond }
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		view := s.nodes["n0"].View()
		key := keyOf(view, "n1", 0)
		next, _ := view.Successor(key)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if v, err := caches["n0"].Get(background, key); err != nil || v.Node != next.Name {
					t.Errorf("%+v, %v: the owner closed meanwhile", v, err)
				}
			})
		}
		_ = pause(background, 20*time.Millisecond)
		if err := caches["n1"].Close(background); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if n := o.loads.Load(); n != 2 {
			t.Errorf("%d loads", n)
		}
	})
}

// Loaders that read one another's keys on other members get an error, not a deadlock.
func TestCycleAcrossMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSim(t, 3)
		view := s.nodes["n0"].View()
		keys := []string{keyOf(view, "n0", 0), keyOf(view, "n1", 0), keyOf(view, "n2", 0)}
		caches := make(map[string]*Cache[simValue])
		load := func(node string) Loader[simValue] {
			return func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
				i := slices.Index(keys, f.Key)
				return caches[node].Get(ctx, keys[(i+1)%len(keys)])
			}
		}
		for _, name := range s.names {
			caches[name] = s.open(name, nil, Config[simValue]{Loader: load(name)})
		}
		defer s.stop(caches)
		began := time.Now()
		if _, err := caches["n0"].Get(background, keys[1]); !errors.Is(err, ErrCycle) {
			t.Errorf("err = %v", err)
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("took %v", d)
		}
	})
}

// Data from peers is not trusted, and its bytes are not kept.
func TestServeGarbage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		c, to := caches["n1"], ring.Member{Name: "n1"}
		call := func(r codec.Request) (resp codec.Response) {
			t.Helper()
			r.Namespace, r.Schema = []byte("sim"), c.own.Config.Schema
			if err := s.nodes["n0"].Call(background, to, &r, &resp); err != nil {
				t.Fatal(err)
			}
			return resp
		}
		view := s.nodes["n0"].View().Fingerprint()
		if r := call(codec.Request{Kind: codec.KindGet, View: view}); r.Status != codec.StatusFailed || o.loads.Load() != 0 {
			t.Errorf("empty key: %+v, %d loads", r, o.loads.Load())
		}
		for _, key := range []string{"\x00", "\xff\xfe", strings.Repeat("k", codec.MaxKey)} {
			if r := call(codec.Request{Kind: codec.KindGet, View: view, Key: []byte(key)}); r.Status != codec.StatusValue {
				t.Errorf("%.5q: %+v", key, r)
			}
		}
		if r := call(codec.Request{Kind: codec.KindGet, View: 1, Key: []byte(keyOf(s.nodes["n0"].View(), "n0", 0))}); r.Status != codec.StatusMoved || string(r.Owner) != "n0" {
			t.Errorf("%+v: n0 is the owner", r)
		}
		if r := call(codec.Request{Kind: codec.KindInvalidate, News: invalidation(mark(1), []byte("\x00"))}); r.Status != codec.StatusDone {
			t.Errorf("%+v", r)
		}
		if r := call(codec.Request{Kind: codec.KindGet, View: view, Key: []byte("k"), Chain: make([]uint64, codec.MaxChain)}); r.Status != codec.StatusCycle {
			t.Errorf("%+v", r)
		}
		// A carried fence outlives the bytes in which it came.
		key := "a key that is carried"
		call(codec.Request{Kind: codec.KindGet, View: view, Key: []byte(key), Fence: mark(2)})
		if !c.own.Fences.Fenced(key, ring.Hash(key)) {
			t.Error("the fence was lost with the request's bytes")
		}
	})
}

func TestDivide(t *testing.T) {
	for limit := range 70 {
		for members := 1; members <= 40; members++ {
			sum, least, most := 0, limit, 0
			for rank := range members {
				part := governor.Divide(limit, members, rank)
				sum, least, most = sum+part, min(least, part), max(most, part)
			}
			if sum != limit || most-least > 1 {
				t.Fatalf("%d among %d: %d in all, from %d to %d", limit, members, sum, least, most)
			}
		}
	}
}

func TestShareFollowsDivisor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		for i, name := range s.names {
			s.nodes[name].divisor = [2]int{2, i}
		}
		caches := s.start(o, Config[simValue]{Origin: Origin{Concurrency: 1}})
		defer s.stop(caches)
		view := s.nodes["n0"].View()
		if _, err := caches["n0"].Get(background, keyOf(view, "n0", 0)); err != nil {
			t.Error(err)
		}
		_, err := caches["n0"].Get(background, keyOf(view, "n1", 0))
		var over *OverloadedError
		if !errors.As(err, &over) || over.RetryAfter <= 0 || !strings.Contains(fmt.Sprint(err), "n1") {
			t.Errorf("n1 has no share: %v", err)
		}
	})
}
