package owner_test

import (
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// Which values of Put an owner keeps: those that no newer value can exist for.
func TestPut(t *testing.T) {
	tag := fence.TagHash("t")
	for name, x := range map[string]struct {
		prep   func(c node)
		put    owner.Put
		maxTTL time.Duration
		kept   bool
		soft   time.Duration // from Began
		life   time.Duration
	}{
		"a value":           {put: owner.Put{Version: 7}, kept: true, soft: time.Minute},
		"its own TTL":       {put: owner.Put{Version: 7, TTL: time.Hour}, kept: true, soft: time.Hour, life: time.Hour + time.Minute},
		"too long a TTL":    {put: owner.Put{Version: 7, TTL: time.Hour}, maxTTL: time.Hour - 1},
		"as long as it may": {put: owner.Put{Version: 7, TTL: time.Hour}, maxTTL: time.Hour, kept: true, soft: time.Hour, life: time.Hour + time.Minute},
		"expired":           {put: owner.Put{Version: 7, TTL: time.Second}},
		"nearly expired":    {put: owner.Put{Version: 7, TTL: time.Second + 1}, kept: true, soft: time.Second + 1},
		"an older copy":     {prep: func(c node) { c.plant("k", store.Entry{Version: 6, Hard: second}) }, put: owner.Put{Version: 7}, kept: true, soft: time.Minute},
		"that version":      {prep: func(c node) { c.plant("k", store.Entry{Version: 7, Hard: second}) }, put: owner.Put{Version: 7}, kept: true, soft: time.Minute},
		"a newer version":   {prep: func(c node) { c.Journal.BeginKey("k", 8) }, put: owner.Put{Version: 7}},
		"tagged":            {put: owner.Put{Version: 7, Tags: []uint32{tag}}, kept: true, soft: time.Minute},
		"its tag is fenced": {prep: func(c node) { c.invalidateTag("t") }, put: owner.Put{Version: 7, Tags: []uint32{tag}}},
		"another tag":       {prep: func(c node) { c.invalidateTag("u") }, put: owner.Put{Version: 7, Tags: []uint32{tag}}, kept: true, soft: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, constant, func(s *setup) { s.Freshness.MaxTTL = x.maxTTL })
				time.Sleep(2 * time.Minute)
				if x.prep != nil {
					x.prep(c)
				}
				life := max(x.life, c.Journal.LongestLife())
				p := x.put
				p.Key, p.Hash, p.Value, p.Began = "k", ring.Hash("k"), []byte("put"), c.Clock.Now()-second
				p.Mark = codec.Mark{Incarnation: 77, Seq: 1}
				if kept := c.SendPut(background, &p); kept != x.kept || c.Journal.LongestLife() != life {
					t.Fatalf("kept: %v; the longest life is %v", kept, c.Journal.LongestLife())
				}
				e, ok := c.Owned.Get("k")
				if stored := ok && string(e.Value) == "put"; stored != x.kept {
					t.Fatalf("%+v", e)
				}
				if x.kept && (e.Loaded != p.Began || e.Soft != p.Began+int64(x.soft) || e.Version != 7 || e.Etag == 0 || len(e.Tags.List()) != len(p.Tags)) {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

// A put reaches its owner in two steps: the owner shows its clock, and the sender says when the value was the origin's by that
// clock. So neither the difference of the clocks nor the time that the calls take counts.
func TestPutToAnotherMember(t *testing.T) {
	for name, x := range map[string]struct {
		meddle func(calls int, req *codec.Request, resp *codec.Response) (bool, error)
		limit  int
		want   bool
		calls  int
	}{
		"kept":     {want: true, calls: 2},
		"no clock": {meddle: func(int, *codec.Request, *codec.Response) (bool, error) { return false, errDown }, calls: 1},
		"no answer to the value": {meddle: func(n int, _ *codec.Request, _ *codec.Response) (bool, error) {
			return false, []error{nil, errDown}[n-1]
		}, calls: 2},
		"no reading": {meddle: func(_ int, _ *codec.Request, resp *codec.Response) (bool, error) {
			resp.Status = codec.StatusDone
			return true, nil
		}, calls: 1},
		"a reading with a failure": {meddle: func(_ int, _ *codec.Request, resp *codec.Response) (bool, error) {
			resp.Status, resp.Seq = codec.StatusClosed, 1
			return true, nil
		}, calls: 1},
		"not kept": {meddle: func(n int, req *codec.Request, _ *codec.Response) (bool, error) {
			req.Fence.Seq *= uint64(2 - n)
			return false, nil
		}, calls: 2},
		"too large":           {limit: 2, calls: 2},
		"as large as allowed": {limit: 3, want: true, calls: 2},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				a, b := n.pair(constant, func(s *setup) { s.ValueLimit = max(x.limit, 3-3*min(x.limit, 1)) })
				time.Sleep(time.Minute)
				calls, key := 0, keyOf(a.View(), "b", 0)
				n.setMeddle(func(_, _ string, req *codec.Request, resp *codec.Response) (bool, error) {
					if req.Kind != codec.KindPut {
						return false, nil
					}
					calls++
					if req.Timeout != 250*time.Millisecond {
						t.Errorf("a call has %v", req.Timeout)
					}
					time.Sleep(10 * time.Millisecond) // in flight
					if x.meddle != nil {
						return x.meddle(calls, req, resp)
					}
					return false, nil
				})
				p := owner.Put{Key: key, Hash: ring.Hash(key), Version: 7, Value: []byte("put"), Began: a.node.Clock.Now() - second}
				p.Mark = a.node.Journal.Begin(background, nil, 7, partOf(key))
				began := b.node.Clock.Now() - second
				got := a.node.SendPut(background, &p)
				e, ok := b.node.Owned.Get(key)
				if got != x.want || ok != x.want || calls != x.calls {
					t.Fatalf("kept: %v, stored: %v, %d calls", got, ok, calls)
				}
				if ok && (e.Loaded < began-10*int64(time.Millisecond)-1000 || e.Loaded > began || string(e.Value) != "put" || e.Version != 7) {
					t.Errorf("began at %v: %+v", began, e)
				}
				own := keyOf(a.View(), "a", 0)
				p.Key, p.Hash, p.Mark = own, ring.Hash(own), a.node.Journal.Begin(background, nil, 7, partOf(own))
				if !a.node.SendPut(background, &p) || calls != x.calls {
					t.Errorf("a put of this node's own key: %d calls", calls)
				}
			})
		})
	}
}

