package peertest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

// The controls intentionally break each guarantee: a checker that does not notice proves nothing.

// deaf is a cluster whose invalidations reach no member and are acknowledged all the same.
type deaf struct{ tier.Cluster }

func (d deaf) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Fence.Seq != 0 {
		req.Fence = codec.Mark{}
	}
	return liar{mute(d)}.Call(ctx, to, req, resp)
}

// liar is a cluster whose members confirm invalidations and do not apply them.
type liar struct{ tier.Cluster }

func (l liar) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind != codec.KindInvalidate || len(req.News.Invalidations) == 0 {
		return l.Cluster.Call(ctx, to, req, resp)
	}
	last := req.News.Invalidations[len(req.News.Invalidations)-1].Mark.Seq
	nothing := *req
	nothing.News = new(codec.News)
	err := l.Cluster.Call(ctx, to, &nothing, resp)
	resp.Seq = last
	return err
}

// mute is a cluster whose members do not tell others what they lack.
type mute struct{ tier.Cluster }

func (m mute) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	err := m.Cluster.Call(ctx, to, req, resp)
	var news codec.News
	if err != nil || resp.Status != codec.StatusSynced || codec.DecodeNews(&news, resp.Value) != nil {
		return err
	}
	news.Bases, news.Invalidations = nil, nil
	resp.Value = codec.AppendNews(nil, &news)
	return nil
}

// forgetful is a cluster in which members stop telling one another of an invalidation two seconds after the first time.
type forgetful struct {
	mute
	*told
}

type told struct {
	mu    sync.Mutex // guards first
	first map[codec.Mark]time.Time
}

func (f forgetful) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind != codec.KindInvalidate || len(req.News.Invalidations) == 0 {
		return f.mute.Call(ctx, to, req, resp)
	}
	last := req.News.Invalidations[len(req.News.Invalidations)-1].Mark.Seq
	some := *req
	some.News = new(codec.News)
	f.mu.Lock()
	for _, v := range req.News.Invalidations {
		if _, ok := f.first[v.Mark]; !ok {
			f.first[v.Mark] = time.Now()
		}
		if time.Since(f.first[v.Mark]) < 2*time.Second {
			some.News.Invalidations = append(some.News.Invalidations, v)
		}
	}
	f.mu.Unlock()
	err := f.mute.Call(ctx, to, &some, resp)
	resp.Seq = last
	return err
}

// greedy is a cluster that gives each member the whole cap.
type greedy struct{ tier.Cluster }

func (greedy) Divisor() (members, rank int) { return 1, 0 }

// narrowView is a cluster that divides a cap by the members in its view at once, ignoring a member's loads that began
// before.
type narrowView struct{ tier.Cluster }

func (narrowView) SharesMove() bool { return false }

func (h narrowView) Divisor() (members, rank int) {
	v := h.View()
	return max(v.Len(), 1), max(0, slices.IndexFunc(v.Members(), func(m ring.Member) bool { return m.Name == h.Name() }))
}

// lateGreed gives each node that starts after the first few the whole cap.
func lateGreed(few int) func(tier.Cluster) tier.Cluster {
	started := 0
	return func(c tier.Cluster) tier.Cluster {
		if started++; started > few {
			return greedy{c}
		}
		return c
	}
}

// youngPuts is a cluster whose members treat a put value as being as young as its frame.
type youngPuts struct{ tier.Cluster }

func (y youngPuts) Register(namespace string, schema uint64, h codec.Handler) (func(), error) {
	return y.Cluster.Register(namespace, schema, youngPutHandler{h})
}

type youngPutHandler struct{ codec.Handler }

func (h youngPutHandler) TryServe(req *codec.Request, resp *codec.Response) bool {
	if req.Kind == codec.KindPut && len(req.Value) > 0 {
		req.Flags &^= codec.FlagClock
		req.Timeout = time.Millisecond
	}
	return h.Handler.TryServe(req, resp)
}

// unmarked is a cluster whose requests carry no marks, so members never learn of tokens.
type unmarked struct{ tier.Cluster }

func (u unmarked) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind == codec.KindGet {
		req.Fence = codec.Mark{}
	}
	return u.Cluster.Call(ctx, to, req, resp)
}

// narrow is a cluster in which an invalidation of everything is confirmed and not applied.
type narrow struct{ tier.Cluster }

