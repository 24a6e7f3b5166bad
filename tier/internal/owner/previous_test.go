package owner_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// A moving is a cluster in which a key's partition moves from one member to another.
type moving struct {
	*network
	from, to *member
	key      string
	after    *ring.View
}

// moving opens a, b and c. In the view that move shows, a's key is b's because a rests, or has left if gone is true.
func newMoving(t *testing.T, load loader, gone bool, change func(*setup)) *moving {
	t.Helper()
	n := newNetwork(t)
	before := viewOf(t, "a", "b", "c")
	members := []ring.Member{memberOf("a"), memberOf("b"), memberOf("c")}
	members[0].Resting = true
	if gone {
		members = members[1:]
	}
	after, err := ring.New(members, ring.Config{Partitions: 31})
	if err != nil {
		t.Fatal(err)
	}
	x := &moving{network: n, after: after, key: movedKey(before, after, "a", "b", 0)}
	for _, name := range []string{"a", "b", "c"} {
		n.open(name, before, load, change)
	}
	x.from, x.to = n.members["a"], n.members["b"]
	x.settle()
	return x
}

// settle waits until the members know one another.
func (x *moving) settle() {
	for _, m := range x.members {
		m.node.await(func() bool { return !m.node.Journal.IsOpening() && m.node.Journal.IsAcquainted() })
	}
}

func (x *moving) move() {
	x.show(x.after, x.from, x.to, x.members["c"])
	synctest.Wait()
}

// A new owner gets the copy from the previous one, with its times, tags and version, and loads only what that does not have
// or what is too old.
func TestPreviousOwner(t *testing.T) {
	tagged := fence.TagsAt([]uint32{5}, 0)
	base := store.Entry{Value: []byte("old"), Version: 7, Loaded: -10 * second, Soft: 20 * second, SWR: 30 * second, Hard: 40 * second, Tags: tagged}
	with := func(change func(e *store.Entry)) *store.Entry {
		e := base
		change(&e)
		return &e
	}
	for name, x := range map[string]struct {
		e      *store.Entry
		down   bool
		gone   bool
		want   string
		kept   bool // as the previous owner had it
		asked  int64
		hits   int64
		cause  placement.Cause
		maxAge time.Duration
	}{
		"fresh":            {e: &base, want: "old", kept: true, asked: 1, hits: 1, maxAge: owner.AnyAge},
		"stale":            {e: with(func(e *store.Entry) { e.Soft = 0 }), want: "old", kept: true, asked: 1, hits: 1, maxAge: owner.AnyAge},
		"past that":        {e: with(func(e *store.Entry) { e.Soft, e.SWR = -10*second, 0 }), want: "new", asked: 1, hits: 1, cause: placement.Moved, maxAge: owner.AnyAge},
		"absent":           {e: &store.Entry{Flags: store.NotFound, Soft: 20 * second, SWR: 20 * second, Hard: 20 * second}, want: owner.ErrNotFound.Error(), asked: 1, hits: 1, maxAge: owner.AnyAge},
		"a failure":        {e: &store.Entry{Flags: store.Failed, Soft: second, Hard: second, Rare: &store.Rare{Err: errOrigin}}, want: "new", asked: 1, maxAge: owner.AnyAge},
		"none":             {want: "new", asked: 1, maxAge: owner.AnyAge},
		"down":             {e: &base, down: true, want: "new", asked: 1, cause: placement.Moved, maxAge: owner.AnyAge},
		"gone, but alive":  {e: &base, gone: true, want: "old", kept: true, asked: 1, hits: 1, maxAge: owner.AnyAge},
		"gone and down":    {e: &base, gone: true, down: true, want: "new", asked: 1, cause: placement.OwnerLost, maxAge: owner.AnyAge},
		"too old for this": {e: &base, want: "new", kept: false, asked: 1, hits: 1, cause: placement.Expired, maxAge: time.Second},
		"old enough":       {e: &base, want: "old", kept: true, asked: 1, hits: 1, maxAge: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newMoving(t, func(context.Context, *owner.Run, string) ([]byte, error) { return []byte("new"), nil }, x.gone, func(s *setup) {
					s.Freshness.StaleWhileRevalidate = 10 * time.Second
				})
				time.Sleep(time.Minute)
				var had *store.Entry
				if x.e != nil {
					had = n.from.node.plant(n.key, *x.e)
				}
				if x.down {
					n.setMeddle(func(_, to string, _ *codec.Request, _ *codec.Response) (bool, error) {
						if to == "a" {
							return false, errDown
						}
						return false, nil
					})
				}
				n.move()
				b := n.to.node
				shift := b.Clock.Now() - n.from.node.Clock.Now()
				f, err := b.find(background, n.key, x.maxAge)
				got := ""
				switch {
				case err != nil:
					got = err.Error()
				case f.E.Flags&store.NotFound != 0:
					got = owner.ErrNotFound.Error()
				default:
					got = string(f.E.Value)
				}
				if got != x.want {
					t.Errorf("%q, %+v", got, f.E)
				}
				if asked, hits := b.Stats.PreviousAsked.Load(), b.Stats.PreviousHits.Load(); asked != x.asked || hits != x.hits || n.from.node.Stats.Given.Load() != x.hits {
					t.Errorf("%d asked, %d hits", asked, hits)
				}
				if x.want == "new" && (b.Stats.Fills[x.cause].Load() != 1 || b.Stats.Loads() != 1) {
					t.Errorf("%d loads, %d of them for %s", b.Stats.Loads(), b.Stats.Fills[x.cause].Load(), placement.CauseNames[x.cause])
				}
				if x.want != "new" && b.Stats.Loads() > int64(0) && had.Soft > b.Clock.Now() {
					t.Errorf("%d loads", b.Stats.Loads())
				}
				if !x.kept {
					return
				}
				e := f.E
				if e.Loaded != had.Loaded+shift || e.Soft != had.Soft+shift || e.SWR != min(had.Soft+10*second, had.Hard)+shift || e.Hard != had.Hard+shift ||
					e.Version != 7 || !e.Handed || e.Etag == 0 || len(e.Tags.List()) != 1 || e.Tags.List()[0] != 5 {
					t.Errorf("the new owner has %+v", e)
				}
				if kept, _ := b.Owned.Get(n.key); kept != e && kept == nil {
					t.Error("the copy is not kept")
				}
				b.invalidateTag("other")
				if e := b.Valid(n.key, ring.Hash(n.key), b.Clock.Now()); e == nil {
					t.Error("a tag that the copy does not have has invalidated it")
				}
			})
		})
	}
}

