package owner_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// askMany sends a multi-get and returns its parts.
func (c node) askMany(t *testing.T, ctx context.Context, req *codec.Request) (resp codec.Response, parts []codec.Response) {
	t.Helper()
	answer := c.ask(ctx, req)
	if answer.Status != codec.StatusMany {
		return answer, nil
	}
	if err := cross(&answer, &resp); err != nil {
		t.Fatal(err)
	}
	rest := resp.Value
	for range req.Many {
		var part codec.Response
		var err error
		if rest, err = codec.NextAnswer(&part, rest); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
	}
	return answer, parts
}

// wanted returns a multi-get for keys, as a member with the node's view sends it.
func (c node) wanted(mode codec.Mode, keys ...string) *codec.Request {
	req := codec.Request{Kind: codec.KindGetMany, Mode: mode, View: c.viewPrint(), Namespace: c.NamespaceBytes}
	for _, key := range keys {
		req.Many = append(req.Many, codec.Wanted{Key: []byte(key)})
	}
	return &req
}

// What a multi-get is answered with, by mode: what is there at once, what is loaded in the caller's time, and no values when it
// warms.
func TestManyOfAMember(t *testing.T) {
	const value, absent, pending, same, failed, moved = codec.StatusValue, codec.StatusNotFound, codec.StatusPending, codec.StatusSame, codec.StatusFailed, codec.StatusMoved
	for name, x := range map[string]struct {
		mode   codec.Mode
		change func(c node, r *codec.Request)
		want   [5]codec.Status // of: a copy, an absence, a failure, a key to load, an empty key
		whole  codec.Status    // instead of parts
		served int64
		waits  bool
		after  time.Duration
	}{
		"look":          {mode: codec.ModeLook, want: [5]codec.Status{value, absent, failed, pending, failed}, served: 3},
		"wait":          {mode: codec.ModeWait, want: [5]codec.Status{value, absent, failed, value, failed}, served: 4, waits: true, after: time.Second},
		"warm":          {mode: codec.ModeWarm, want: [5]codec.Status{same, absent, failed, same, failed}, served: 4, waits: true, after: time.Second},
		"look, a load":  {mode: codec.ModeLook, change: func(_ node, r *codec.Request) { r.Chain = []uint64{1} }, want: [5]codec.Status{value, absent, failed, value, failed}, served: 4, waits: true, after: time.Second},
		"has the value": {mode: codec.ModeLook, change: func(c node, r *codec.Request) { e, _ := c.Owned.Get(string(r.Many[0].Key)); r.Many[0].Have = e.Etag }, want: [5]codec.Status{same, absent, failed, pending, failed}, served: 3},
		"has another":   {mode: codec.ModeLook, change: func(_ node, r *codec.Request) { r.Many[0].Have = 8 }, want: [5]codec.Status{value, absent, failed, pending, failed}, served: 3},
		"a new mark":    {mode: codec.ModeLook, change: func(_ node, r *codec.Request) { r.Many[0].Fence = codec.Mark{Incarnation: 9, Seq: 1} }, want: [5]codec.Status{pending, absent, failed, pending, failed}, served: 2},
		"isolated":      {mode: codec.ModeLook, change: func(c node, _ *codec.Request) { c.Isolation.Cut.Store(true) }, whole: codec.StatusIsolated, waits: true},
		"closed":        {mode: codec.ModeLook, change: func(c node, _ *codec.Request) { c.Life.Close() }, whole: codec.StatusClosed},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				_, m := newNetwork(t).pair(func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
					return []byte("new"), owner.Sleep(ctx, time.Second)
				}, nil)
				b := m.node
				time.Sleep(time.Minute)
				keys := []string{keyOf(m.View(), "b", 0), keyOf(m.View(), "b", 1), keyOf(m.View(), "b", 2), keyOf(m.View(), "b", 3), ""}
				b.plant(keys[0], store.Entry{Value: []byte("old"), Etag: 9, Loaded: -5 * second, Soft: 10 * second, SWR: 10 * second, Hard: 20 * second})
				b.plant(keys[1], store.Entry{Flags: store.NotFound, Soft: 10 * second, SWR: 10 * second, Hard: 10 * second})
				b.plant(keys[2], store.Entry{Flags: store.Failed, Soft: 10 * second, SWR: 10 * second, Hard: 10 * second, Rare: &store.Rare{Err: errRemembered}})
				req := b.wanted(x.mode, keys...)
				if x.change != nil {
					x.change(b, req)
				}
				began := time.Now()
				if _, waits := b.waits(req); waits != x.waits {
					t.Errorf("waits: %v", waits)
				}
				b.Stats.ServedPeers.Store(0)
				answer, parts := b.askMany(t, background, req)
				if parts == nil {
					if answer.Status != x.whole {
						t.Errorf("%+v", answer)
					}
					return
				}
				for i, part := range parts {
					if part.Status != x.want[i] || i != 4 && part.Status != pending && part.Flags&codec.FlagSameView == 0 {
						t.Errorf("%d: %+v, want %d", i, part, x.want[i])
					}
				}
				// The times are as when the copy was found.
				if p := parts[0]; p.Status != pending && (p.Age != 5*time.Second || p.Soft != 10*time.Second || p.Hard != 20*time.Second || p.Held != 0) {
					t.Errorf("the copy: %+v", p)
				}
				if p := parts[3]; p.Status != pending && (p.Age != time.Second || p.Soft != 59*time.Second || p.Held != time.Second) {
					t.Errorf("the load: %+v", p)
				}
				if got := b.Stats.ServedPeers.Load(); got != x.served || time.Since(began) != x.after {
					t.Errorf("%d answered after %v", got, time.Since(began))
				}
			})
		})
	}
}

