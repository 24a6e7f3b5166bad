package tier

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
)

// single makes a cache without a cluster.
func single(t *testing.T, o *simOrigin, cfg Config[simValue]) *Cache[simValue] {
	t.Helper()
	if cfg.Loader == nil {
		cfg.Loader = o.loader("alone")
	}
	if cfg.Freshness.TTL == 0 {
		cfg.Freshness = Freshness{TTL: time.Hour, NearTTL: time.Minute, RefreshAhead: -1, Jitter: -1}
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func shut(t *testing.T, c *Cache[simValue]) {
	t.Helper()
	if err := c.Close(background); err != nil {
		t.Error(err)
	}
}

// gets reads key from c and requires that version of it.
func gets(t *testing.T, c *Cache[simValue], key string, version int64) {
	t.Helper()
	if v, err := c.Get(background, key); err != nil || v.Version != version {
		t.Errorf("%s: %+v, %v, want version %d", c.own.Self, v, err, version)
	}
}

func TestTokenText(t *testing.T) {
	for _, want := range []Token{{}, {1, codec.Mark{Incarnation: 2, Seq: 3}}, {1<<64 - 1, codec.Mark{Incarnation: 1<<64 - 1, Seq: 1<<64 - 1}}} {
		got := Token{9, mark(9)}
		text, _ := want.MarshalText()
		if err := got.UnmarshalText(text); err != nil || got != want || string(text) != want.String() {
			t.Errorf("%+v: %q, %+v, %v", want, text, got, err)
		}
	}
	good := Token{1, mark(1)}.String()
	for _, bad := range []string{"x", good[:10], good + "A", good + "AA", strings.Repeat("A", 50), "AAAAAAAAAAAAAAAAAAAAAAA", good[:len(good)-1] + "!"} {
		got := Token{9, mark(9)}
		if err := got.UnmarshalText([]byte(bad)); !errors.Is(err, ErrBadToken) || got != (Token{9, mark(9)}) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add([]byte(Token{1, mark(1)}.String()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		var tok Token
		if tok.UnmarshalText(text) != nil {
			return
		}
		var again Token
		if err := again.UnmarshalText([]byte(tok.String())); err != nil || again != tok {
			t.Errorf("%q: %+v, then %+v, %v", text, tok, again, err)
		}
	})
}

// A token makes reads fresh on a member that has not heard of the invalidation, and in a process outside the cluster.
func TestReadAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		cfg := Config[simValue]{InvalidateTimeout: 200 * time.Millisecond}
		caches := s.start(o, cfg)
		defer s.stop(caches)
		lone := single(t, o, Config[simValue]{Namespace: "sim"})
		defer shut(t, lone)
		key := keyOf(s.nodes["n0"].View(), "n2", 0)
		reads := []*Cache[simValue]{caches["n0"], caches["n1"], caches["n2"], lone}
		for _, c := range reads {
			gets(t, c, key, 0)
		}
		o.write(key)
		// No member hears of it.
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			return hop{lost: kind != codec.KindGet && from == "n0"}
		})
		token, err := caches["n0"].Apply(background, Change{Keys: []string{key}})
		var unreached *InvalidateError
		if !errors.As(err, &unreached) || len(unreached.Unreached) != 2 || token.zero() {
			t.Fatalf("%v, token %v", err, token)
		}
		if a, err := caches["n1"].Read(background, key, ReadOptions{MaxAge: AnyAge}); err != nil || a.Value.Version != 0 {
			t.Fatalf("%+v, %v: the rule of this test does not hold", a, err)
		}
		for _, c := range reads {
			a, err := c.Read(background, key, ReadOptions{MaxAge: AnyAge, After: token})
			if err != nil || a.Value.Version != 1 {
				t.Errorf("%s: %+v, %v", c.own.Self, a, err)
			}
			loads := o.loads.Load()
			a, err = c.Read(background, key, ReadOptions{MaxAge: AnyAge, After: token})
			if err != nil || a.Value.Version != 1 || o.loads.Load() != loads {
				t.Errorf("%s, again: %+v, %v, %d loads", c.own.Self, a, err, o.loads.Load()-loads)
			}
		}
		other := Token{namespace: 1, mark: mark(1)}
		if _, err := lone.Read(background, key, ReadOptions{After: other}); !errors.Is(err, ErrBadToken) {
			t.Errorf("a token of another namespace: %v", err)
		}
		s.setRule(nil)
	})
}