// A Put of an older version that comes late does not replace the copy that the new owner was given.
func TestLatePutAfterAMove(t *testing.T) {
	for version, kept := range map[uint64]bool{6: false, 7: true, 8: true} {
		simtime.Test(t, func(t *testing.T) {
			n := newMoving(t, constant, false, nil)
			time.Sleep(time.Minute)
			b, hash := n.to.node, ring.Hash(n.key)
			mark := n.from.node.Journal.Begin(background, nil, 6, partOf(n.key))
			synctest.Wait()
			n.from.node.plant(n.key, store.Entry{Value: []byte("seven"), Version: 7, Soft: 20 * second, SWR: 20 * second, Hard: 20 * second})
			n.move()
			if v, err := b.read(background, n.key); v != "seven" || err != nil {
				t.Fatal(v, err)
			}
			if got := b.SendPut(background, &owner.Put{Key: n.key, Hash: hash, Mark: mark, Version: version, Value: []byte("put"), Began: b.Clock.Now()}); got != kept {
				t.Errorf("version %d is kept: %v", version, got)
			}
			if v, _ := b.read(background, n.key); (v == "put") != kept {
				t.Errorf("after a put of version %d: %q", version, v)
			}
		})
	}
}

// A fill that runs at the previous owner is waited for; what it brings only for its callers, or not at all, is not taken.
func TestFillAtThePreviousOwner(t *testing.T) {
	for name, x := range map[string]struct {
		load  func(r *owner.Run) error
		want  string
		loads int64
	}{
		"a value":         {func(*owner.Run) error { return nil }, "k1", 1},
		"for its callers": {func(r *owner.Run) error { r.Drop = true; return nil }, "k2", 2},
		"an error":        {func(*owner.Run) error { return errOrigin }, "k2", 2},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				var loads atomic.Int64
				n := newMoving(t, func(ctx context.Context, r *owner.Run, _ string) ([]byte, error) {
					v, err := numbered(&loads)(ctx, r, "k")
					if string(v) == "k1" && err == nil {
						err = x.load(r)
					}
					return v, err
				}, false, nil)
				time.Sleep(time.Minute)
				var wg sync.WaitGroup
				wg.Go(func() { _, _ = n.from.node.read(background, n.key) })
				time.Sleep(500 * time.Millisecond)
				n.move()
				f, err := n.to.node.find(background, n.key, owner.AnyAge)
				if err != nil || string(f.E.Value) != x.want || loads.Load() != x.loads {
					t.Errorf("%+v, %v, %d loads", f.E, err, loads.Load())
				}
				if age := n.to.node.Clock.Now() - f.E.Loaded; x.loads == 1 && age != second {
					t.Errorf("the copy counts as %v old", time.Duration(age))
				}
				wg.Wait()
			})
		})
	}
}

