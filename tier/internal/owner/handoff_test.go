package owner_test

import (
	"context"
	"fmt"
	"slices"
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
	"github.com/weircache/weir/tier/internal/store"
)

// A leaving is a cluster whose first member leaves; its keys move to the others.
type leaving struct {
	*network
	a, b, c       *member
	before, after *ring.View
}

func newLeaving(t *testing.T, load loader, change func(*setup)) *leaving {
	t.Helper()
	x := &leaving{network: newNetwork(t), before: viewOf(t, "a", "b", "c"), after: viewOf(t, "b", "c")}
	for _, name := range []string{"a", "b", "c"} {
		x.open(name, x.before, load, change)
	}
	x.a, x.b, x.c = x.members["a"], x.members["b"], x.members["c"]
	for _, m := range x.members {
		m.node.await(func() bool { return !m.node.Journal.IsOpening() && m.node.Journal.IsAcquainted() })
	}
	time.Sleep(time.Minute)
	return x
}

// key returns the nth key that goes from a to the member.
func (x *leaving) key(to string, nth int) string { return movedKey(x.before, x.after, "a", to, nth) }

// leave shows the view without a and lets a hand over its copies. It returns how long that took.
func (x *leaving) leave(ctx context.Context) time.Duration {
	x.show(x.after, x.a, x.b, x.c)
	synctest.Wait()
	began := time.Now()
	x.a.node.Handler().Drain(ctx)
	return time.Since(began)
}

// pause is how long a push of a few bytes may pause for the rate.
const pause = 10 * time.Microsecond

// early reports whether a time of a copy that was handed over is that of the giver, or earlier by the pause for the rate and by
// what a frame cuts off.
func early(got, had int64) bool { return got <= had && got > had-2*int64(pause) }

// has returns the value that a member has for a key.
func (m *member) has(key string) string {
	if e, ok := m.node.Owned.Get(key); ok {
		return string(e.Value)
	}
	return ""
}

// A node that leaves gives its copies to their new owners, with their times, tags and versions. It gives neither failures nor
// replicas, nor what is invalid or past its hard expiry.
func TestHandOver(t *testing.T) {
	tag := fence.TagHash("t")
	for name, x := range map[string]struct {
		e    store.Entry
		prep func(c node, key string)
		want bool
	}{
		"fresh":                 {e: store.Entry{Soft: 20 * second}, want: true},
		"stale":                 {e: store.Entry{Soft: -5 * second}, want: true},
		"loaded in the future":  {e: store.Entry{Soft: 20 * second, Loaded: 11 * second}, want: true},
		"absent":                {e: store.Entry{Flags: store.NotFound, Soft: 40 * second}, want: true},
		"tagged, of a version":  {e: store.Entry{Soft: 20 * second, Version: 9, Tags: fence.TagsAt([]uint32{tag}, 0)}, want: true},
		"a failure":             {e: store.Entry{Flags: store.Failed, Soft: 20 * second}},
		"for the callers alone": {e: store.Entry{Flags: store.Passing, Soft: 20 * second}},
		"a replica":             {e: store.Entry{Replica: true, Soft: 20 * second}},
		"invalidated by tag":    {e: store.Entry{Soft: 20 * second, Tags: fence.TagsAt([]uint32{tag}, 0)}, prep: func(c node, _ string) { c.invalidateTag("t") }},
		"past its hard expiry":  {e: store.Entry{Soft: -50 * second, Hard: -40 * second}},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				cleared, drained := 0, 0
				n := newLeaving(t, constant, func(s *setup) {
					s.Freshness.StaleWhileRevalidate = 10 * time.Second
					s.Near, s.OnDrain = countingNear{&cleared}, func() { drained++ }
				})
				key := n.key("b", 0)
				e := x.e
				if e.Loaded, e.Hard, e.Cost = e.Loaded-10*second, e.Hard+40*second, time.Second; e.Flags == 0 {
					e.Value = []byte("v")
				}
				had := n.a.node.plant(key, e)
				if x.prep != nil {
					x.prep(n.a.node, key)
				}
				if took := n.leave(background); took > pause || cleared != 1 || drained != 1 || !n.a.node.Leaving.Load() {
					t.Errorf("took %v; cleared %d times, drained %d times", took, cleared, drained)
				}
				got, ok := n.b.node.Owned.Get(key)
				if ok != x.want || n.b.node.Stats.PushesKept.Load() != n.a.node.Stats.Pushed.Load() || (n.a.node.Stats.Pushed.Load() == 1) != x.want {
					t.Fatalf("the new owner has %+v; pushed %d, kept %d", got, n.a.node.Stats.Pushed.Load(), n.b.node.Stats.PushesKept.Load())
				}
				if !ok {
					return
				}
				swr := min(had.Soft+10*second, had.Hard)
				if e.Flags == store.NotFound {
					swr = had.Soft
				}
				if !got.Handed || got.Replica || got.Flags != e.Flags || got.Version != e.Version || len(got.Tags.List()) != len(e.Tags.List()) || string(got.Value) != string(e.Value) ||
					!early(got.Loaded, min(had.Loaded, n.b.node.Clock.Now())) || !early(got.Soft, had.Soft) || !early(got.SWR, swr) || !early(got.Hard, had.Hard) || got.Cost != time.Second {
					t.Errorf("a had %+v\nb has %+v", had, got)
				}
				synctest.Wait()
			})
		})
	}
}

