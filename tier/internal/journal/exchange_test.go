package journal_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
)

// gives makes the exchanges of the named member give these news, one after the other and the last one again and again.
// Meanwhile runs before each answer.
func (s *script) gives(name string, meanwhile func(), all ...codec.News) {
	s.set(name, func(a *actor) {
		a.answered = func(req *codec.Request, resp *codec.Response) {
			if req.Kind != codec.KindSync {
				return
			}
			if meanwhile != nil {
				meanwhile()
			}
			resp.Value = codec.AppendNews(nil, &all[0])
			all = all[min(1, len(all)-1):]
		}
	})
}

// An exchange takes all that the member has, in as many parts as it takes, and then the member is known to have applied
// all of it.
func TestExchangeTakesEverything(t *testing.T) {
	has := []codec.Position{{Incarnation: 7, Seq: 3}}
	onStage(t, nil, func(t *testing.T, s *script) {
		s.gives("n1", nil, codec.News{Positions: has, Invalidations: []codec.Invalidation{ofKey(7, 1)}, More: true},
			codec.News{Positions: has, Invalidations: []codec.Invalidation{ofKey(7, 2)}, More: true}, codec.News{Positions: has, Life: 5 * time.Hour, Invalidations: []codec.Invalidation{ofKey(7, 3)}})
		s.ViewChanged()
		s.expect("in three parts", 0, "n1", "exchange, exchange, exchange")
		if !s.HasApplied(codec.Mark{Incarnation: 7, Seq: 3}) || !s.covers("n1", "k") || s.Counts().Exchanges.Load() != 1 {
			t.Errorf("applied up to 3: %v, covered: %v, %d exchanges", s.HasApplied(codec.Mark{Incarnation: 7, Seq: 3}), s.covers("n1", "k"), s.Counts().Exchanges.Load())
		}
		if r := s.Member("n1").Reply(); r == nil || *r != (journal.Reply{View: s.View().Fingerprint(), Flags: codec.FlagSameView}) || s.LongestLife() != 5*time.Hour {
			t.Errorf("the reply is %+v, the longest life %v", r, s.LongestLife())
		}
		s.gives("n1", nil, codec.News{Positions: has, More: true})
		if err := s.Exchange(t.Context(), s.Member("n1")); err != nil {
			t.Error(err)
		}
		s.expect("more that it cannot give", 0, "n1", "exchange")
	}, "n1")
}

// What is applied here during an exchange is not covered by it, unless it came with it.
func TestWatermarkOfAnExchange(t *testing.T) {
	for _, gives := range []int{0, 1} {
		onStage(t, nil, func(t *testing.T, s *script) {
			news := codec.News{Positions: []codec.Position{{Incarnation: 7, Seq: 2}, {Incarnation: 8, Seq: uint64(gives)}}, Invalidations: []codec.Invalidation{ofKey(8, 1)}[:gives]}
			s.gives("n1", func() { s.Receive(&codec.News{Invalidations: []codec.Invalidation{ofKey(7, 1), ofKey(7, 2)}}) }, news)
			s.meet()
			if s.Member("n1").Watermark() == nil || s.covers("n1", "k") {
				t.Errorf("it gives %d: the watermark covers what was applied meanwhile", gives)
			}
			if err := s.Exchange(t.Context(), s.Member("n1")); err != nil || !s.covers("n1", "k") {
				t.Errorf("it gives %d: the next exchange has not settled it: %v", gives, err)
			}
		}, "n1")
	}
}

// An exchange sends the member what it lacks, bases and invalidations. It fails if the member does not confirm them or has
// another cache meanwhile, and then nothing is known of it.
func TestExchangeThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *actor)
		err    error
		want   string
	}{
		"it confirms":           {func(*actor) {}, nil, "exchange, base 1/1 [2]"},
		"it is lost":            {func(a *actor) { a.lost = true }, errDown, "exchange, base 1/1 [2]"},
		"it has another cache":  {func(a *actor) { a.incarnation = 201 }, journal.ErrAnswer, "exchange, base 1/1 [2]"},
		"it has no cache":       {func(a *actor) { a.status = codec.StatusUnknown }, journal.ErrAnswer, "exchange, base 1/1 [2]"},
		"it answers with error": {func(a *actor) { a.status = codec.StatusFailed }, journal.ErrAnswer, "exchange, base 1/1 [2]"},
	} {
		onStage(t, func(cfg *journal.Config) { cfg.Limits.Bytes = 300 }, func(t *testing.T, s *script) {
			s.Begin(t.Context(), nil, 0, journal.Part{Scope: codec.ScopeKeys, Names: []string{string(make([]byte, 300))}})
			s.begin(nil, "a")
			m := s.Member("n1")
			s.set("n1", func(a *actor) {
				a.answered = func(*codec.Request, *codec.Response) {
					time.Sleep(10 * time.Millisecond) // the pump shares this exchange
					s.set("n1", c.change)
				}
			})
			err := s.Exchange(t.Context(), m)
			if s.expect(name, 0, "n1", c.want); !errors.Is(err, c.err) || (m.Watermark() == nil) != (c.err != nil) || (len(s.Pending()) == 0) != (c.err == nil) {
				t.Errorf("%s: the error is %v, the watermark %+v, pending %v", name, err, m.Watermark(), s.Pending())
			}
			if replayed := s.Counts().Replayed.Load(); (replayed == 1) != (c.err == nil) {
				t.Errorf("%s: %d were replayed", name, replayed)
			}
		}, "n1")
	}
}