// A copy that another member gave is kept unless it is past its end, too large, invalidated, behind a version, or older than
// what this node has or had.
func TestKeepGiven(t *testing.T) {
	const sec = second
	for name, x := range map[string]struct {
		have  *store.Entry // times from now
		given store.Entry
		prep  func(c node, now int64)
		kept  bool
		old   bool // the copy that this node has is returned
	}{
		"nothing here":             {nil, store.Entry{Loaded: -5 * sec, Hard: sec}, nil, true, false},
		"an older copy":            {&store.Entry{Loaded: -6 * sec, Hard: sec}, store.Entry{Loaded: -5 * sec, Hard: sec}, nil, true, false},
		"a newer copy":             {&store.Entry{Loaded: -4 * sec, Hard: sec}, store.Entry{Loaded: -5 * sec, Hard: sec}, nil, false, true},
		"one as old":               {&store.Entry{Loaded: -5 * sec, Hard: sec}, store.Entry{Loaded: -5 * sec, Hard: sec}, nil, false, true},
		"a failure here":           {&store.Entry{Loaded: -4 * sec, Hard: sec, Flags: store.Failed}, store.Entry{Loaded: -5 * sec, Hard: sec}, nil, true, false},
		"an expired copy":          {&store.Entry{Loaded: -6 * sec, Hard: 0}, store.Entry{Loaded: -5 * sec, Hard: sec}, nil, true, false},
		"a newer expired one":      {&store.Entry{Loaded: -4 * sec, Hard: 0}, store.Entry{Loaded: -5 * sec, Hard: sec}, nil, false, true},
		"one that expired, as old": {&store.Entry{Loaded: -5 * sec, Hard: 0}, store.Entry{Loaded: -5 * sec, Hard: sec}, nil, true, false},
		"past its end":             {nil, store.Entry{Loaded: -5 * sec, Hard: 0}, nil, false, false},
		"just before that":         {nil, store.Entry{Loaded: -5 * sec, Hard: 1}, nil, true, false},
		"as large as allowed":      {nil, store.Entry{Loaded: -5 * sec, Hard: sec, Value: make([]byte, 1<<10)}, nil, true, false},
		"too large":                {nil, store.Entry{Loaded: -5 * sec, Hard: sec, Value: make([]byte, 1<<10+1)}, nil, false, false},
		"invalidated by tag":       {nil, store.Entry{Loaded: -5 * sec, Hard: sec, Tags: fence.TagsAt([]uint32{fence.TagHash("t")}, 0)}, func(c node, _ int64) { c.invalidateTag("t") }, false, false},
		"behind a version":         {nil, store.Entry{Loaded: -5 * sec, Hard: sec, Version: 6}, func(c node, _ int64) { c.Journal.BeginKey("k", 7) }, false, false},
		"that version":             {nil, store.Entry{Loaded: -5 * sec, Hard: sec, Version: 7}, func(c node, _ int64) { c.Journal.BeginKey("k", 7) }, true, false},
		"loaded here since":        {nil, store.Entry{Loaded: -5 * sec, Hard: sec}, func(c node, now int64) { c.Loads.Add(ring.Hash("k"), now-4*sec) }, false, false},
		"loaded here before":       {nil, store.Entry{Loaded: -5 * sec, Hard: sec}, func(c node, now int64) { c.Loads.Add(ring.Hash("k"), now-6*sec) }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c, hash := alone(t, constant, nil), ring.Hash("k")
				time.Sleep(time.Minute)
				now := c.Clock.Now()
				if x.prep != nil {
					x.prep(c, now)
				}
				var have *store.Entry
				if x.have != nil {
					have = c.plant("k", *x.have)
				}
				life := c.Journal.LongestLife()
				e := x.given
				e.Stamp, e.Loaded, e.Hard = c.Fences.Stamp(hash), e.Loaded+now, e.Hard+now
				got := c.KeepGiven("k", hash, &e, fence.Claim{Stamp: e.Stamp, Began: now, Handed: true})
				in, _ := c.Owned.Get("k")
				switch {
				case x.kept && (got != &e || in != &e || e.Etag == 0), x.old && (got != have || in != have), !x.kept && !x.old && (got != nil || in != have):
					t.Errorf("%+v; the tier has %+v", got, in)
				}
				if c.Journal.LongestLife() != life {
					t.Errorf("a short life raises the longest one to %v", c.Journal.LongestLife())
				}
				next := e
				next.Loaded, next.Hard, next.Version = now, now+int64(24*time.Hour), 9
				if c.KeepGiven("k", hash, &next, fence.Claim{Stamp: e.Stamp, Began: now, Handed: true}) == &next && c.Journal.LongestLife() != 24*time.Hour {
					t.Errorf("the longest life is %v", c.Journal.LongestLife())
				}
			})
		})
	}
}