// countingNear is a near tier that counts how often it is cleared.
type countingNear struct{ cleared *int }

func (countingNear) Hits() int64 { return 0 }
func (n countingNear) Clear()    { *n.cleared++ }

// A push carries up to MaxPushed copies and about 256 KiB, or one larger copy. Copies that are gone do not count.
func TestPushSizes(t *testing.T) {
	for name, x := range map[string]struct {
		entries, size int
		want          []int
	}{
		"small ones":         {codec.MaxPushed + 88, 1, []int{codec.MaxPushed, 88}},
		"as many as fit":     {codec.MaxPushed, 1, []int{codec.MaxPushed}},
		"large ones":         {5, 100 << 10, []int{2, 2, 1}},
		"just two in one":    {4, 128<<10 - 20 - 8, []int{2, 2}},
		"just not":           {4, 128<<10 - 20 - 7, []int{1, 1, 1, 1}},
		"larger than a push": {2, 300 << 10, []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newLeaving(t, constant, func(s *setup) { s.OwnedBytes, s.ValueLimit = 64<<20, 1<<20 })
				n.after = viewOf(t, "b")
				for i := range x.entries {
					key := fmt.Sprintf("%020d", i)
					n.a.node.plant(key, store.Entry{Value: make([]byte, x.size), Soft: 20 * second, SWR: 20 * second, Hard: 20 * second, Tags: fence.TagsAt([]uint32{1, 2}, 0)})
				}
				var sizes []int
				n.setMeddle(func(_, _ string, req *codec.Request, _ *codec.Response) (bool, error) {
					if len(req.Pushed) > 0 {
						sizes = append(sizes, len(req.Pushed))
					}
					return false, nil
				})
				n.leave(background)
				if !slices.Equal(sizes, x.want) || n.b.node.Stats.PushesKept.Load() != int64(x.entries) {
					t.Errorf("pushes of %v, %d kept", sizes, n.b.node.Stats.PushesKept.Load())
				}
			})
		})
	}
}