// A fill that is older than the version that an invalidation reported is served but not kept, wherever it is requested.
func TestAt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		var lag uint64
		o.tell = func(v int64) uint64 { return uint64(v) + 10 - lag }
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n2", 0)
		gets(t, caches["n0"], key, 0) // version 10
		o.write(key)
		lag = 1 // the replica lags by one version
		if _, err := caches["n1"].Apply(background, At(11, key)); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			loads := o.loads.Load()
			for _, c := range caches {
				gets(t, c, key, 1)
			}
			if n := o.loads.Load() - loads; n != 3 {
				t.Errorf("round %d: %d loads for 3 reads", i, n)
			}
		}
		if n := caches["n2"].own.Stats.Results[counters.ResultBehind].Load(); n != 9 {
			t.Errorf("%d fills were behind", n)
		}
		lag = 0
		loads := o.loads.Load()
		for range 2 {
			for _, c := range caches {
				gets(t, c, key, 1)
			}
		}
		if n := o.loads.Load() - loads; n != 1 {
			t.Errorf("%d loads after the replica has caught up", n)
		}
	})
}

// A version takes effect even if it arrives after a request that carried the mark.
func TestVersionAfterMark(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := newOrigin()
		o.tell = func(int64) uint64 { return 5 }
		c := single(t, o, Config[simValue]{})
		defer shut(t, c)
		c.own.Note("k", ring.Hash("k"), mark(1), 0)
		gets(t, c, "k", 0)
		owner.Copies{C: &c.own}.FenceKey("k", ring.Hash("k"), mark(1), 6)
		if e, ok := c.own.Owned.Get("k"); ok {
			t.Errorf("kept: %+v", e)
		}
		owner.Copies{C: &c.own}.FenceKey("k", ring.Hash("k"), mark(1), 6)
		if !c.own.Fences.Behind("k", ring.Hash("k"), 5) || c.own.Fences.Behind("k", ring.Hash("k"), 6) {
			t.Error("the version is not known")
		}
	})
}

func TestApplyRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := single(t, newOrigin(), Config[simValue]{})
		for _, ch := range []Change{{Keys: []string{"a", ""}}, {Tags: []string{""}}, {Keys: []string{strings.Repeat("k", codec.MaxKey+1)}, All: true}} {
			if tok, err := c.Apply(background, ch); err == nil || !tok.zero() {
				t.Errorf("%+v: %v, %v", ch, tok, err)
			}
		}
		if n := c.Stats().Fences; n != 0 {
			t.Errorf("%d fences although all was refused", n)
		}
		if tok, err := c.Apply(background, Change{}); err != nil || !tok.zero() {
			t.Errorf("nothing: %v, %v", tok, err)
		}
		shut(t, c)
		if _, err := c.Apply(background, At(1, "k")); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// Versions of two keys are independent: the version known of one key, even after its fence was forgotten, does not keep
// a value of another key from being kept, and still keeps an older value of its own key from being kept.
func TestVersionsAreOfOneKey(t *testing.T) {
	for name, forget := range map[string]func(c *Cache[simValue]){
		"everything invalidated": func(c *Cache[simValue]) {
			if err := c.InvalidateAll(background); err != nil {
				t.Fatal(err)
			}
		},
		"more fences than there is room for": func(c *Cache[simValue]) {
			for i := range uint64(fence.Slots * fence.PerShard / fence.SlotsPerShard) {
				c.own.Fences.Apply(fmt.Sprint("other", i), ring.Hash(fmt.Sprint(i)), mark(i+1), 0, nothing)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := newOrigin()
				o.tell = func(version int64) uint64 { return uint64(version) + 1 }
				c := single(t, o, Config[simValue]{})
				defer shut(t, c)
				for i := range 2000 { // rows that were written often, some in each shard
					if _, err := c.Apply(background, At(1000, fmt.Sprint("busy", i))); err != nil {
						t.Fatal(err)
					}
				}
				forget(c)
				before := o.loads.Load()
				for range 20 {
					gets(t, c, "quiet", 0)
					_ = pause(background, 100*time.Millisecond)
				}
				if n := o.loads.Load() - before; n != 1 {
					t.Errorf("%d loads for 20 gets of a key that nobody has written", n)
				}
				before = o.loads.Load()
				for range 5 {
					gets(t, c, "busy7", 0)
				}
				if n := o.loads.Load() - before; n != 5 {
					t.Errorf("%d loads for 5 gets of a key whose replica lags: an old version was kept", n)
				}
			})
		})
	}
}
