package tier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
)

var background = context.Background()

// With 3 nodes and 200 callers on each, a key is loaded once.
func TestClusterLoadsOnce(t *testing.T) {
	for _, took := range []time.Duration{0, 40 * time.Millisecond} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 3), newOrigin()
			o.delay = func() time.Duration { return took }
			caches := s.start(o, Config[simValue]{})
			defer s.stop(caches)
			key := keyOf(s.nodes["n0"].View(), "n1", 0)
			var wg sync.WaitGroup
			for _, c := range caches {
				for range 200 {
					wg.Go(func() {
						if _, err := c.Get(background, key); err != nil {
							t.Error(err)
						}
					})
				}
			}
			wg.Wait()
			if n := o.loads.Load(); n != 1 {
				t.Errorf("%d loads", n)
			}
		})
	}
}

// If the owner cannot be reached, every node turns to the same successor, which keeps its fill for a short time.
func TestOwnerUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 4), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		view := s.nodes["n0"].View()
		key := keyOf(view, "n1", 0)
		next, _ := view.Successor(key)
		s.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n1" || to == "n1"} })
		var wg sync.WaitGroup
		for name, c := range caches {
			for range 50 {
				if name == "n1" {
					continue
				}
				wg.Go(func() {
					v, err := c.Get(background, key)
					if err != nil || v.Node != next.Name {
						t.Errorf("%s got %+v, %v: want a load at %s", name, v, err, next.Name)
					}
				})
			}
		}
		wg.Wait()
		if n := o.loads.Load(); n != 1 {
			t.Errorf("%d loads", n)
		}
		a, err := caches[next.Name].Read(background, key, ReadOptions{MaxAge: AnyAge})
		if err != nil {
			t.Fatal(err)
		}
		_ = pause(background, owner.SuccessorTTL-a.Age+time.Millisecond)
		for name, c := range caches {
			if name != "n1" {
				_, _ = c.Read(background, key, ReadOptions{})
			}
		}
		if n := o.loads.Load(); n != 2 {
			t.Errorf("%d loads after the successor's time", n)
		}
	})
}

// A stand-in owner that becomes the owner keeps what it filled for the full time; one that does not keeps it for a
// short time.
func TestStandInBecomesOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 4), newOrigin()
		caches := s.start(o, Config[simValue]{Freshness: Freshness{TTL: time.Minute, NearTTL: time.Second, Jitter: -1, RefreshAhead: -1}})
		defer s.stop(caches)
		view := s.nodes["n0"].View()
		key := keyOf(view, "n1", 0)
		next, _ := view.Successor(key)
		s.setRule(func(from, to string, _ codec.Kind, _ bool) hop { return hop{lost: from == "n1" || to == "n1"} })
		read := func(want int64) {
			t.Helper()
			for name, c := range caches {
				if name != "n1" {
					if _, err := c.Read(background, key, ReadOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n := o.loads.Load(); n != want {
				t.Errorf("%d loads, want %d", n, want)
			}
		}
		read(1)
		_ = pause(background, owner.SuccessorTTL+time.Second)
		read(2) // it was kept for a short time
		var rest []string
		for _, name := range s.names {
			if name != "n1" {
				rest = append(rest, name)
			}
		}
		without := simView(t, rest...)
		if without.Owner(key).Name != next.Name {
			t.Fatalf("%s would own it, and %s stood in", without.Owner(key).Name, next.Name)
		}
		for _, name := range rest {
			s.nodes[name].setView(without)
		}
		synctest.Wait()
		_ = pause(background, 3*owner.SuccessorTTL)
		read(2)
		_ = pause(background, time.Minute)
		read(3)
	})
}

