package owner_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// waits reports whether the handler answers a request at once, and the answer if it does.
func (c node) waits(req *codec.Request) (resp codec.Response, waits bool) {
	return resp, !c.Handler().TryServe(req, &resp)
}

// The status of an answer without a value says what a fill ended with, so that the requester can tell the errors apart.
func TestRefusals(t *testing.T) {
	nested := func(err error) error { return &failure{"other", err} }
	busy := &denial{&governor.Refusal{Why: governor.QueueFull, After: time.Second}}
	for name, x := range map[string]struct {
		err  error
		want codec.Response
		is   error // what the requester recognizes in a StatusFailed
	}{
		"no permit":                {busy, codec.Response{Status: codec.StatusOverloaded, RetryAfter: time.Second, Text: []byte(governor.QueueFull.Text())}, nil},
		"isolated":                 {owner.ErrIsolated, codec.Response{Status: codec.StatusIsolated}, nil},
		"nested isolated":          {nested(owner.ErrIsolated), codec.Response{Status: codec.StatusFailed, Owner: []byte("other")}, owner.ErrIsolated},
		"not cached":               {owner.ErrNotCached, codec.Response{Status: codec.StatusNotCached}, nil},
		"nested not cached":        {nested(owner.ErrNotCached), codec.Response{Status: codec.StatusFailed, Owner: []byte("other")}, owner.ErrNotCached},
		"a cycle":                  {nested(owner.ErrCycle), codec.Response{Status: codec.StatusCycle}, nil},
		"closed":                   {owner.ErrClosed, codec.Response{Status: codec.StatusClosed}, nil},
		"nested closed":            {nested(owner.ErrClosed), codec.Response{Status: codec.StatusFailed, Owner: []byte("other")}, owner.ErrClosed},
		"too large":                {nested(owner.ErrValueTooLarge), codec.Response{Status: codec.StatusTooLarge}, nil},
		"timeout":                  {nested(owner.ErrTimeout), codec.Response{Status: codec.StatusTimeout}, nil},
		"the request's time":       {context.DeadlineExceeded, codec.Response{Status: codec.StatusTimeout}, nil},
		"a cancel":                 {context.Canceled, codec.Response{Status: codec.StatusTimeout}, nil},
		"a nested deadline":        {nested(context.DeadlineExceeded), codec.Response{Status: codec.StatusFailed, Owner: []byte("other")}, context.DeadlineExceeded},
		"any other":                {errors.New("down"), codec.Response{Status: codec.StatusFailed, Text: []byte("down")}, nil},
		"one that travels by name": {fmt.Errorf("tag: %w", owner.ErrBadTag), codec.Response{Status: codec.StatusFailed, Text: []byte("tag: weir: bad tag")}, owner.ErrBadTag},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				a, b := newNetwork(t).pair(constant, nil)
				key := keyOf(a.View(), "b", 0)
				b.node.plant(key, store.Entry{Flags: store.Failed, Soft: second, SWR: second, Hard: second, Rare: &store.Rare{Err: x.err}})
				if x.want.Owner == nil {
					x.want.Owner = []byte("b")
				}
				if x.want.Text == nil {
					x.want.Text = []byte(x.err.Error())
				}
				got, waits := b.node.waits(b.node.get(key, 0))
				failed := got
				got.Incarnation = 0
				got.Flags &^= codec.FlagSameView
				if waits || !reflect.DeepEqual(got, x.want) {
					t.Errorf("\n got %+v\nwant %+v", got, x.want)
				}
				if got.Status != codec.StatusFailed {
					return
				}
				err := owner.ErrorOf(&failed)
				if x.is != nil && !errors.Is(err, x.is) || errors.Is(err, owner.ErrGoexit) || err.Error() != string(got.Text) || (x.is == nil) != (failed.Incarnation == 0) {
					t.Errorf("the requester sees %v", err)
				}
			})
		})
	}
}

