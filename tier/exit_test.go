package tier

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// While a multi-get waits for its slowest key, the others pass their ends: near copies their lease, owned ones their
// hard expiry. Each is tested when it leaves.
func TestGetManyHandsOutNothingPastItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(func(ctx context.Context, f *Fill[string]) (string, error) {
			if strings.HasPrefix(f.Key, "slow") {
				return "v", pause(ctx, 8*time.Second)
			}
			return "v", nil
		})
		cfg.Freshness = Freshness{TTL: 9 * time.Second, NearTTL: 100 * time.Millisecond, Jitter: -1, RefreshAhead: -1}
		cfg.NearBytes = MinBytes
		c := open(t, cfg)
		bound := c.Freshness().Bound()
		for _, slow := range []string{"slow", "slow2"} {
			for _, wait := range []time.Duration{0, 2 * time.Second} { // "near" is near, "owned" is not
				get(t, c, "near", "v")
				get(t, c, "owned", "v")
				_ = pause(background, wait)
				get(t, c, "near", "v")
			}
			for key, r := range c.GetEach(background, []string{"near", "owned", slow}) {
				if r.Err != nil || r.Age > bound || r.Source == SourceNear && r.Age > c.Freshness().NearTTL {
					t.Errorf("%s: %v old from %v, %v; the bound is %v", key, r.Age, r.Source, r.Err, bound)
				}
			}
			_ = pause(background, 20*time.Second)
		}
		loads := c.Stats().Loads
		m := c.multiGets.get(c, 3)
		for _, key := range []string{"near", "owned", "slow3"} {
			m.add(key)
		}
		get(t, c, "near", "v")
		get(t, c, "owned", "v")
		_ = pause(background, 2*time.Second)
		m.readMany(background)
		now := m.readLate(background)
		for i := range m.reads {
			r := &m.reads[i]
			if _, ok, err := c.handOut(&r.finding, now); r.err != nil || !ok || err != nil || time.Duration(now-r.loaded) > bound {
				t.Errorf("%s: %v old, %v, %v", r.key, time.Duration(now-r.loaded), ok, err)
			}
		}
		if loads == c.Stats().Loads {
			t.Error("nothing was loaded again")
		}
	})
}

// A range over GetEach that takes its time between two keys gets nothing past its end.
func TestGetEachHandsOutNothingPastItsEndToASlowRange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := slow(0)
		cfg := plain(ByKey(o.load))
		cfg.Freshness.TTL = time.Second
		c := open(t, cfg)
		for key, r := range c.GetEach(background, []string{"a", "b", "c"}) {
			if r.Err != nil || r.Age >= time.Second {
				t.Errorf("%s: %v old, %v", key, r.Age, r.Err)
			}
			_ = pause(background, 2*time.Second)
		}
		o.want(t, 5) // b and c were loaded twice
	})
}

// The answer of a fill passes its hard expiry on a slow network like any other.
func TestAnswerOfAFillIsNotHandedOutPastItsHardExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{Freshness: Freshness{TTL: time.Second, NearTTL: -1, RefreshAhead: -1, Jitter: -1}})
		defer s.stop(caches)
		view, bound := s.nodes["n0"].View(), caches["n0"].Freshness().Bound()
		gets(t, caches["n0"], keyOf(view, "n1", 1), 0)
		s.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
			if answer && (kind == codec.KindGet || kind == codec.KindGetMany) {
				return hop{delay: 5 * time.Second}
			}
			return hop{}
		})
		a, err := caches["n0"].Read(background, keyOf(view, "n1", 0), ReadOptions{MaxAge: AnyAge})
		if err != nil || a.Age >= bound {
			t.Errorf("age %v from %v, %v", a.Age, a.Source, err)
		}
		for key, r := range caches["n0"].GetEach(background, []string{keyOf(view, "n1", 2), keyOf(view, "n1", 3)}) {
			if r.Err != nil || r.Age >= bound {
				t.Errorf("%s: age %v from %v, %v", key, r.Age, r.Source, r.Err)
			}
		}
	})
}