// Until every member is known to have seen a new node, what the previous owner gives it is for the caller that started the
// flight. Others wait for the next one.
func TestPrivateCopies(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		view := viewOf(t, "a", "b")
		a := n.open("a", viewOf(t, "a"), func(context.Context, *owner.Run, string) ([]byte, error) { return []byte("a's"), nil }, nil)
		time.Sleep(time.Minute)
		key := keyOf(view, "b", 0)
		a.node.plant(key, store.Entry{Value: []byte("old"), Soft: 20 * second, SWR: 20 * second, Hard: 20 * second})
		late := ring.Member{Name: "b", Addr: "b:1", Incarnation: uint64(time.Hour)}
		young, err := ring.New([]ring.Member{memberOf("a"), late}, ring.Config{Partitions: 31})
		if err != nil {
			t.Fatal(err)
		}
		b := n.open("b", young, func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
			return []byte("loaded"), owner.Sleep(ctx, time.Second)
		}, nil)
		synctest.Wait()
		if b.node.Journal.IsAcquainted() {
			t.Fatal("a has not seen b")
		}
		n.setMeddle(func(_, _ string, req *codec.Request, _ *codec.Response) (bool, error) {
			if req.Kind == codec.KindGet {
				time.Sleep(10 * time.Millisecond)
			}
			return false, nil
		})
		var wg sync.WaitGroup
		for i, want := range []string{"old", "loaded", "loaded"} {
			wg.Go(func() {
				time.Sleep(time.Duration(i))
				f, err := b.node.find(background, key, owner.AnyAge)
				if v := ""; err == nil {
					if v = string(f.E.Value); i == 0 && (v != want || !f.Private) {
						t.Errorf("the first caller gets %q, private: %v", v, f.Private)
					}
				} else {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, ok := b.node.Owned.Get(key); ok && b.node.Stats.Loads() == 0 {
			t.Error("a private copy is kept")
		}
	})
}

var errSlow = errors.New("slow")

// A previous owner that is silent is waited for no longer than PreviousWait, and then left alone for a while.
func TestSilentPreviousOwner(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		n := newMoving(t, constant, false, nil)
		time.Sleep(time.Minute)
		n.setMeddle(func(_, to string, req *codec.Request, _ *codec.Response) (bool, error) {
			if to == "a" && req.Kind == codec.KindGet {
				time.Sleep(req.Timeout)
				return false, errSlow
			}
			return false, nil
		})
		n.move()
		began := time.Now()
		if _, err := n.to.node.read(background, n.key); err != nil || time.Since(began) != owner.PreviousWait || owner.PreviousWait != 150*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		second := movedKey(viewOf(t, "a", "b", "c"), n.after, "a", "b", 1)
		began = time.Now()
		if _, err := n.to.node.read(background, second); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v: the silent member is asked again", err, time.Since(began))
		}
	})
}
