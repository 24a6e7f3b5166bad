package tier

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
)

// Every member's next read returns a value that was put, without a load.
func TestPut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		for i, putter := range s.names {
			key := keyOf(s.nodes["n0"].View(), "n2", i)
			for _, c := range caches {
				gets(t, c, key, 0)
			}
			o.write(key)
			loads := o.loads.Load()
			if err := caches[putter].Put(background, key, simValue{Version: 1}, PutOptions{Version: 7, Tags: []string{putter}}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				for _, c := range caches {
					gets(t, c, key, 1)
				}
			}
			if n := o.loads.Load() - loads; n != 0 {
				t.Errorf("put by %s: %d loads", putter, n)
			}
			if err := caches["n1"].InvalidateTag(background, putter); err != nil {
				t.Fatal(err)
			}
			gets(t, caches["n0"], key, 1)
			if n := o.loads.Load() - loads; n != 1 {
				t.Errorf("after its tag: %d loads", n)
			}
			if st := caches[putter].Stats(); st.PutKept != 1 || st.PutRefused != 0 {
				t.Errorf("%s: kept %d, refused %d", putter, st.PutKept, st.PutRefused)
			}
		}
	})
}

// The owner does not keep a value if a newer one may exist.
func TestPutInDoubt(t *testing.T) {
	for name, c := range map[string]struct {
		before func(t *testing.T, c *Cache[simValue])
		kept   bool
	}{
		"nothing":                   {func(*testing.T, *Cache[simValue]) {}, true},
		"a lower version":           {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, At(6, "k")) }, true},
		"the same version":          {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, At(7, "k")) }, true},
		"a higher version":          {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, At(8, "k")) }, false},
		"no version":                {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, At(0, "k")) }, false},
		"no version, another key":   {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, At(0, "l")) }, true},
		"everything":                {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, Change{All: true}) }, false},
		"its tag":                   {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, Change{Tags: []string{"t"}}) }, false},
		"another tag":               {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, Change{Tags: []string{"u"}}) }, true},
		"a put of a higher version": {func(t *testing.T, c *Cache[simValue]) { put0(t, c, 8) }, false},
		"a put of a lower version":  {func(t *testing.T, c *Cache[simValue]) { put0(t, c, 6) }, true},
		"a fill of a higher version": {func(t *testing.T, c *Cache[simValue]) {
			gets(t, c, "k", 0)
			apply0(t, c, At(8, "k"))
			gets(t, c, "k", 0)
		}, false},
		"no version, long ago":        {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, At(0, "k")); wait(c) }, true},
		"its tag, long ago":           {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, Change{Tags: []string{"t"}}); wait(c) }, true},
		"everything, long ago":        {func(t *testing.T, c *Cache[simValue]) { apply0(t, c, Change{All: true}); wait(c) }, true},
		"too many others at its side": {func(t *testing.T, c *Cache[simValue]) { overflow(c) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := newOrigin()
				o.tell = func(v int64) uint64 { return 8 }
				k := single(t, o, Config[simValue]{})
				defer shut(t, k)
				c.before(t, k)
				before := k.Stats()
				if err := k.Put(background, "k", simValue{Version: 99}, PutOptions{Version: 7, Tags: []string{"t"}}); err != nil {
					t.Fatal(err)
				}
				after := k.Stats()
				if kept := after.PutKept-before.PutKept == 1; kept != c.kept || kept == (after.PutRefused-before.PutRefused == 1) {
					t.Errorf("kept %v", kept)
				}
				a, err := k.Read(background, "k", ReadOptions{MaxAge: AnyAge, NoFill: true})
				if kept := err == nil && a.Value.Version == 99; kept != c.kept {
					t.Errorf("%+v, %v", a, err)
				}
			})
		})
	}
}

func apply0(t *testing.T, c *Cache[simValue], ch Change) {
	t.Helper()
	if _, err := c.Apply(background, ch); err != nil {
		t.Fatal(err)
	}
}

func put0(t *testing.T, c *Cache[simValue], version uint64) {
	t.Helper()
	if err := c.Put(background, "k", simValue{}, PutOptions{Version: version}); err != nil {
		t.Fatal(err)
	}
}

// wait sleeps until fences are forgotten.
func wait(c *Cache[simValue]) { time.Sleep(3 * time.Duration(c.own.Fences.Retention())) }

// overflow makes the shard of "k" forget fences early.
func overflow(c *Cache[simValue]) {
	for i := range uint64(2 * fence.PerShard) {
		c.own.Fences.Apply(string(rune('a'+i)), ring.Hash("k"), codec.Mark{Incarnation: 3, Seq: i + 1}, 1, nothing)
	}
}