// A member with another view gets the keys that this node owns, and the owners of the others.
func TestManyWithAnotherView(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		_, m := newNetwork(t).pair(constant, nil)
		req := m.node.wanted(codec.ModeWait, keyOf(m.View(), "a", 0), keyOf(m.View(), "b", 0))
		_, parts := m.node.askMany(t, background, req)
		if parts[0].Status != codec.StatusValue || parts[1].Status != codec.StatusValue {
			t.Errorf("%+v", parts)
		}
		req.View++
		_, parts = m.node.askMany(t, background, req)
		if parts[0].Status != codec.StatusMoved || string(parts[0].Owner) != "a" || parts[0].View != m.View().Fingerprint() || parts[1].Status != codec.StatusValue || parts[1].Flags&codec.FlagSameView != 0 {
			t.Errorf("%+v", parts)
		}
	})
}

// A multi-get is answered before its time ends, by an eighth of it and by 50 ms at most, with what is there by then.
func TestManyAnswersEarly(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{80 * time.Millisecond: 70 * time.Millisecond, 4 * time.Second: 3950 * time.Millisecond} {
		simtime.Test(t, func(t *testing.T) {
			_, m := newNetwork(t).pair(func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
				return nil, owner.Sleep(ctx, 9*time.Second)
			}, nil)
			ctx, cancel := context.WithTimeout(background, limit)
			defer cancel()
			began := time.Now()
			_, parts := m.node.askMany(t, ctx, m.node.wanted(codec.ModeWait, keyOf(m.View(), "b", 0)))
			if took := time.Since(began); took != want || parts[0].Status != codec.StatusTimeout {
				t.Errorf("%+v after %v of %v", parts, took, limit)
			}
		})
	}
}

// The loop that reads the connection looks up 256 keys of a multi-get and leaves more to Serve.
func TestManyKeys(t *testing.T) {
	for n, waits := range map[int]bool{256: false, 257: true} {
		simtime.Test(t, func(t *testing.T) {
			_, m := newNetwork(t).pair(constant, nil)
			var keys []string
			for i := range n {
				keys = append(keys, fmt.Sprint(i))
			}
			if _, got := m.node.waits(m.node.wanted(codec.ModeLook, keys...)); got != waits {
				t.Errorf("%d keys: left to Serve: %v", n, got)
			}
		})
	}
}

// Keys are warmed with a quarter of this node's permits and half of the caller's time; a key that got no permit, or no time, is
// pending.
func TestWarm(t *testing.T) {
	for name, x := range map[string]struct {
		permits int
		limit   time.Duration
		warmed  int
		after   time.Duration
	}{
		"all":           {8, 0, 6, 3 * time.Second},
		"few permits":   {2, 0, 6, 6 * time.Second},
		"half the time": {8, 4 * time.Second, 4, 2 * time.Second},
		"no permits":    {0, 0, 0, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, func(ctx context.Context, _ *owner.Run, key string) ([]byte, error) {
					return []byte(key), owner.Sleep(ctx, time.Second)
				}, func(s *setup) { s.Permits.Concurrency, s.Share = 9, func() (int, int) { return x.permits, 1 } })
				var reads []*owner.OwnedRead
				for i := range 6 {
					reads = append(reads, &owner.OwnedRead{Key: fmt.Sprint(i), Hash: ring.Hash(fmt.Sprint(i))})
				}
				ctx, began := background, time.Now()
				if x.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, x.limit)
					defer cancel()
				}
				c.WarmOwn(ctx, reads, nil)
				warmed := 0
				for _, r := range reads {
					if r.Err == nil {
						warmed++
					} else if r.Err != owner.ErrNotWarmed {
						t.Error(r.Err)
					}
				}
				if took := time.Since(began); warmed != x.warmed || took != x.after {
					t.Errorf("%d are warmed after %v", warmed, took)
				}
			})
		})
	}
}