func (n narrow) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind != codec.KindInvalidate || len(req.News.Invalidations) == 0 {
		return n.Cluster.Call(ctx, to, req, resp)
	}
	some := *req
	some.News = new(codec.News)
	for _, v := range req.News.Invalidations {
		if v.Scope == codec.ScopeAll { // keep its number, but cover nothing
			v.Scope, v.Names = codec.ScopeTags, [][]byte{[]byte("nothing has it")}
		}
		some.News.Invalidations = append(some.News.Invalidations, v)
	}
	return n.Cluster.Call(ctx, to, &some, resp)
}

// untagged returns a loader that reports no tags.
func untagged(l tier.Loader[Value]) tier.Loader[Value] {
	return func(ctx context.Context, f *tier.Fill[Value]) (Value, error) {
		return l(ctx, &tier.Fill[Value]{Key: f.Key})
	}
}

// young is a cluster whose answers claim to be new.
type young struct{ tier.Cluster }

func (y young) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	err := y.Cluster.Call(ctx, to, req, resp)
	resp.Age, resp.Soft, resp.Hard = 0, time.Minute, time.Minute
	return err
}

// patient is a cluster whose calls do not end with their contexts.
type patient struct{ tier.Cluster }

func (p patient) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	ctx = context.WithoutCancel(ctx)
	if req.Timeout > 0 {
		req.Timeout = time.Minute
	}
	return p.Cluster.Call(ctx, to, req, resp)
}

// partial is a cluster whose invalidations reach no member, although the error names one member only.
type partial struct{ tier.Cluster }

func (p partial) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind == codec.KindInvalidate && (to.Name == "n2" || string(req.Target) == "n2" || to.Name == "n0" && p.Name() == "n2") {
		return errors.New("not this one")
	}
	return deaf(p).Call(ctx, to, req, resp)
}

// loner is a cluster in which each node is the only member.
type loner struct{ tier.Cluster }

func (l loner) View() *ring.View {
	v, _ := ring.New([]ring.Member{{Name: l.Name(), Addr: "10.0.0.9:1"}}, ring.Config{Partitions: 3})
	return v
}

// clinging is a cluster that replays earlier answers of its members.
type clinging struct {
	tier.Cluster
	mu   sync.Mutex // guards said
	said map[string]codec.Response
}

func (c *clinging) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind == codec.KindGet {
		c.mu.Lock()
		said, ok := c.said[string(req.Key)]
		c.mu.Unlock()
		if ok {
			*resp = said
			return nil
		}
	}
	key, get := string(req.Key), req.Kind == codec.KindGet
	err := c.Cluster.Call(ctx, to, req, resp)
	if err == nil && get && resp.Status == codec.StatusValue {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.said[key] = codec.Response{Status: resp.Status, Value: bytes.Clone(resp.Value), Age: resp.Age, Soft: resp.Soft, Hard: time.Hour}
	}
	return err
}

// stubborn is a cluster that repeats its requests.
type stubborn struct{ tier.Cluster }

func (s stubborn) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind == codec.KindGet {
		for range 5 {
			var other codec.Response
			if s.Cluster.Call(ctx, to, req, &other) == nil {
				other.Release()
			}
		}
	}
	return s.Cluster.Call(ctx, to, req, resp)
}

// roaming is a cluster that sends requests to every member.
type roaming struct{ tier.Cluster }

func (r roaming) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	for _, m := range r.View().Members() {
		if req.Kind == codec.KindGet && m.Name != to.Name {
			var other codec.Response
			if r.Cluster.Call(ctx, m, req, &other) == nil {
				other.Release()
			}
		}
	}
	return r.Cluster.Call(ctx, to, req, resp)
}

// confused is a cluster that requests another key.
type confused struct{ tier.Cluster }

func (c confused) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind == codec.KindGet {
		req.Key = []byte("k0")
	}
	return c.Cluster.Call(ctx, to, req, resp)
}

// forwarding is a cluster whose members ask others before they answer.
type forwarding struct{ tier.Cluster }

func (f forwarding) Register(namespace string, schema uint64, h codec.Handler) (func(), error) {
	return f.Cluster.Register(namespace, schema, forwarder{h, f.Cluster})
}

type forwarder struct {
	codec.Handler
	cluster tier.Cluster
}

func (f forwarder) Serve(ctx context.Context, req *codec.Request, resp *codec.Response) {
	for _, m := range f.cluster.View().Members() {
		if own := *req; m.Name != f.cluster.Name() && req.Kind == codec.KindGet {
			var other codec.Response
			own.Flags |= codec.FlagSuccessor
			if f.cluster.Call(ctx, m, &own, &other) == nil {
				other.Release()
			}
			break
		}
	}
	f.Handler.Serve(ctx, req, resp)
}