// A value that was put never looks younger than it is.
func TestPutAge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{Freshness: Freshness{TTL: 10 * time.Second, NearTTL: time.Second, Jitter: -1, RefreshAhead: -1}})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			if kind == codec.KindPut && !answer {
				return hop{delay: 800 * time.Millisecond}
			}
			return hop{}
		})
		began := time.Now()
		if err := caches["n0"].Put(background, key, simValue{Version: 1}, PutOptions{Version: 1}); err != nil {
			t.Fatal(err)
		}
		a, err := caches["n1"].Read(background, key, ReadOptions{})
		if err != nil || a.Value.Version != 1 || a.Age < time.Since(began) {
			t.Errorf("%+v, %v after %v", a, err, time.Since(began))
		}
	})
}

// An owner may be stopped for any time while a put waits in its sockets. A put that arrives late has its full age,
// and does not replace a value that was put with a higher version since, even if that version is forgotten.
func TestPutThatWasHeldIsNotYoung(t *testing.T) {
	for name, c := range map[string]struct {
		held   time.Duration
		ttl    time.Duration
		second bool // a higher version is put, kept and evicted before the first put arrives
		kept   bool
	}{
		"on time":                 {0, 5 * time.Second, false, true},
		"late":                    {3 * time.Second, 5 * time.Second, false, true},
		"past its TTL":            {66 * time.Second, 5 * time.Second, false, false},
		"within fences' memory":   {20 * time.Second, time.Hour, false, true},
		"past fences' memory":     {10 * time.Minute, time.Hour, false, false},
		"overtaken":               {20 * time.Second, time.Hour, true, false},
		"overtaken and forgotten": {10 * time.Minute, time.Hour, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, o := newSim(t, 3), newOrigin()
				caches := s.start(o, Config[simValue]{Origin: Origin{Timeout: 10 * time.Second}})
				defer s.stop(caches)
				key := keyOf(s.nodes["n0"].View(), "n1", 0)
				put := func(from string, version int64) {
					err := caches[from].Put(background, key, simValue{Version: version}, PutOptions{Version: uint64(version), TTL: c.ttl})
					if err != nil {
						t.Error(err)
					}
				}
				began, asked := time.Now(), new(atomic.Bool)
				s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
					if kind == codec.KindPut && from == "n0" && !answer && asked.Swap(true) { // the first request reads the owner's clock
						return hop{delay: c.held}
					}
					return hop{}
				})
				put("n0", 10)
				if c.second {
					put("n2", 20)
					_ = pause(background, c.held/2)
				}
				if c.held > 0 {
					caches["n1"].own.Owned.Delete(key)
				}
				_ = pause(background, time.Until(began.Add(c.held+time.Millisecond)))
				a, err := caches["n1"].Read(background, key, ReadOptions{MaxAge: AnyAge, NoFill: true})
				if kept := err == nil && a.Value.Version == 10; kept != c.kept {
					t.Errorf("kept %v: %+v, %v", kept, a, err)
				}
				if err == nil && (a.Age < time.Since(began) || a.Age > time.Since(began)+time.Second) {
					t.Errorf("age %v, %v after the put", a.Age, time.Since(began))
				}
			})
		})
	}
}

// A putter's clock may be set ahead at any time. That does not make the value that it puts younger.
func TestPutAgeWhenThePuttersClockIsSetAhead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		var ahead atomic.Int64
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		shut(t, caches["n0"])
		caches["n0"] = s.open("n0", o, Config[simValue]{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
		_ = pause(background, 5*time.Second)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		s.setRule(func(_, _ string, kind codec.Kind, answer bool) hop {
			if kind == codec.KindPut && !answer {
				return hop{delay: 800 * time.Millisecond}
			}
			return hop{}
		})
		for version := range uint64(3) {
			began, kept := time.Now(), caches["n0"].Stats().PutKept
			if err := caches["n0"].Put(background, key, simValue{Version: int64(version + 1)}, PutOptions{Version: version + 1}); err != nil {
				t.Fatal(err)
			}
			if caches["n0"].Stats().PutKept != kept+1 {
				t.Error("the value is not kept")
			}
			_ = pause(background, time.Second)
			a, err := caches["n1"].Read(background, key, ReadOptions{NoFill: true})
			if err != nil || a.Value.Version != int64(version+1) || a.Age < time.Since(began) || a.Age > time.Since(began)+time.Millisecond {
				t.Errorf("%+v, %v: %v after the put", a, err, time.Since(began))
			}
			ahead.Add(int64(500 * time.Millisecond)) // less than a value takes to reach the owner
		}
	})
}