// Two members each believe that the other is the owner, or name a third one: every read still gets an answer.
func TestViewsDisagree(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		caches := s.start(o, Config[simValue]{NearBytes: -1})
		defer s.stop(caches)
		full := s.nodes["n0"].View()
		a, b := simView(t, "n1", "n2"), simView(t, "n0", "n2")
		s.nodes["n0"].setView(a)
		s.nodes["n1"].setView(b)
		key := ""
		for i := 0; ; i++ {
			key = fmt.Sprint("k", i)
			if a.Owner(key).Name == "n1" && b.Owner(key).Name == "n0" {
				break
			}
		}
		began := time.Now()
		var wg sync.WaitGroup
		for _, c := range caches {
			for range 20 {
				wg.Go(func() {
					if _, err := c.Get(background, key); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		if d := time.Since(began); d > 2*viewPatience {
			t.Errorf("took %v", d)
		}
		if n := o.loads.Load(); n > 3 {
			t.Errorf("%d loads", n)
		}
		if s.gets > 3*20*2+3*20 {
			t.Errorf("%d requests", s.gets)
		}
		// A view that arrives in time is used.
		s.nodes["n1"].setView(full)
		s.nodes["n0"].setView(simView(t, "n0", "n1"))
		key = ""
		for i := 0; key == ""; i++ {
			if k := fmt.Sprint("m", i); s.nodes["n0"].View().Owner(k).Name == "n1" && full.Owner(k).Name == "n2" {
				key = k
			}
		}
		wg.Go(func() {
			_ = pause(background, viewPatience/2)
			s.nodes["n0"].setView(full)
		})
		if v, err := caches["n0"].Get(background, key); err != nil || v.Node != "n2" {
			t.Errorf("got %+v, %v", v, err)
		}
		wg.Wait()
	})
}

// A leader of a call that leaves, or runs out of time, does not fail the callers that joined.
func TestLeaderLeaves(t *testing.T) {
	for _, how := range []string{"cancel", "deadline"} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 2), newOrigin()
			o.delay = func() time.Duration { return 50 * time.Millisecond }
			caches := s.start(o, Config[simValue]{})
			defer s.stop(caches)
			key, c := keyOf(s.nodes["n0"].View(), "n1", 0), caches["n0"]
			ctx, cancel := context.WithCancel(background)
			if how == "deadline" {
				ctx, cancel = context.WithTimeout(background, 10*time.Millisecond)
			}
			defer cancel()
			var wg sync.WaitGroup
			wg.Go(func() {
				want := map[string]error{"cancel": context.Canceled, "deadline": context.DeadlineExceeded}[how]
				if _, err := c.Get(ctx, key); err != want {
					t.Errorf("%s: the leader got %v", how, err)
				}
			})
			synctest.Wait()
			for range 20 {
				wg.Go(func() {
					if _, err := c.Get(background, key); err != nil {
						t.Errorf("%s: who joined got %v", how, err)
					}
				})
			}
			synctest.Wait()
			if how == "cancel" {
				cancel()
			}
			wg.Wait()
			if n := o.loads.Load(); n != 1 {
				t.Errorf("%s: %d loads", how, n)
			}
		})
	}
}

// A leader whose deadline has passed, but whose context's timer is late, does not fail the other callers.
func TestEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := lateContext{background, time.Now().Add(time.Millisecond)}
		if owner.Ended(ctx) || owner.IsContext(ctx, context.DeadlineExceeded) {
			t.Error("ended before its deadline")
		}
		_ = pause(background, time.Millisecond)
		if !owner.Ended(ctx) || !owner.IsContext(ctx, context.DeadlineExceeded) || owner.IsContext(ctx, ErrNotFound) {
			t.Error("not ended at its deadline")
		}
	})
}

type lateContext struct {
	context.Context
	at time.Time
}

func (c lateContext) Deadline() (time.Time, bool) { return c.at, true }

// Ages and expiries are right however long the network takes, and a near copy ends with its lease.
func TestTimesAcrossTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		f := Freshness{TTL: 10 * time.Second, NearTTL: 2 * time.Second, RefreshAhead: -1, Jitter: -1}
		caches := s.start(o, Config[simValue]{Freshness: f})
		defer s.stop(caches)
		s.acquaint(caches)
		key, c := keyOf(s.nodes["n0"].View(), "n1", 0), caches["n0"]
		exchanged(t, c, "n1")
		began := time.Now()
		if _, err := caches["n1"].Get(background, key); err != nil {
			t.Fatal(err)
		}
		_ = pause(background, 3*time.Second)
		s.setRule(func(_, _ string, _ codec.Kind, answer bool) hop { return hop{delay: 500 * time.Millisecond} })
		a, err := c.Read(background, key, ReadOptions{MaxAge: AnyAge})
		if err != nil || a.Source != SourceOwned || a.Age < time.Since(began) || a.Age > time.Since(began)+600*time.Millisecond {
			t.Errorf("%+v, %v: the load began %v ago", a, err, time.Since(began))
		}
		synctest.Wait()
		// The owner answered at 3.5 s; the lease ends at 5.5 s at the latest.
		asked := s.count("n0", "n1")
		_, _ = c.Get(background, key)
		if s.count("n0", "n1") != asked {
			t.Error("the near copy is not used")
		}
		_ = pause(background, time.Until(began.Add(5500*time.Millisecond)))
		_, _ = c.Get(background, key)
		if s.count("n0", "n1") == asked {
			t.Error("the near copy was used past its lease")
		}
		// A copy that expires in transit is not served.
		_ = pause(background, time.Until(began.Add(9400*time.Millisecond)))
		s.setRule(func(_, _ string, _ codec.Kind, answer bool) hop {
			if answer {
				return hop{delay: time.Second}
			}
			return hop{}
		})
		a, err = c.Read(background, key, ReadOptions{MaxAge: AnyAge})
		if err != nil || a.Age > f.TTL || a.Source != SourceFill {
			t.Errorf("%+v, %v: past hard expiry", a, err)
		}
		if n := o.loads.Load(); n != 2 {
			t.Errorf("%d loads", n)
		}
	})
}