// What the loop that reads the connection answers, and what it leaves to Serve because that may wait.
func TestTryServe(t *testing.T) {
	many := func(n int, scope codec.Scope) (list []codec.Invalidation) {
		for i := range n {
			list = append(list, codec.Invalidation{Mark: codec.Mark{Incarnation: 77, Seq: uint64(i + 1)}, Scope: scope, Names: [][]byte{[]byte("x")}})
		}
		return list
	}
	wide := codec.Invalidation{Mark: codec.Mark{Incarnation: 77, Seq: 1}, Scope: codec.ScopeKeys}
	for range 65 {
		wide.Names = append(wide.Names, []byte("x"))
	}
	fits := wide
	fits.Names = fits.Names[:64]
	news := func(n codec.News) func(b node, key string) *codec.Request {
		return func(node, string) *codec.Request { return &codec.Request{Kind: codec.KindInvalidate, News: &n} }
	}
	get := func(flags uint8, change func(b node, r *codec.Request)) func(b node, key string) *codec.Request {
		return func(b node, key string) *codec.Request {
			r := b.get(key, flags)
			if change != nil {
				change(b, r)
			}
			return r
		}
	}
	closed := func(b node, _ *codec.Request) { b.Life.Close() }
	missing := func(b node, r *codec.Request) { b.Owned.Delete(string(r.Key)) }
	for name, x := range map[string]struct {
		req   func(b node, key string) *codec.Request
		want  codec.Status // 0: it is left to Serve
		serve codec.Status // what Serve answers
	}{
		"a copy":                       {get(0, nil), codec.StatusValue, 0},
		"no copy":                      {get(0, missing), 0, codec.StatusValue},
		"no copy and no fill":          {get(codec.FlagNoFill, missing), codec.StatusNotCached, 0},
		"a copy and no fill":           {get(codec.FlagNoFill, nil), codec.StatusValue, 0},
		"a closed cache":               {get(0, closed), codec.StatusClosed, 0},
		"an empty key":                 {get(0, func(_ node, r *codec.Request) { r.Key = nil }), codec.StatusFailed, 0},
		"a key that is too long":       {get(0, func(_ node, r *codec.Request) { r.Key = make([]byte, codec.MaxKey+1) }), codec.StatusFailed, 0},
		"a drill":                      {get(codec.FlagDrill, nil), 0, codec.StatusValue},
		"isolated":                     {get(0, func(b node, _ *codec.Request) { b.Isolation.Cut.Store(true) }), 0, codec.StatusValue},
		"for a load":                   {get(0, func(_ node, r *codec.Request) { r.Chain = []uint64{1} }), 0, codec.StatusValue},
		"with a new mark":              {get(0, func(_ node, r *codec.Request) { r.Fence = codec.Mark{Incarnation: 9, Seq: 1} }), 0, codec.StatusValue},
		"a copy that is too old":       {get(codec.FlagMaxAge, func(_ node, r *codec.Request) { r.MaxAge = store.RefreshAge }), 0, codec.StatusValue},
		"an age of 0, fresh":           {get(codec.FlagMaxAge, nil), codec.StatusValue, 0},
		"an age without the flag":      {get(0, func(_ node, r *codec.Request) { r.MaxAge = store.RefreshAge }), codec.StatusValue, 0},
		"the previous owner's":         {get(codec.FlagPrevious, nil), codec.StatusValue, 0},
		"the previous owner's, none":   {get(codec.FlagPrevious, missing), codec.StatusNotCached, 0},
		"an invalidation":              {news(codec.News{Invalidations: many(64, codec.ScopeKeys)}), codec.StatusDone, 0},
		"no news":                      {func(node, string) *codec.Request { return &codec.Request{Kind: codec.KindInvalidate} }, codec.StatusDone, 0},
		"too many invalidations":       {news(codec.News{Invalidations: many(65, codec.ScopeKeys)}), 0, codec.StatusDone},
		"just as many keys as it does": {news(codec.News{Invalidations: []codec.Invalidation{fits}}), codec.StatusDone, 0},
		"too many keys":                {news(codec.News{Invalidations: []codec.Invalidation{wide}}), 0, codec.StatusDone},
		"everything":                   {news(codec.News{Invalidations: many(1, codec.ScopeAll)}), 0, codec.StatusDone},
		"bases":                        {news(codec.News{Bases: []codec.Base{{Incarnation: 77, Seq: 1}}}), 0, codec.StatusDone},
		"a sync":                       {func(node, string) *codec.Request { return &codec.Request{Kind: codec.KindSync, News: &codec.News{}} }, 0, codec.StatusSynced},
		"a push":                       {func(node, string) *codec.Request { return &codec.Request{Kind: codec.KindPush} }, 0, codec.StatusDone},
		"a push to a closed cache": {func(b node, _ string) *codec.Request {
			b.Life.Close()
			return &codec.Request{Kind: codec.KindPush}
		}, 0, codec.StatusClosed},
		"a sync with a closed cache": {func(b node, _ string) *codec.Request {
			b.Life.Close()
			return &codec.Request{Kind: codec.KindSync, News: &codec.News{}}
		}, 0, codec.StatusClosed},
		"a put to a closed cache": {func(b node, key string) *codec.Request {
			b.Life.Close()
			return &codec.Request{Kind: codec.KindPut, Flags: codec.FlagClock}
		}, codec.StatusClosed, 0},
		"an invalidation to relay": {func(b node, _ string) *codec.Request {
			return &codec.Request{Kind: codec.KindInvalidate, Flags: codec.FlagRelay, Target: []byte("b")}
		}, 0, codec.StatusDone},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				a, b := newNetwork(t).pair(constant, nil)
				key := keyOf(a.View(), "b", 0)
				b.node.plant(key, store.Entry{Value: []byte("v"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
				req := x.req(b.node, key)
				got, waits := b.node.waits(req)
				if waits != (x.want == 0) || !waits && got.Status != x.want {
					t.Errorf("waits: %v, status %d, want %d", waits, got.Status, x.want)
				}
				if !waits {
					return
				}
				got = codec.Response{}
				b.node.Handler().Serve(background, req, &got)
				if got.Status != x.serve {
					t.Errorf("Serve answers with %d (%s), want %d", got.Status, got.Text, x.serve)
				}
			})
		})
	}
}