// The copies in most demand go first, and the rate holds for all members together.
func TestHandOverRate(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		n := newLeaving(t, constant, func(s *setup) { s.OwnedBytes, s.ValueLimit, s.HandoffRate = 16<<20, 1<<20, 100<<10 })
		for i := range 8 {
			to := []string{"b", "c"}[i%2]
			key := n.key(to, i/2)
			n.a.node.plant(key, store.Entry{Value: make([]byte, 150<<10), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
			for range i / 2 {
				n.a.node.Owned.Get(key)
			}
		}
		var order []string
		n.setMeddle(func(_, to string, req *codec.Request, _ *codec.Response) (bool, error) {
			if len(req.Pushed) > 0 && to == "b" {
				order = append(order, string(req.Pushed[0].Key))
			}
			return false, nil
		})
		took := n.leave(background)
		if took < 9*time.Second || took > 13*time.Second || n.a.node.Stats.Pushed.Load() != 8 {
			t.Errorf("1200 KiB at 100 KiB a second took %v", took)
		}
		if want := []string{n.key("b", 3), n.key("b", 2), n.key("b", 1), n.key("b", 0)}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
	})
	simtime.Test(t, func(t *testing.T) {
		n := newLeaving(t, constant, func(s *setup) { s.HandoffRate = -1 })
		n.a.node.plant(n.key("b", 0), store.Entry{Soft: second, SWR: second, Hard: second})
		if took := n.leave(background); took != 0 || n.count(codec.KindPush, "a", "") != 0 {
			t.Errorf("a rate below 0 pushes %d times in %v", n.count(codec.KindPush, "a", ""), took)
		}
	})
}

// A member that does not answer is tried three times on each way; what could not be pushed is pushed again a quarter of a second
// later, until the time for it is over.
func TestHandOverToASilentMember(t *testing.T) {
	for name, x := range map[string]struct {
		downFor time.Duration
		through bool // another member reaches it
		limit   time.Duration
		handed  bool
		least   time.Duration
		most    time.Duration
	}{
		"through another": {time.Hour, true, time.Minute, true, 0, time.Second},
		"after a while":   {3 * time.Second, false, time.Minute, true, 3 * time.Second, 4 * time.Second},
		"not at all":      {time.Hour, false, 5 * time.Second, false, 5 * time.Second, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newLeaving(t, constant, nil)
				key := n.key("b", 0)
				n.a.node.plant(key, store.Entry{Value: []byte("v"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
				began := time.Now()
				var direct, relayed []time.Duration
				n.setMeddle(func(from, to string, req *codec.Request, _ *codec.Response) (bool, error) {
					if req.Kind != codec.KindPush || time.Since(began) >= x.downFor {
						return false, nil
					}
					if from == "a" && to == "b" {
						direct = append(direct, time.Since(began))
					} else if from == "a" {
						relayed = append(relayed, time.Since(began))
					}
					if to == "b" && (from == "a" || !x.through) {
						return false, errDown
					}
					return false, nil
				})
				ctx, cancel := context.WithTimeout(background, x.limit)
				defer cancel()
				took := n.leave(ctx)
				if (n.b.has(key) == "v") != x.handed || took < x.least || took > x.most {
					t.Errorf("handed: %v after %v", n.b.has(key), took)
				}
				if warned := n.a.node.log.counts()["not all copies were handed over"]; (warned == 0) != x.handed {
					t.Errorf("%d warnings", warned)
				}
				if x.through {
					return
				}
				if len(direct) < 6 || direct[1] != 100*time.Millisecond || len(relayed) < 3 || relayed[0] != 50*time.Millisecond {
					t.Fatalf("calls at %v, through another at %v", direct, relayed)
				}
				if pause := direct[3] - relayed[2]; pause < 250*time.Millisecond || pause > 300*time.Millisecond {
					t.Errorf("again after %v", pause)
				}
			})
		})
	}
}