// The owner accepts a put's reading of its clock only if the clock has shown it.
func TestPutThatNamesNoTimeOfTheOwnersIsNotKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		c := caches["n1"]
		_ = pause(background, 10*time.Second)
		self, now := c.own.Journal.Incarnation(), c.own.Clock.Now()
		shown := c.own.ShowClock(now - int64(5*time.Second))
		for name, x := range map[string]struct {
			clock codec.Mark
			since time.Duration
			began int64
			ok    bool
		}{
			"shown":                    {codec.Mark{Incarnation: self, Seq: shown}, 0, now - int64(5*time.Second), true},
			"from before it":           {codec.Mark{Incarnation: self, Seq: shown}, -time.Second, now - int64(6*time.Second), true},
			"from after it":            {codec.Mark{Incarnation: self, Seq: shown}, time.Microsecond, 0, false},
			"from long after it":       {codec.Mark{Incarnation: self, Seq: shown}, 1<<63 - 1, 0, false},
			"from long before it":      {codec.Mark{Incarnation: self, Seq: shown}, -1 << 63, 0, false},
			"not shown yet":            {codec.Mark{Incarnation: self, Seq: c.own.ShowClock(now) + 1}, -time.Hour, 0, false},
			"another cache instance's": {codec.Mark{Incarnation: self + 2, Seq: shown}, 0, 0, false},
			"none":                     {codec.Mark{Incarnation: self}, 0, 0, false},
		} {
			began, ok := c.own.BeganAt(&codec.Request{Flags: codec.FlagClock, Clock: x.clock, Since: x.since}, now)
			if ok != x.ok || began != x.began {
				t.Errorf("%s: %v, %v, want %v, %v", name, began, ok, x.began, x.ok)
			}
		}
		if began, ok := c.own.BeganAt(&codec.Request{Timeout: time.Second}, now); !ok || began != now-int64(time.Second) {
			t.Errorf("of an earlier version: %v, %v", began, ok)
		}
	})
}

// A restarted owner has another clock, so a putter must not reuse an old reading: a value put after the restart is
// kept.
func TestPutToARestartedOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		put := func(version uint64) int64 {
			kept := caches["n0"].Stats().PutKept
			if err := caches["n0"].Put(background, key, simValue{Version: int64(version)}, PutOptions{Version: version}); err != nil {
				t.Error(err)
			}
			return caches["n0"].Stats().PutKept - kept
		}
		if put(1) != 1 {
			t.Error("the first one is not kept")
		}
		shut(t, caches["n1"])
		_ = pause(background, 5*time.Second)
		caches["n1"] = s.open("n1", o, Config[simValue]{})
		_ = pause(background, 5*time.Second)
		if put(2) != 1 {
			t.Error("what is put after the restart is not kept")
		}
	})
}

func TestPutRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := single(t, newOrigin(), Config[simValue]{ValueLimit: 100})
		defer shut(t, c)
		for _, x := range []struct {
			key   string
			value simValue
			o     PutOptions
			want  error
		}{
			{"", simValue{}, PutOptions{Version: 1}, ErrEmptyKey},
			{"k", simValue{}, PutOptions{}, ErrNoVersion},
			{"k", simValue{Node: strings.Repeat("n", 200)}, PutOptions{Version: 1}, ErrValueTooLarge},
			{"k", simValue{}, PutOptions{Version: 1, Tags: []string{""}}, ErrBadTag},
			{"k", simValue{}, PutOptions{Version: 1, Tags: make([]string, codec.MaxTags+1)}, ErrBadTag},
			{"k", simValue{}, PutOptions{Version: 1, TTL: -1}, nil},
		} {
			if err := c.Put(background, x.key, x.value, x.o); err == nil || x.want != nil && !errors.Is(err, x.want) {
				t.Errorf("%+v: %v, want %v", x.o, err, x.want)
			}
		}
		if n := c.Stats().Fences; n != 0 {
			t.Errorf("%d fences although all was refused", n)
		}
	})
}