// Which member answers for a key when the views differ: the one that owns it in its own view, one that is asked as the
// stand-in, and one that leaves, as long as its copy is fresh. Others name the owner.
func TestAnswersFor(t *testing.T) {
	fresh := store.Entry{Value: []byte("v"), Soft: 10, SWR: second, Hard: second}
	stale := store.Entry{Value: []byte("v"), Soft: 0, SWR: second, Hard: second}
	for name, x := range map[string]struct {
		same, own   bool
		flags       uint8
		leaving     bool
		gone        bool // the node is not in its own view
		e           store.Entry
		want        bool
		pastReading bool
	}{
		"its own key":                        {own: true, e: fresh, want: true},
		"another's":                          {e: fresh},
		"another's, in the same view":        {same: true, e: fresh, want: true},
		"as the stand-in":                    {flags: codec.FlagSuccessor, e: fresh, want: true},
		"it leaves":                          {leaving: true, e: fresh, want: true},
		"it has left":                        {gone: true, e: fresh, want: true},
		"it leaves, the copy is stale":       {leaving: true, e: stale},
		"it leaves, and has nothing":         {leaving: true},
		"it leaves, and has a failure":       {leaving: true, e: store.Entry{Flags: store.Failed, Soft: second, Hard: second, Rare: &store.Rare{Err: errDown}}},
		"it leaves, and has a replica":       {leaving: true, e: store.Entry{Replica: true, Soft: second, SWR: second, Hard: second}},
		"it leaves, and has an expired copy": {leaving: true, e: store.Entry{Soft: 0, SWR: 0, Hard: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				a, b := n.pair(constant, nil)
				owns := "a"
				if x.own {
					owns = "b"
				}
				key := keyOf(a.View(), owns, 0)
				if x.gone {
					n.show(viewOf(t, "a"), b)
				}
				if x.e.Hard != 0 {
					b.node.plant(key, x.e)
				}
				b.node.Leaving.Store(x.leaving)
				req := b.node.get(key, x.flags)
				if !x.same {
					req.View++
				}
				got := b.node.ask(background, req)
				if answers := got.Status == codec.StatusValue; answers != x.want || (got.Flags&codec.FlagSameView != 0) != x.same {
					t.Errorf("%+v", got)
				}
				if !x.want && (got.Status != codec.StatusMoved || string(got.Owner) != owns || got.View != b.View().Fingerprint()) {
					t.Errorf("%+v: the owner is not named", got)
				}
			})
		})
	}
}