// A copy that expires in transit twice, because the second request is faster than the first, makes no node but the
// owner load.
func TestExpiredTwiceOnItsWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		f := Freshness{TTL: 10 * time.Second, RefreshAhead: -1, Jitter: -1}
		caches := s.start(o, Config[simValue]{Freshness: f})
		defer s.stop(caches)
		s.acquaint(caches)
		key, c := keyOf(s.nodes["n0"].View(), "n1", 0), caches["n0"]
		exchanged(t, c, "n1")
		if _, err := caches["n1"].Get(background, key); err != nil {
			t.Fatal(err)
		}
		_ = pause(background, 9400*time.Millisecond)
		var asks atomic.Int64 // requests for the key
		s.setRule(func(_, _ string, kind codec.Kind, answer bool) hop {
			switch {
			case kind != codec.KindGet:
				return hop{}
			case answer:
				return hop{delay: 200*time.Millisecond*time.Duration(asks.Load()-1) + 50*time.Millisecond}
			case asks.Add(1) == 1:
				return hop{delay: 350 * time.Millisecond}
			default:
				return hop{}
			}
		})
		// The owner answers at 9.75 s with 250 ms to live. Counted from the request at 9.4 s, these end at 9.65 s. The
		// second request is sent at 9.8 s; the 200 ms that the same copy still has would end before its answer arrives.
		a, err := c.Read(background, key, ReadOptions{MaxAge: AnyAge})
		if err != nil || a.Source != SourceFill || asks.Load() != 2 {
			t.Errorf("%+v, %v after %d requests", a, err, asks.Load())
		}
		if n := c.own.Stats.Unreachable.Load(); n != 0 || caches["n1"].own.Stats.ServedPeers.Load() != 2 {
			t.Errorf("the owner counts as unreachable %d times", n)
		}
	})
}

// useless is a cluster whose members' answers cannot be used: the copy expired in transit, or another instance
// answered, by turns.
type useless struct {
	*simNode
	gets map[string]int // by member; used by one goroutine
}

func (u useless) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	err := u.simNode.Call(ctx, to, req, resp)
	if err == nil && req.Kind == codec.KindGet {
		if u.gets[to.Name]++; u.gets[to.Name]%3 == 0 {
			resp.Incarnation++
		} else {
			resp.Flags, resp.Hard = resp.Flags&^codec.FlagFilled, 0
		}
	}
	return err
}

// breaking is a cluster whose member n1 is lost after its first answer, which expired in transit or cannot be decoded.
type breaking struct {
	*simNode
	spoil func(resp *codec.Response)
	asked *int // n1
}

func (b breaking) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind != codec.KindGet || to.Name != "n1" {
		return b.simNode.Call(ctx, to, req, resp)
	}
	if *b.asked++; *b.asked > 1 {
		return errors.New("connection reset by peer")
	}
	err := b.simNode.Call(ctx, to, req, resp)
	b.spoil(resp)
	return err
}

// An owner that is lost between two requests of a read is skipped, whatever its first answer was.
func TestOwnerLostBetweenRequests(t *testing.T) {
	for name, spoil := range map[string]func(resp *codec.Response){
		"expired":     func(resp *codec.Response) { resp.Flags, resp.Hard = resp.Flags&^codec.FlagFilled, 0 },
		"undecodable": func(resp *codec.Response) { resp.Value = []byte{0xc1} },
	} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 3), newOrigin()
			asked := 0
			key := keyOf(s.nodes["n0"].View(), "n1", 0)
			var c *Cache[simValue]
			for _, node := range []string{"n1", "n2", "n0"} {
				var cluster Cluster = s.nodes[node]
				if node == "n0" {
					cluster = breaking{s.nodes[node], spoil, &asked}
				}
				var err error
				if c, err = New(Config[simValue]{Cluster: cluster, Namespace: "breaking", NearBytes: MinBytes, Loader: o.loader(node), Freshness: Freshness{TTL: time.Hour, RefreshAhead: -1, Jitter: -1}}); err != nil {
					t.Fatal(err)
				}
				defer func(c *Cache[simValue]) { _ = c.Close(background) }(c)
			}
			if v, err := c.Get(background, key); err != nil || asked != 2 || v.Node == "n1" {
				t.Errorf("%s: %+v, %v after %d requests to the owner", name, v, err, asked)
			}
		})
	}
}