// An owner that waited for the slowest of a peer's keys returns nothing past its hard expiry for the others.
func TestOwnerAnswersNothingPastItsHardExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := open(t, plain(ByKey(slow(0).load)))
		now := c.own.Clock.Now()
		e := &store.Entry{Value: []byte("x"), Loaded: now, Soft: now + 10, SWR: now + 20, Hard: now + 20}
		for _, x := range []struct {
			name   string
			f      owner.Found
			now    int64
			answer bool
		}{
			{"fresh", owner.Found{E: e}, now, true},
			{"stale", owner.Found{E: e}, now + 19, true},
			{"past its hard expiry", owner.Found{E: e}, now + 20, false},
			{"a fill, past its hard expiry", owner.Found{E: e, Filled: true}, now + 20, false},
			{"a fill whose load outlived its value", owner.Found{E: &store.Entry{Loaded: now, Cost: 30, Soft: now + 20, Hard: now + 20}, Filled: true}, now + 31, true},
			{"that as a copy", owner.Found{E: &store.Entry{Loaded: now, Cost: 30, Soft: now + 20, Hard: now + 20}}, now + 31, false},
		} {
			var resp codec.Response
			h := newHandler(c)
			if got := h.Fill(x.now, 0, 0, &resp, &x.f, 0); got != x.answer || (resp.Status != 0) != x.answer {
				t.Errorf("%s: %v, status %d", x.name, got, resp.Status)
			}
			want := codec.Wanted{Key: []byte("k")}
			var part codec.Response
			h.Part(&want, &owner.OwnedRead{F: x.f, At: now}, owner.MultiGetState{Began: now}, codec.ModeWait, &part, x.now)
			if (part.Status == codec.StatusPending) == x.answer {
				t.Errorf("%s: part with status %d", x.name, part.Status)
			}
			if x.answer {
				if end := endOf(&resp, x.now); (end == owner.Never) != (x.f.End() == owner.Never) {
					t.Errorf("%s: the end is %d at the owner and %d at the asker", x.name, x.f.End(), end)
				}
			}
		}
	})
}

// A Read whose copies all pass their end before they can be handed out returns ErrExpired.
func TestReadGivesUpOnCopiesThatPassTheirEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(slow(0).load))
		c := open(t, cfg)
		jump := time.Duration(0)
		c.own.Clock = clock.New(func() time.Time { jump += 2; return time.Now().Add(jump) }) // time passes between any two lines
		expired, expiredOfMany := 0, 0
		for ttl := range time.Duration(100) { // with a short TTL a load outlives its value, with a long one every read succeeds
			c.own.Config.Freshness.TTL = ttl + 1 // New would reject it
			key := fmt.Sprint("k", ttl)
			if _, err := c.Get(background, key); errors.Is(err, ErrExpired) {
				expired++
			} else if err != nil {
				t.Error(ttl, err)
			}
			if m, err := c.GetMany(background, []string{key + "'"}); err != nil {
				expiredOfMany++
			} else if len(m) != 1 {
				t.Error(ttl, m)
			}
		}
		if expired == 0 || expiredOfMany == 0 {
			t.Errorf("%d gets and %d gets of many found nothing that they could hand out", expired, expiredOfMany)
		}
	})
}

// Values leave only through exit.go, where their end is tested: no other code makes an Answer with a value, clones a
// value for a caller or puts one into an answer or a push for a peer. Get hands out near hits itself, in the branch
// that has tested them.
func TestValuesLeaveByOneExit(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	owners, err := filepath.Glob("internal/owner/*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, path := range append(files, owners...) {
		name := filepath.Base(path)
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var in string // the enclosing function
		exit := func(at token.Pos, what string) {
			seen[what]++
			if name != "exit.go" && !(name == "read.go" && in == "Get" && what == "clone") {
				t.Errorf("%v: %s: %s: values leave by exit.go", set.Position(at), in, what)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				in = n.Name.Name
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "clone" {
					exit(n.Pos(), "clone")
				}
			case *ast.CompositeLit:
				if s, ok := n.Type.(*ast.SelectorExpr); ok && s.Sel.Name == "Pushed" {
					exit(n.Pos(), "push")
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					s, ok := left.(*ast.SelectorExpr)
					if !ok || s.Sel.Name != "Value" {
						continue
					}
					if x, ok := s.X.(*ast.Ident); ok && slices.Contains([]string{"resp", "part", "out"}, x.Name) {
						if call, ok := n.Rhs[min(i, len(n.Rhs)-1)].(*ast.CallExpr); ok {
							if fn, ok := call.Fun.(*ast.SelectorExpr); ok && fn.Sel.Name == "AppendNews" {
								continue
							}
						}
						exit(s.Pos(), "value of "+x.Name)
					}
				}
			}
			return true
		})
	}
	for _, what := range []string{"clone", "push", "value of resp", "value of out"} {
		if seen[what] == 0 {
			t.Errorf("no %s found: the test looks for what is not there any more", what)
		}
	}
}