// play runs a short schedule and returns the violated guarantees and the text of the violations.
func play(t *testing.T, o Options, p Plan, before func(*Cluster)) (found map[string]bool, text string) {
	t.Helper()
	found = make(map[string]bool)
	o.Seed = max(o.Seed, 11)
	Bubble(t, func(t *testing.T) {
		c := New(o)
		if before != nil {
			before(c)
		}
		if err := c.Run(t.Context(), p); err != nil {
			text = err.Error()
		}
		for _, v := range c.History.Check(c.Rules()) {
			found[v.Guarantee] = true
			text += v.String()
		}
	})
	return found, text
}

func TestControls(t *testing.T)     { control(t, false) }
func TestControlsLong(t *testing.T) { control(t, true) }

// A brokenCluster breaks a guarantee on purpose.
type brokenCluster struct {
	name, broken, text string // the guarantee, and what a violation says
	o                  Options
	p                  Plan
	before             func(*Cluster)
	long               bool
}

// brokenClusters returns a new instance of each control.
func brokenClusters() []brokenCluster {
	calm := Plan{Calm: 20 * time.Second, Faults: time.Second, After: time.Second}
	busy := Plan{Calm: 20 * time.Second, Faults: time.Second, After: time.Second, Keys: 40, Clients: 8}
	written := Plan{Calm: 20 * time.Second, Faults: time.Second, After: time.Second, Keys: 6, Clients: 8}
	rough := Plan{Calm: 5 * time.Second, Faults: 60 * time.Second, After: time.Second}
	healed := Plan{Calm: 5 * time.Second, Faults: 60 * time.Second, After: 20 * time.Second, Steady: true, Keys: 200, Clients: 4, Storms: 20 * time.Second}
	tales := told{first: make(map[codec.Mark]time.Time)}
	wrap := func(f func(tier.Cluster) tier.Cluster) Options { return Options{Nodes: 3, Wrap: f} }
	slow := Options{Nodes: 3, MinMembers: 1, Concurrency: 3, Timeout: 45 * time.Second, HoldDown: -1, Wrap: func(c tier.Cluster) tier.Cluster { return narrowView{c} }}
	one := func(k Kind) Plan {
		return Plan{Calm: 5 * time.Second, Faults: 60 * time.Second, After: time.Second, Keys: 40, Clients: 8, Kinds: []Kind{k}}
	}
	return []brokenCluster{
		{"a loader that loads twice", "G1", "loaded twice at once", Options{Nodes: 3, Loader: double}, calm, nil, false},
		{"nodes that are all owners", "G1", "loaded twice at once", wrap(func(c tier.Cluster) tier.Cluster { return loner{c} }), calm, nil, false},
		{"invalidations that reach nobody", "G2", "after invalidation", wrap(func(c tier.Cluster) tier.Cluster { return deaf{c} }), calm, nil, false},
		{"invalidations that do not reach who is not named", "G2", "everybody in view true, weir: invalidation in sim did not reach",
			wrap(func(c tier.Cluster) tier.Cluster { return partial{c} }), Plan{Calm: time.Minute, Faults: time.Second, After: time.Second, Keys: 40}, nil, true},
		{"members that confirm and do not apply", "G2", "after invalidation", wrap(func(c tier.Cluster) tier.Cluster { return liar{c} }), calm, nil, false},
		{"replays that are lost", "G7", "after the cluster had healed", Options{
			Nodes: 3, Freshness: tier.Freshness{TTL: time.Hour, NearTTL: time.Second},
			Wrap: func(c tier.Cluster) tier.Cluster { return forgetful{mute{c}, &tales} }}, healed, nil, true},
		{"replays that are lost of what lives for longer than the contract says", "G7", "after the cluster had healed", Options{
			Nodes: 3, Freshness: tier.Freshness{TTL: 2 * time.Second, NearTTL: time.Second}, LongTTL: time.Hour,
			Wrap: func(c tier.Cluster) tier.Cluster { return forgetful{mute{c}, &tales} }}, healed, nil, true},
		{"tokens that nobody is told of", "G2", "with the token of invalidation", wrap(func(c tier.Cluster) tier.Cluster { return unmarked{c} }), written, nil, false},
		{"an invalidation of everything that is not applied", "G2", "all true", wrap(func(c tier.Cluster) tier.Cluster { return narrow{c} }), written, nil, false},
		{"a loader that tells no tags", "G2", `tags ["t`, Options{Nodes: 3, Loader: untagged}, written, nil, false},
		{"a loader that finds nothing", "G2", "found none", Options{Nodes: 3, Loader: blind}, calm, nil, false},
		{"answers that lie about their age", "G3", "aged", wrap(func(c tier.Cluster) tier.Cluster { return young{c} }), calm, nil, false},
		{"a cap that is not divided", "G4", "the cap is 3", Options{Nodes: 3, Concurrency: 3, Wrap: func(c tier.Cluster) tier.Cluster { return greedy{c} }}, busy,
			func(c *Cluster) { c.Origin.SetMoods(Moods{Slow: 1}) }, false},
		{"calls that outlive their context", "G5", "after its deadline", wrap(func(c tier.Cluster) tier.Cluster { return patient{c} }), rough, nil, false},
		{"an origin that fails in calm times", "G5", "nothing was wrong", Options{Nodes: 3}, calm, func(c *Cluster) { c.Origin.SetMoods(Moods{Fail: 1}) }, false},
		{"clocks that run too slowly", "G6", "after it heard of it", Options{Nodes: 3}, calm,
			func(c *Cluster) {
				time.AfterFunc(5*time.Second, func() {
					for i := range 3 {
						c.Clock(i).SetRate(0.3)
					}
				})
			}, false},
		{"members that say what they said before", "G6", "had ended",
			wrap(func(c tier.Cluster) tier.Cluster { return &clinging{Cluster: c, said: make(map[string]codec.Response)} }), calm, nil, false},
		{"members that ask on behalf of others", "G8", "not for a client", wrap(func(c tier.Cluster) tier.Cluster { return forwarding{c} }), calm, nil, true},
		{"reads that turn to too many", "G8", "turned to members", wrap(func(c tier.Cluster) tier.Cluster { return roaming{c} }), calm, nil, false},
		{"reads that ask too often", "G8", "cost", wrap(func(c tier.Cluster) tier.Cluster { return stubborn{c} }), calm, nil, false},
		{"puts that are taken for young although they were held", "G3", "aged", Options{Nodes: 3, Wrap: func(c tier.Cluster) tier.Cluster { return youngPuts{c} }},
			Plan{Calm: 5 * time.Second, Faults: 60 * time.Second, After: time.Second, Pace: 2 * time.Second, Storms: time.Minute, Kinds: []Kind{HeldPut}}, nil, true},
		{"tokens that do not cross a cut", "G2", "with the token of invalidation", wrap(func(c tier.Cluster) tier.Cluster { return unmarked{c} }), Plan{Calm: 5 * time.Second, Faults: 60 * time.Second, After: time.Second, Keys: 6, Clients: 8, Kinds: []Kind{TokensApart}}, nil, true},
		{"shares that move before loads end as nodes come and go at once", "G4", "loads at once", slow, one(Together), nil, true},
		{"shares that move before loads end as nodes come under new names", "G4", "loads at once", slow, one(Renamed), nil, true},
		{"a second node of a name that takes the whole cap", "G4", "loads at once", Options{Nodes: 3, Concurrency: 3, HoldDown: -1, Wrap: lateGreed(3)}, one(Doubled), nil, true},
		{"loads that keep their permits while they read other keys", "G5", "though nothing was wrong", Options{Nodes: 3, Concurrency: 3, Nested: true, hidden: true}, busy, nil, true},
		{"answers for another key", "G10", "got the value of", wrap(func(c tier.Cluster) tier.Cluster { return confused{c} }), calm, nil, false},
	}
}