// How long a call of a put may take: a quarter of InvalidateTimeout, from a tenth of a second to a whole one.
func TestPutTimeout(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{
		time.Second: 250 * time.Millisecond, 10 * time.Second: time.Second, 100 * time.Millisecond: 100 * time.Millisecond,
	} {
		simtime.Test(t, func(t *testing.T) {
			n := newNetwork(t)
			a, _ := n.pair(constant, func(s *setup) { s.InvalidateTimeout = limit })
			n.setMeddle(func(_, _ string, req *codec.Request, _ *codec.Response) (bool, error) {
				if req.Kind == codec.KindPut && req.Timeout != want {
					t.Errorf("%v of %v", req.Timeout, limit)
				}
				return false, nil
			})
			key := keyOf(a.View(), "b", 0)
			a.node.SendPut(background, &owner.Put{Key: key, Hash: ring.Hash(key), Version: 7, Mark: codec.Mark{Incarnation: 77, Seq: 1}})
		})
	}
}

// When the value of a put was the origin's, by the clock of its owner: only readings that this clock has shown count.
func TestBeganAt(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c := alone(t, constant, nil)
		now := 3 * int64(time.Hour)
		seq, own := uint64(now)+1, c.Journal.Incarnation()
		for i, x := range []struct {
			req   codec.Request
			began int64
			ok    bool
		}{
			{codec.Request{Timeout: time.Second}, now - second, true},
			{codec.Request{Timeout: 2 * time.Hour}, now - int64(time.Hour), true},
			{codec.Request{Flags: codec.FlagClock, Clock: codec.Mark{Incarnation: own, Seq: seq}}, now, true},
			{codec.Request{Flags: codec.FlagClock, Clock: codec.Mark{Incarnation: own, Seq: seq - 9}, Since: -time.Second}, now - second - 9, true},
			{codec.Request{Flags: codec.FlagClock, Clock: codec.Mark{Incarnation: own, Seq: seq}, Since: -time.Hour}, now - int64(time.Hour), true},
			{codec.Request{Flags: codec.FlagClock, Clock: codec.Mark{Incarnation: own, Seq: seq}, Since: -time.Hour - 1}, 0, false},
			{codec.Request{Flags: codec.FlagClock, Clock: codec.Mark{Incarnation: own, Seq: seq - 9}, Since: 1}, 0, false},
			{codec.Request{Flags: codec.FlagClock, Clock: codec.Mark{Incarnation: own, Seq: seq + 1}}, 0, false},
			{codec.Request{Flags: codec.FlagClock, Clock: codec.Mark{Incarnation: own}}, 0, false},
			{codec.Request{Flags: codec.FlagClock, Clock: codec.Mark{Incarnation: own + 1, Seq: seq}}, 0, false},
		} {
			if began, ok := c.BeganAt(&x.req, now); began != x.began || ok != x.ok {
				t.Errorf("%d: %d, %v", i, began, ok)
			}
		}
		if c.ShowClock(0) != 1 || c.ShowClock(-5) != 1 {
			t.Error("a clock shows 0, which stands for none")
		}
	})
}

// A put that names an unknown reading is not kept, but its mark is applied; an empty key is an error.
func TestPutWithoutAReading(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		a, b := newNetwork(t).pair(constant, nil)
		key := keyOf(a.View(), "b", 0)
		req := codec.Request{Kind: codec.KindPut, Flags: codec.FlagClock, View: b.node.viewPrint(), Key: []byte(key), Version: 7,
			Clock: codec.Mark{Incarnation: 1, Seq: 1}, Fence: codec.Mark{Incarnation: 77, Seq: 1}}
		if got := b.node.ask(background, &req); got.Status != codec.StatusNotCached || b.node.Stats.Fences.Load() != 1 {
			t.Errorf("%+v, %d fences", got, b.node.Stats.Fences.Load())
		}
		req.Flags, req.Timeout = 0, time.Second // of an earlier version
		req.Fence.Seq++
		if got := b.node.ask(background, &req); got.Status != codec.StatusDone || got.Incarnation != b.node.Journal.Incarnation() {
			t.Errorf("%+v", got)
		}
		req.Key = nil
		if got := b.node.ask(background, &req); got.Status != codec.StatusFailed {
			t.Errorf("%+v", got)
		}
		req.View, req.Key = 0, []byte(keyOf(a.View(), "a", 0))
		if got := b.node.ask(background, &req); got.Status != codec.StatusMoved || string(got.Owner) != "a" {
			t.Errorf("%+v", got)
		}
	})
}