// Ready has an exchange only if the request cannot tell the member what it lacks, and gives up after three.
func TestReady(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.set("n1", func(a *actor) { a.down = true })
		s.meet()
		s.set("n1", func(a *actor) { a.down = false })
		m := s.Member("n1")
		ready := func(needs journal.Need) (fence.Debt, error) {
			needs.Key, needs.Hash = "k", ring.Hash("k")
			w, d, err := s.Ready(t.Context(), m, needs)
			if (w == nil) != (err != nil) || w != nil && w.Fences() == nil {
				t.Errorf("the watermark is %+v, err %v", w, err)
			}
			return d, err
		}
		now := func() uint64 { return s.fences.Stamp(ring.Hash("k")) }
		if _, err := ready(journal.Need{}); err != nil {
			t.Error(err)
		}
		s.expect("an unknown member", 0, "n1", "exchange")
		s.Receive(&codec.News{Invalidations: []codec.Invalidation{ofKey(7, 1)}})
		s.gives("n1", nil, codec.News{Positions: []codec.Position{{Incarnation: 7, Seq: 2}}})
		if d, err := ready(journal.Need{Stamp: now()}); err != nil || d.Mark.Seq != 1 || d.Duty != fence.NoDuty {
			t.Errorf("one mark: %+v, %v", d, err)
		}
		s.expect("one mark", 0, "n1", "")
		s.Receive(&codec.News{Invalidations: []codec.Invalidation{ofKey(7, 2), ofKey(8, 1)}})
		if d, err := ready(journal.Need{Stamp: now()}); err != nil || d != (fence.Debt{}) {
			t.Errorf("three marks: %+v, %v", d, err)
		}
		s.expect("three marks", 0, "n1", "exchange, [1]")

		s.set("n1", func(a *actor) { a.answered = nil })
		s.Begin(t.Context(), nil, 0, journal.Part{Scope: codec.ScopeTags, Names: []string{"t"}})
		s.pass(time.Second)
		before := m.Watermark().Tags
		if _, err := ready(journal.Need{Tags: before}); err != nil || before == 0 {
			t.Errorf("tags up to %d: %v", before, err)
		}
		s.expect("tags that it has", 0, "n1", "")
		s.set("n1", func(a *actor) {
			a.answered = func(*codec.Request, *codec.Response) { s.fences.ApplyTags([]string{"u"}) }
		})
		if d, err := ready(journal.Need{Tags: before + 2}); err != nil {
			t.Errorf("%+v, %v", d, err)
		}
		s.pass(0)
		if d, err := ready(journal.Need{Tags: before + 100}); !errors.Is(err, journal.ErrAnswer) {
			t.Errorf("%+v, %v", d, err)
		}
		calls := 0
		for _, c := range s.pass(0) {
			if c.what == "exchange" {
				calls++
			}
		}
		if calls != 3 {
			t.Errorf("%d exchanges before it gave up", calls)
		}
		s.set("n1", func(a *actor) { a.down = true })
		if _, err := ready(journal.Need{Tags: before + 100}); !errors.Is(err, errDown) {
			t.Errorf("not reached: %v", err)
		}
		if (*journal.Watermark)(nil).Fences() != nil {
			t.Error("no watermark has fence clocks")
		}
	}, "n1")
}

// Callers that need an exchange with a member at the same time share it, and none waits for longer than its context.
func TestExchangeIsShared(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.set("n1", func(a *actor) {
			a.answered = func(*codec.Request, *codec.Response) { time.Sleep(50 * time.Millisecond) }
		})
		m := s.Member("n1")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := s.Exchange(ctx, m); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context has ended: %v", err)
		}
		if err := s.Exchange(t.Context(), m); err != nil {
			t.Error(err)
		}
		s.expect("all share it", 0, "n1", "exchange")
	}, "n1")
}