// A member that leaves takes no copies: they go to the owners in the view without it, or nowhere if all others leave.
func TestHandOverWhileOthersLeave(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		n := newLeaving(t, constant, nil)
		keys := []string{n.key("b", 0), n.key("b", 1), n.key("c", 0)}
		for _, key := range keys {
			n.a.node.plant(key, store.Entry{Value: []byte("v"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
		}
		n.b.node.Leaving.Store(true)
		time.AfterFunc(time.Second, func() { n.show(viewOf(t, "c"), n.a, n.c) })
		if took := n.leave(background); took < time.Second || took > time.Second+pause {
			t.Errorf("took %v", took)
		}
		for _, key := range keys {
			if n.c.has(key) != "v" || n.b.has(key) != "" {
				t.Errorf("%s: b has %q, c has %q", key, n.b.has(key), n.c.has(key))
			}
		}
	})
	simtime.Test(t, func(t *testing.T) {
		n := newLeaving(t, constant, nil)
		n.a.node.plant(n.key("b", 0), store.Entry{Soft: second, SWR: second, Hard: second})
		n.a.node.plant(n.key("c", 0), store.Entry{Soft: second, SWR: second, Hard: second})
		n.b.node.Leaving.Store(true)
		n.c.node.Leaving.Store(true)
		if took := n.leave(background); took != 0 || n.a.node.log.counts()["not all copies were handed over"] != 0 {
			t.Errorf("took %v, log %v", took, n.a.node.log.counts())
		}
	})
	simtime.Test(t, func(t *testing.T) { // the view does not change in time
		n := newLeaving(t, constant, nil)
		n.a.node.plant(n.key("b", 0), store.Entry{Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
		n.b.node.Leaving.Store(true)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		if took := n.leave(ctx); took < time.Second || took > time.Second+pause || n.a.node.log.counts()["not all copies were handed over"] != 1 {
			t.Errorf("took %v, log %v", took, n.a.node.log.counts())
		}
	})
}

// What is being loaded when a node begins to leave is handed over once it is there.
func TestHandOverOfALoad(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		n := newLeaving(t, numbered(&loads), nil)
		before, during := n.key("b", 0), n.key("b", 1)
		n.a.node.plant(before, store.Entry{Value: []byte("v"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = n.a.node.read(background, during) })
		time.Sleep(500 * time.Millisecond)
		took := n.leave(background)
		if n.b.has(during) == "" || took < 500*time.Millisecond || took > 600*time.Millisecond || n.a.node.Stats.Pushed.Load() != 2 {
			t.Errorf("b has %q after %v, %d pushed", n.b.has(during), took, n.a.node.Stats.Pushed.Load())
		}
		wg.Wait()
	})
}

// The receiver takes copies only with a token, which it gives a pusher that has applied what the receiver has. A receiver that
// restarts asks for that again, and one of another contract takes nothing.
func TestTokens(t *testing.T) {
	for name, x := range map[string]struct {
		meddle func(n *leaving, calls int, req *codec.Request, resp *codec.Response) (bool, error)
		change func(name string, s *setup)
		want   []bool // whether each push carried copies
		key    bool   // b has the key in the end
		late   time.Duration
	}{
		"as usual": {want: []bool{false, true}, key: true},
		"b has an invalidation that a lacks": {
			meddle: func(n *leaving, calls int, _ *codec.Request, _ *codec.Response) (bool, error) {
				if calls == 1 {
					owner.Copies{C: n.b.node.Owner}.FenceKey("x", ring.Hash("x"), codec.Mark{}, 0)
					n.b.node.Journal.BeginKey(n.key("b", 0), 0)
				}
				return false, nil
			}, want: []bool{false, false, false}, key: false,
		},
		"no token yet": {
			meddle: func(n *leaving, calls int, _ *codec.Request, resp *codec.Response) (bool, error) {
				if calls > 2 {
					return false, nil
				}
				resp.Status, resp.Incarnation = codec.StatusDone, n.b.node.Journal.Incarnation()
				return true, nil
			}, want: []bool{false, false, false, true}, key: true, late: 100 * time.Millisecond,
		},
		"another cache answers": {
			meddle: func(n *leaving, calls int, _ *codec.Request, resp *codec.Response) (bool, error) {
				if calls != 2 {
					return false, nil
				}
				resp.Status, resp.Incarnation, resp.Seq = codec.StatusDone, 1, 9
				return true, nil
			}, want: []bool{false, true, false, true}, key: true,
		},
		"a token that b never gave": {
			meddle: func(n *leaving, calls int, req *codec.Request, _ *codec.Response) (bool, error) {
				if len(req.Pushed) > 0 {
					req.Token++
				}
				return false, nil
			}, want: []bool{false, true}, key: false,
		},
		"a relayed answer to a direct push": {
			meddle: func(n *leaving, calls int, _ *codec.Request, resp *codec.Response) (bool, error) {
				if calls != 1 {
					return false, nil
				}
				resp.Status, resp.Flags = codec.StatusDone, codec.FlagRelayed
				return true, nil
			}, want: []bool{false, false, true}, key: true, late: 50 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newLeaving(t, constant, nil)
				key := n.key("b", 0)
				n.a.node.plant(key, store.Entry{Value: []byte("v"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
				calls := 0
				var carried []bool
				n.setMeddle(func(from, to string, req *codec.Request, resp *codec.Response) (bool, error) {
					if req.Kind == codec.KindInvalidate {
						return false, errDown // so that a hears of invalidations from the answers alone
					}
					if req.Kind != codec.KindPush || from != "a" {
						return false, nil
					}
					calls++
					carried = append(carried, len(req.Pushed) > 0)
					if x.meddle != nil {
						return x.meddle(n, calls, req, resp)
					}
					return false, nil
				})
				ctx, cancel := context.WithTimeout(background, time.Minute)
				defer cancel()
				if took := n.leave(ctx); took < x.late || took > x.late+60*time.Millisecond {
					t.Errorf("took %v", took)
				}
				if !slices.Equal(carried, x.want) || (n.b.has(key) == "v") != x.key {
					t.Errorf("pushes with copies: %v; b has %q", carried, n.b.has(key))
				}
			})
		})
	}
}

// A receiver takes no copy whose key is none, and none with a token from before it was told of 256 others.
func TestReceiverLimits(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		n := newLeaving(t, constant, nil)
		b := n.b.node
		token := func() uint64 {
			resp := b.ask(background, &codec.Request{Kind: codec.KindPush, News: n.a.node.Journal.Positions()})
			if resp.Status != codec.StatusDone || resp.Seq == 0 || resp.Incarnation != b.Journal.Incarnation() {
				t.Fatalf("%+v", resp)
			}
			return resp.Seq
		}
		push := func(token uint64, key string) bool {
			var resp codec.Response
			req := codec.Request{Kind: codec.KindPush, Token: token, Pushed: []codec.Pushed{{Key: []byte(key), Value: []byte("v"), Soft: time.Second, Hard: time.Second}}}
			if b.Handler().Serve(background, &req, &resp); resp.Seq != 0 {
				t.Error("a push without positions gets a token")
			}
			_, ok := b.Owned.Get(key)
			return ok
		}
		first := token()
		if !push(first, "k") || push(first, "") {
			t.Error("a push is not taken, or one of an empty key is")
		}
		second := token()
		for range 254 {
			token()
		}
		if !push(first, "l") {
			t.Error("256 tokens are not remembered")
		}
		if token(); push(first, "m") || !push(second, "m") {
			t.Error("an old token is remembered, or a newer one is not")
		}
		refused := b.Stats.PushesRefused.Load()
		if b.ask(background, &codec.Request{Kind: codec.KindPush, Token: second, Pushed: []codec.Pushed{{Key: []byte("k"), Age: time.Hour, Hard: time.Second}}}); b.Stats.PushesRefused.Load() != refused+1 {
			t.Error("a copy older than the receiver's is not counted as rejected")
		}
		if resp := b.ask(background, &codec.Request{Kind: codec.KindPush, Schema: 1}); resp.Status != codec.StatusMismatch {
			t.Errorf("%+v", resp)
		}
	})
}