// A read that gets nothing but useless answers sends four requests to the owner and four to its successor, then loads.
func TestRequestsOfOneRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 3), newOrigin()
		u := useless{s.nodes["n0"], make(map[string]int)}
		key := ""
		for i := 0; key == ""; i++ { // a key that n0 neither owns nor would own next
			k := keyOf(u.View(), "n1", i)
			if next, ok := u.View().Successor(k); ok && next.Name == "n2" {
				key = k
			}
		}
		c, err := New(Config[simValue]{Cluster: u, Namespace: "useless", NearBytes: MinBytes, Loader: o.loader("n0"), Freshness: Freshness{TTL: time.Hour, RefreshAhead: -1, Jitter: -1}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(background) }()
		for _, name := range []string{"n1", "n2"} {
			other, err := New(Config[simValue]{Cluster: s.nodes[name], Namespace: "useless", NearBytes: MinBytes, Loader: o.loader(name), Freshness: Freshness{TTL: time.Hour, RefreshAhead: -1, Jitter: -1}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = other.Close(background) }()
		}
		for _, o := range []ReadOptions{{MaxAge: AnyAge}, {MaxAge: 0}, {MaxAge: time.Minute}} {
			clear(u.gets)
			c.near.Del(key)
			c.own.Owned.Delete(key)
			a, err := c.Read(background, key, o)
			if err != nil || a.Source != SourceFill && o.MaxAge != AnyAge {
				t.Errorf("%+v: %+v, %v", o, a, err)
			}
			if u.gets["n1"] != maxRequests || u.gets["n2"] != maxRequests {
				t.Errorf("%+v: the members got %v requests, want %d each", o, u.gets, maxRequests)
			}
		}
	})
}

// Errors keep their identity across the wire.
func TestErrorsAcrossTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSim(t, 2)
		load := func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
			switch what, _, _ := strings.Cut(f.Key, "-"); what {
			case "notfound":
				return simValue{}, ErrNotFound
			case "over":
				return simValue{}, &OverloadedError{Reason: "so busy", RetryAfter: 7 * time.Second}
			case "hang":
				<-ctx.Done()
				return simValue{}, ctx.Err()
			case "large":
				return simValue{Node: strings.Repeat("x", 2000)}, nil
			case "panic":
				panic("ouch")
			}
			return simValue{}, errors.New("connection refused")
		}
		cfg := Config[simValue]{Loader: load, ValueLimit: 1000, Origin: Origin{Timeout: time.Second}}
		caches := s.start(nil, cfg)
		defer s.stop(caches)
		get := func(what string) error {
			for i := 0; ; i++ {
				if k := fmt.Sprint(what, "-", i); s.nodes["n0"].View().Owner(k).Name == "n1" {
					_, err := caches["n0"].Get(background, k)
					return err
				}
			}
		}
		for what, want := range map[string]error{"notfound": ErrNotFound, "over": ErrOverloaded, "hang": context.DeadlineExceeded, "large": ErrValueTooLarge} {
			if err := get(what); !errors.Is(err, want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		var over *OverloadedError
		if err := get("over"); !errors.As(err, &over) || over.RetryAfter != 7*time.Second || !strings.Contains(err.Error(), "so busy") {
			t.Errorf("over: %v", err)
		}
		var fill *FillError
		if err := get("broken"); !errors.As(err, &fill) || fill.Owner != "n1" || fill.Namespace != "sim" || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("broken: %v", err)
		}
		if err := get("panic"); !errors.As(err, &fill) || !strings.Contains(err.Error(), "ouch") {
			t.Errorf("panic: %v", err)
		}
		ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
		defer cancel()
		if _, err := caches["n0"].Get(ctx, keyOf(s.nodes["n0"].View(), "n1", 0)); err == nil {
			t.Error("no error")
		}
		if _, err := caches["n0"].Get(ctx, "hang-9"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("own deadline: %v", err)
		}
	})
}