// A new cache counts as opening until it has had an exchange with every member of the view. Reads wait for that, but not
// beyond 100 ms after it was opened.
func TestWaitOpen(t *testing.T) {
	const most = 100 * time.Millisecond
	for name, c := range map[string]struct {
		answers []time.Duration // of n1 and n2
		begins  time.Duration   // the read
		gives   time.Duration   // the read's time
		takes   time.Duration
		open    bool
	}{
		"both answer":       {[]time.Duration{20, 30}, 0, 1000, 30, true},
		"one is late":       {[]time.Duration{20, 150}, 0, 1000, 100, false},
		"one is late, soon": {[]time.Duration{150, 20}, 40, 1000, 60, false},
		"after the wait":    {[]time.Duration{150, 20}, 100, 1000, 0, false},
		"a short read":      {[]time.Duration{20, 30}, 0, 10, 10, false},
		"open":              {[]time.Duration{20, 30}, 40, 1000, 0, true},
		"late, and then so": {[]time.Duration{20, 110}, 120, 1000, 0, true},
	} {
		onStage(t, func(cfg *journal.Config) { cfg.Timeout = time.Minute }, func(t *testing.T, s *script) {
			for i, name := range []string{"n1", "n2"} {
				s.set(name, func(a *actor) {
					a.answered = func(*codec.Request, *codec.Response) { time.Sleep(c.answers[i] * time.Millisecond) }
				})
			}
			s.ViewChanged()
			if time.Sleep(c.begins * time.Millisecond); c.begins == 0 && !s.IsOpening() {
				t.Error("it is not opening")
			}
			ctx, cancel := context.WithTimeout(t.Context(), c.gives*time.Millisecond)
			defer cancel()
			synctest.Wait()
			began := time.Now()
			if open, took := s.WaitOpen(ctx), time.Since(began); open != c.open || took != c.takes*time.Millisecond {
				t.Errorf("%s: open %v after %v, want %v after %v", name, open, took, c.open, c.takes*time.Millisecond)
			}
			s.pass(most)
			s.see("n1", "n2", "n3")
			s.actors["n3"] = &actor{incarnation: 103, down: true}
			if s.ViewChanged(); !s.IsOpening() {
				t.Errorf("%s: a member has come into the view, and it does not count as opening", name)
			}
		}, "n1", "n2")
	}
}

// A new cache counts members that may not have seen it, and has exchanges until they have. After a time it is not new.
func TestAcquaintance(t *testing.T) {
	const newFor = 15 * time.Second
	for _, otherView := range []bool{true, false} {
		onStage(t, nil, func(t *testing.T, s *script) {
			s.set("n1", func(a *actor) { a.otherView = true })
			s.meet()
			check := func(what string, acquainted, isNew bool) {
				t.Helper()
				if s.IsAcquainted() != acquainted || s.IsNew() != isNew || s.IsOpening() {
					t.Errorf("%s: acquainted %v, new %v, opening %v", what, s.IsAcquainted(), s.IsNew(), s.IsOpening())
				}
			}
			check("n1 has another view", false, true)
			s.Tick()
			s.expect("n1 has another view", 0, "n1", "exchange")
			s.expect("n2 has the same", 0, "n2", "")
			s.set("n1", func(a *actor) { a.otherView = otherView })
			s.Tick()
			s.expect("now", 0, "n1", "exchange")
			check("now", !otherView, true)
			if s.Tick(); !otherView {
				s.expect("all have seen it", time.Second, "n1", "")
			}
			s.pass(newFor - time.Since(s.began))
			s.Tick()
			check("so far", !otherView, true)
			s.pass(1)
			s.Tick()
			check("it is not new", true, false)
			s.expect("it is not new", time.Second, "n1", "")
			if names := s.Pending(); len(names) > 0 {
				t.Errorf("pending %v", names)
			}
		}, "n1", "n2")
	}
}

// A cache that is new counts members that only others see as having seen it: it never asks them. Members without the
// cache have nothing that could miss an invalidation.
func TestAcquaintanceWithOthers(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.see("n1", "n2")
		s.set("n2", func(a *actor) { a.status = codec.StatusUnknown })
		s.set("n1", func(a *actor) { a.sees = []string{"n1", "n3"} })
		s.meet()
		s.begin(nil, "a")
		if s.pass(0); s.Member("n3") == nil || !s.IsAcquainted() || s.IsOpening() {
			t.Errorf("%v: acquainted %v, opening %v", s.Member("n3"), s.IsAcquainted(), s.IsOpening())
		}
	}, "n1", "n2", "n3")
}

// The longest life of the copies here is told to the members when it grows.
func TestLivesAreTold(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.meet()
		s.StoredLife(int64(time.Hour))
		s.Tick()
		s.expect("as long as the contract says", 0, "n1", "")
		s.StoredLife(int64(time.Hour) + 1)
		s.Tick()
		s.expect("longer", 0, "n1", "exchange")
		s.Tick()
		s.expect("as long as before", 0, "n1", "")
	}, "n1")
}