// control runs the quick controls or the slow ones.
func control(t *testing.T, long bool) {
	t.Helper()
	for _, c := range brokenClusters() {
		if c.long != long {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			// A seed does not decide how goroutines are scheduled, so a violation may not show in a given schedule.
			for c.o.Seed = 11; ; c.o.Seed++ {
				found, text := play(t, c.o, c.p, c.before)
				if found[c.broken] && strings.Contains(text, c.text) {
					t.Logf("seed %d shows it", c.o.Seed)
					break
				}
				if c.o.Seed == 50 {
					t.Fatalf("the checker found %v, and not %q, that %s is broken\n%s", found, c.text, c.broken, text[:min(len(text), 2000)])
				}
			}
		})
	}
	if long {
		return
	}
	t.Run("none", func(t *testing.T) {
		if found, text := play(t, Options{Nodes: 3}, Plan{Calm: 20 * time.Second, Faults: time.Second, After: time.Second}, nil); len(found) > 0 || text != "" {
			t.Errorf("%v\n%s", found, text)
		}
	})
}

// TestReadsThatEndWrongly writes cases that a wrapper cannot produce into a history by hand.
func TestReadsThatEndWrongly(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		text string
		r    Read
	}{
		{"as if its caller had gone", Read{EndedAt: now.Add(time.Second), Deadline: now.Add(2 * time.Second), Err: context.DeadlineExceeded}},
		{"as if its caller had gone", Read{EndedAt: now.Add(time.Second), Deadline: now.Add(2 * time.Second), Err: context.Canceled}},
		{"had no answer within", Read{EndedAt: now.Add(time.Minute), Deadline: now.Add(time.Minute), Err: context.DeadlineExceeded}},
		{"after its deadline", Read{EndedAt: now.Add(time.Second), Deadline: now, Err: context.DeadlineExceeded}},
		{"", Read{EndedAt: now.Add(time.Second), Deadline: now.Add(time.Second), Err: context.DeadlineExceeded}},
		{"", Read{EndedAt: now.Add(time.Second), Deadline: now.Add(2 * time.Second), Err: tier.ErrTimeout}},
	} {
		c.r.BeganAt = now
		h := &History{reads: []*Read{&c.r}}
		var text string
		for _, v := range h.Check(Rules{Patience: 15 * time.Second, Slack: 50 * time.Millisecond, Turns: 2, Asks: 4}) {
			text += v.String()
		}
		if (c.text == "") != (text == "") || !strings.Contains(text, c.text) {
			t.Errorf("%+v: %q, want %q", c.r, text, c.text)
		}
	}
}