// A member that waits for a fill learns for how long, and each request that was answered is counted once.
func TestServeWaits(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		a, b := newNetwork(t).pair(func(ctx context.Context, _ *owner.Run, key string) ([]byte, error) {
			if err := owner.Sleep(ctx, time.Second); strings.Contains(key, "k") {
				return []byte("v"), err
			}
			return nil, errors.New("down")
		}, nil)
		time.Sleep(time.Minute)
		key := keyOf(a.View(), "b", 0)
		got := b.node.ask(background, b.node.get(key, 0))
		if string(got.Value) != "v" || got.Held != time.Second || got.Flags != codec.FlagFilled|codec.FlagSameView || got.Age != time.Second {
			t.Errorf("%+v", got)
		}
		again := b.node.ask(background, b.node.get(key, 0))
		if again.Held != 0 || again.Flags != codec.FlagSameView || b.node.Stats.ServedPeers.Load() != 2 || again.Etag != got.Etag {
			t.Errorf("%+v; %d requests answered", again, b.node.Stats.ServedPeers.Load())
		}
		ctx, cancel := context.WithTimeout(background, 100*time.Millisecond)
		defer cancel()
		if got := b.node.ask(ctx, b.node.get(keyOf(a.View(), "b", 1), 0)); got.Status != codec.StatusTimeout {
			t.Errorf("past its time: %+v", got)
		}
		if running, longest := b.node.Handler().Loads(); running != 1 || longest != 10*time.Second {
			t.Errorf("%d loads run, for up to %v", running, longest)
		}
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

// A relay passes an invalidation on to its target and returns the target's answer as such.
func TestRelay(t *testing.T) {
	for name, x := range map[string]struct {
		target  string
		kind    codec.Kind
		down    bool
		want    codec.Status
		relayed bool
	}{
		"to another member":          {"c", codec.KindInvalidate, false, codec.StatusDone, true},
		"to itself":                  {"b", codec.KindInvalidate, false, codec.StatusDone, true},
		"to a stranger":              {"x", codec.KindInvalidate, false, codec.StatusFailed, false},
		"to one that is down":        {"c", codec.KindInvalidate, true, codec.StatusFailed, false},
		"a push":                     {"c", codec.KindPush, false, codec.StatusSynced, true},
		"a push to itself":           {"b", codec.KindPush, false, codec.StatusSynced, true},
		"a push to one that is down": {"c", codec.KindPush, true, codec.StatusFailed, false},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				view := viewOf(t, "a", "b", "c")
				var all []*member
				for _, name := range []string{"a", "b", "c"} {
					all = append(all, n.open(name, view, constant, nil))
				}
				for _, m := range all {
					m.node.await(func() bool { return !m.node.Journal.IsOpening() && m.node.Journal.IsAcquainted() })
				}
				key := keyOf(view, "a", 0)
				for _, m := range all[1:] {
					m.node.plant(key, store.Entry{Value: []byte("v"), Soft: 60 * second, SWR: 60 * second, Hard: 60 * second})
				}
				n.setMeddle(func(_, to string, _ *codec.Request, _ *codec.Response) (bool, error) {
					if x.down {
						return false, errDown
					}
					return false, nil
				})
				all[0].node.Journal.BeginKey("other", 0) // a push that knows nothing lacks this one
				all[0].node.await(func() bool {
					return x.down || !slices.ContainsFunc(all, func(m *member) bool { return m.node.Stats.Fences.Load() == 0 })
				})
				req := codec.Request{Kind: x.kind, Flags: codec.FlagRelay, Target: []byte(x.target), Timeout: time.Second, News: &codec.News{}}
				if x.kind == codec.KindInvalidate {
					req.News.Invalidations = []codec.Invalidation{{Mark: codec.Mark{Incarnation: 77, Seq: 1}, Scope: codec.ScopeKeys, Names: [][]byte{[]byte(key)}}}
				}
				got := all[1].node.ask(background, &req)
				if relayed := got.Flags&codec.FlagRelayed != 0; got.Status != x.want || relayed != x.relayed || x.want == codec.StatusSynced && len(got.Value) == 0 {
					t.Errorf("%+v", got)
				}
				if x.want != codec.StatusFailed || len(got.Text) > 0 {
					return
				}
				t.Error("the failure has no text")
			})
		})
	}
}

// A member that opens tells which members it has not compared positions with, and a closed one none.
func TestPositionsDue(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.open("a", viewOf(t, "a", "b"), constant, nil)
		if names := a.node.Handler().PositionsDue(); !slices.Equal(names, []string{"b"}) {
			t.Errorf("%v", names)
		}
		a.node.Life.Close()
		if names := a.node.Handler().PositionsDue(); names != nil {
			t.Errorf("%v of a closed cache", names)
		}
	})
}