// Refresh loads although copies exist, including a remembered error, and loads once for all concurrent callers.
func TestRefresh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n2", 0)
		for _, c := range caches {
			gets(t, c, key, 0)
		}
		o.write(key)
		for i, name := range s.names {
			loads := o.loads.Load()
			if v, err := caches[name].Refresh(background, key); err != nil || v.Version != 1 || o.loads.Load() != loads+1 {
				t.Errorf("%d: %+v, %v, %d loads", i, v, err, o.loads.Load()-loads)
			}
		}
		time.Sleep(time.Second)
		o.fail = errors.New("down")
		if _, err := caches["n0"].Refresh(background, key); err == nil {
			t.Error("no error")
		}
		gets(t, caches["n0"], key, 1) // the copy is still there
		other := keyOf(s.nodes["n0"].View(), "n2", 1)
		if _, err := caches["n0"].Get(background, other); err == nil {
			t.Error("no error")
		}
		o.mu.Lock()
		o.fail = nil
		o.mu.Unlock()
		if _, err := caches["n0"].Get(background, other); err == nil {
			t.Error("the error is not remembered: this test shows nothing")
		}
		if v, err := caches["n0"].Refresh(background, other); err != nil || v.Version != 0 {
			t.Errorf("%+v, %v", v, err)
		}
	})
}

// A near copy whose lease has ended is not transferred again if it is still good.
func TestRevalidate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		decoded := 0
		caches := s.start(o, Config[simValue]{
			Freshness: Freshness{TTL: time.Hour, NearTTL: time.Second, Jitter: -1, RefreshAhead: -1},
			Codec:     counting{&decoded},
		})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		c := caches["n0"]
		gets(t, c, key, 0) // decoded by the owner, which filled it, and here
		settle(c)
		for i := range int64(3) {
			time.Sleep(1100 * time.Millisecond)
			gets(t, c, key, 0)
			settle(c)
			if st := c.Stats(); st.Revalidated != i+1 || decoded != 2 {
				t.Errorf("%d: revalidated %d, decoded %d", i, st.Revalidated, decoded)
			}
			gets(t, c, key, 0)
			if n := s.count("n0", "n1"); n == 0 {
				t.Error("nothing was asked")
			}
		}
		o.write(key)
		if err := c.Invalidate(background, key); err != nil {
			t.Fatal(err)
		}
		gets(t, c, key, 1)
		if decoded != 4 {
			t.Errorf("decoded %d", decoded)
		}
		// A read that demands the owner's word, with a copy here.
		settle(c)
		if a, err := c.Read(background, key, ReadOptions{}); err != nil || a.Value.Version != 1 || a.Source != SourceOwned || decoded != 4 {
			t.Errorf("%+v, %v, decoded %d", a, err, decoded)
		}
	})
}

// settle waits until the near tier has applied what it was given.
func settle(c *Cache[simValue]) { c.near.Wait() }

// counting is a codec that counts decodings.
type counting struct{ decoded *int }

func (c counting) Name() string { return "counting" }

func (c counting) Append(dst []byte, v simValue) ([]byte, error) {
	return codec.Msgpack[simValue]().Append(dst, v)
}

func (c counting) Decode(b []byte) (simValue, error) {
	*c.decoded++
	return codec.Msgpack[simValue]().Decode(b)
}

// NoFill answers from existing copies, wherever they are, and asks the origin for nothing.
func TestNoFill(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{Freshness: Freshness{TTL: 10 * time.Second, StaleWhileRevalidate: 10 * time.Second, NearTTL: time.Second, Jitter: -1, RefreshAhead: -1}})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n2", 0)
		read := func(name string, maxAge time.Duration, want error, stale bool) {
			t.Helper()
			loads := o.loads.Load()
			a, err := caches[name].Read(background, key, ReadOptions{NoFill: true, MaxAge: maxAge})
			time.Sleep(time.Millisecond) // time for a refresh, which must not happen
			if !errors.Is(err, want) || a.Stale != stale || o.loads.Load() != loads {
				t.Errorf("%s: %+v, %v, %d loads", name, a, err, o.loads.Load()-loads)
			}
		}
		for _, name := range s.names {
			read(name, AnyAge, ErrNotCached, false)
		}
		gets(t, caches["n0"], key, 0)
		settle(caches["n0"])
		for _, name := range s.names {
			read(name, AnyAge, nil, false)
			read(name, 0, nil, false)
		}
		time.Sleep(5 * time.Second)
		read("n0", 4*time.Second, ErrNotCached, false)
		read("n0", 6*time.Second, nil, false)
		time.Sleep(6 * time.Second)
		for _, name := range s.names {
			read(name, AnyAge, nil, true)
			read(name, 0, ErrNotCached, false)
		}
		time.Sleep(10 * time.Second)
		for _, name := range s.names {
			read(name, AnyAge, ErrNotCached, false)
		}
		o.mu.Lock()
		o.fail = errors.New("down")
		o.mu.Unlock()
		if _, err := caches["n0"].Get(background, key); err == nil {
			t.Error("no error")
		}
		read("n1", AnyAge, ErrNotCached, false) // an error is not a copy
	})
}