// blind returns a loader that sometimes finds no value where there is one.
func blind(l tier.Loader[Value]) tier.Loader[Value] {
	return func(ctx context.Context, f *tier.Fill[Value]) (Value, error) {
		v, err := l(ctx, f)
		if v.Version%3 == 1 {
			return Value{}, tier.ErrNotFound
		}
		return v, err
	}
}

// TestLeakControl checks that leftover goroutines are found.
func TestLeakControl(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		end := make(chan struct{})
		go func() { <-end }()
		go func() { sleep(t.Context(), time.Hour) }()
		if left := Leaked(); len(left) != 2 || !strings.Contains(left[0], "TestLeakControl") {
			t.Errorf("two goroutines are there, found:\n%s", strings.Join(left, "\n\n"))
		}
		close(end)
		sleep(t.Context(), time.Hour)
		if left := Leaked(); len(left) != 0 {
			t.Errorf("all have ended, found:\n%s", strings.Join(left, "\n\n"))
		}
	})
	if left := Leaked(); left != nil {
		t.Error("found something outside any bubble")
	}
}

// TestViolationTells checks that the history of a violation is short and shows it.
func TestViolationTells(t *testing.T) {
	_, text := play(t, Options{Nodes: 3, Wrap: func(c tier.Cluster) tier.Cluster { return deaf{c} }}, Plan{Calm: 20 * time.Second, Faults: time.Second, After: time.Second}, nil)
	_, first, _ := strings.Cut(text, "G2 is broken")
	first, _, _ = strings.Cut(first, "is broken")
	for _, want := range []string{"loads, version", "invalidates keys", "and sees n0 n1 n2", "ends invalidation", "ends read"} {
		if !strings.Contains(first, want) {
			t.Errorf("it does not tell of %q:\n%s", want, first)
		}
	}
	if n := strings.Count(first, "\n"); n > 60 {
		t.Errorf("it takes %d lines:\n%s", n, first)
	}
}

// double returns a loader that asks the origin twice at the same time.
func double(l tier.Loader[Value]) tier.Loader[Value] {
	return func(ctx context.Context, f *tier.Fill[Value]) (Value, error) {
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { _ = recover() }()             // the origin's moods
			_, _ = l(ctx, &tier.Fill[Value]{Key: f.Key}) // each load gets its own Fill
		})
		defer wg.Wait()
		return l(ctx, f)
	}
}

// TestLivenessControl checks that a cluster that does not settle is reported.
func TestLivenessControl(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		c := New(Options{Nodes: 3})
		defer func() {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		}()
		for i := range 3 {
			if err := c.Start(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Settle(settleLimit); err != nil {
			t.Fatal(err)
		}
		c.Net.Isolate(c.IP(2))
		sleep(t.Context(), time.Minute)
		if err := c.Settle(settleLimit); err == nil || !strings.Contains(err.Error(), "sees") {
			t.Errorf("a cluster in two parts is at rest: %v", err)
		}
		c.Net.Heal()
		if err := c.Settle(settleLimit); err != nil {
			t.Error(err)
		}
		c.Origin.SetMoods(Moods{Overrun: 1})
		c.Read(0, "k", tier.AnyAge, time.Second)
		if err := c.Agreed(); err == nil || !strings.Contains(err.Error(), "flights") {
			t.Errorf("a cluster with a load is at rest: %v", err)
		}
	})
}
