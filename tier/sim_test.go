package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

var errLinkDown = errors.New("sim: the link is down")

// hop says what happens to one frame: it takes delay, or is lost. A lost request fails at once, unless silent is set:
// then the caller hears nothing.
type hop struct {
	delay        time.Duration
	lost, silent bool
}

// simNet connects simNodes. Frames are really encoded and decoded.
type simNet struct {
	t     *testing.T
	nodes map[string]*simNode
	names []string
	wg    sync.WaitGroup // deliveries

	mu    sync.Mutex // guards the rest
	rule  func(from, to string, kind codec.Kind, answer bool) hop
	tweak func(from, to string, req *codec.Request) // changes requests before they are sent
	calls map[string]int                            // by "from>to"
	gets  int
}

// simNode is one member. It is a Cluster.
type simNode struct {
	net  *simNet
	name string

	mu      sync.Mutex // guards the rest
	view    *ring.View
	changed chan struct{}
	reg     map[string]simReg
	wrap    func(codec.Handler) codec.Handler
	divisor [2]int
	sends   int

	dividing func() // runs before each answer to Divisor; nil: nothing does
}

type simReg struct {
	schema uint64
	h      codec.Handler
}

func newSim(t *testing.T, n int) *simNet {
	s := &simNet{t: t, nodes: make(map[string]*simNode), calls: make(map[string]int)}
	for i := range n {
		s.names = append(s.names, fmt.Sprintf("n%d", i))
	}
	v := simView(t, s.names...)
	for _, name := range s.names {
		s.nodes[name] = &simNode{net: s, name: name, view: v, changed: make(chan struct{}), reg: make(map[string]simReg), divisor: [2]int{1, 0}}
	}
	return s
}

func simView(t *testing.T, names ...string) *ring.View {
	t.Helper()
	var m []ring.Member
	for _, name := range names {
		m = append(m, ring.Member{Name: name, Addr: name + ":1"})
	}
	v, err := ring.New(m, ring.Config{Partitions: 61})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// keyOf returns a key that the named member owns.
func keyOf(v *ring.View, owner string, nth int) string {
	for i := 0; ; i++ {
		if k := fmt.Sprintf("k%d", i); v.Owner(k).Name == owner {
			if nth--; nth < 0 {
				return k
			}
		}
	}
}

func (s *simNet) setRule(f func(from, to string, kind codec.Kind, answer bool) hop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rule = f
}

func (s *simNet) hop(from, to string, kind codec.Kind, answer bool) hop {
	s.mu.Lock()
	rule := s.rule
	s.mu.Unlock()
	if rule == nil {
		return hop{}
	}
	return rule(from, to, kind, answer)
}

func (s *simNet) count(from, to string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[from+">"+to]
}

func (n *simNode) Name() string { return n.name }

func (n *simNode) View() *ring.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view
}

func (n *simNode) ViewChanged() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *simNode) setView(v *ring.View) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.view = v
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *simNode) Divisor() (members, rank int) {
	if n.dividing != nil {
		n.dividing()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.divisor[0], n.divisor[1]
}

func (n *simNode) Register(ns string, schema uint64, h codec.Handler) (func(), error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.reg[ns]; ok {
		return nil, errors.New("sim: taken")
	}
	if n.wrap != nil {
		h = n.wrap(h)
	}
	n.reg[ns] = simReg{schema, h}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.reg, ns)
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Call implements Cluster.
func (n *simNode) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := n.net
	own := *req
	s.mu.Lock()
	s.calls[n.name+">"+to.Name]++
	if req.Kind == codec.KindGet {
		s.gets++
	}
	if s.tweak != nil {
		s.tweak(n.name, to.Name, &own)
	}
	s.mu.Unlock()
	own.ID = 7
	kind := req.Kind // when Call has returned, req belongs to the caller again
	frame := codec.AppendRequest(nil, &own)
	go1 := s.hop(n.name, to.Name, req.Kind, false)
	dst := s.nodes[to.Name]
	if dst == nil || go1.lost && !go1.silent {
		return errLinkDown
	}
	serve, cancel := context.WithCancel(context.Background())
	defer cancel()
	if req.Timeout > 0 {
		var stop func()
		ctx, stop = context.WithTimeout(ctx, req.Timeout)
		defer stop()
	}
	done := make(chan []byte, 1)
	lost := make(chan struct{})
	if !go1.lost {
		s.wg.Go(func() {
			_ = pause(context.Background(), go1.delay)
			out := dst.serve(serve, frame)
			back := s.hop(to.Name, n.name, kind, true)
			if back.lost {
				if !back.silent {
					close(lost)
				}
				return
			}
			_ = pause(context.Background(), back.delay)
			done <- out
		})
	}
	select {
	case out := <-done:
		_, id, body, err := codec.FrameKind(out[codec.FrameHeader:])
		if err == nil {
			err = codec.DecodeResponse(resp, id, body)
		}
		resp.Own(out, func(b []byte) { clear(b) }) // a caller that uses it after Release sees zeros
		return err
	case <-lost:
		return errLinkDown
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Send is optional for a Cluster. Every third call returns false.
func (n *simNode) Send(ctx context.Context, to ring.Member, call *codec.Call) bool {
	n.mu.Lock()
	n.sends++
	can := n.sends%3 != 0
	n.mu.Unlock()
	if !can || ctx.Err() != nil {
		return false
	}
	req := *call.Req // when the call is withdrawn, the caller may reuse its request
	req.Many = slices.Clone(req.Many)
	var settled atomic.Bool
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	call.Withdraw = func() bool {
		if settled.Swap(true) {
			return false
		}
		cancel()
		return true
	}
	n.net.wg.Go(func() {
		defer cancel()
		var resp codec.Response
		err := n.Call(ctx, to, &req, &resp)
		if settled.Swap(true) {
			if err == nil {
				resp.Release()
			}
			return
		}
		*call.Resp, call.Err = resp, err
		call.Done <- call
	})
	return true
}

// serve answers a frame as a peer's connection would.
func (n *simNode) serve(ctx context.Context, frame []byte) []byte {
	var req codec.Request
	var resp codec.Response
	kind, id, body, err := codec.FrameKind(frame[codec.FrameHeader:])
	if err == nil {
		err = codec.DecodeRequest(&req, kind, id, body)
	}
	if err != nil {
		return codec.AppendResponse(nil, &codec.Response{ID: id, Status: codec.StatusFailed, Text: []byte(err.Error())})
	}
	n.mu.Lock()
	r, ok := n.reg[string(req.Namespace)]
	n.mu.Unlock()
	switch {
	case !ok:
		resp.Status = codec.StatusUnknown
	case r.schema != req.Schema && (kind == codec.KindGet || kind == codec.KindGetMany):
		resp.Status = codec.StatusMismatch
	case r.h.TryServe(&req, &resp):
	default:
		if req.Timeout > 0 {
			var cancel func()
			ctx, cancel = context.WithTimeout(ctx, req.Timeout)
			defer cancel()
		}
		resp = codec.Response{}
		r.h.Serve(ctx, &req, &resp)
	}
	resp.ID = id
	out := codec.AppendResponse(nil, &resp)
	clear(frame) // no code may keep the request's bytes
	return out
}

// simValue is a value that tells which load produced it.
type simValue struct {
	Began   int64 // the sequence number at which its load began
	Version int64 // the origin's version
	Node    string
}

// simOrigin is a versioned origin. Sequence numbers order what happens in a history.
type simOrigin struct {
	seq   atomic.Int64
	loads atomic.Int64
	delay func() time.Duration // before and after the version is read
	// tell, if not nil, returns what loaders report for a version.
	tell func(version int64) uint64

	mu       sync.Mutex // guards the rest
	versions map[string]int64
	running  map[string]int // by node and key
	most     int            // most concurrent loads of one key on one node
	fail     error
}

func (o *simOrigin) loader(node string) Loader[simValue] {
	return func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
		v := simValue{Began: o.seq.Add(1), Node: node}
		o.loads.Add(1)
		o.mu.Lock()
		o.running[node+f.Key]++
		o.most = max(o.most, o.running[node+f.Key])
		o.mu.Unlock()
		defer func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.running[node+f.Key]--
		}()
		if o.delay != nil {
			if err := pause(ctx, o.delay()); err != nil {
				return v, err
			}
		}
		o.mu.Lock()
		v.Version = o.versions[f.Key]
		err := o.fail
		if o.tell != nil {
			f.SetVersion(o.tell(v.Version))
		}
		o.mu.Unlock()
		if o.delay != nil && err == nil {
			err = pause(ctx, o.delay())
		}
		return v, err
	}
}

func (o *simOrigin) write(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[key]++
}

func newOrigin() *simOrigin {
	return &simOrigin{versions: make(map[string]int64), running: make(map[string]int)}
}

// start makes a cache on every node.
func (s *simNet) start(o *simOrigin, cfg Config[simValue]) map[string]*Cache[simValue] {
	s.t.Helper()
	out := make(map[string]*Cache[simValue])
	for _, name := range s.names {
		out[name] = s.open(name, o, cfg)
	}
	return out
}

func (s *simNet) open(name string, o *simOrigin, cfg Config[simValue]) *Cache[simValue] {
	s.t.Helper()
	cfg.Cluster = s.nodes[name]
	cfg.Namespace = cmp.Or(cfg.Namespace, "sim")
	cfg.NearBytes = cmp.Or(cfg.NearBytes, MinBytes)
	if cfg.Loader == nil && cfg.BatchLoader == nil {
		cfg.Loader = o.loader(name)
	}
	if cfg.Freshness.TTL == 0 {
		cfg.Freshness = Freshness{TTL: time.Hour, NearTTL: time.Minute, RefreshAhead: -1, Jitter: -1}
	}
	c, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// acquaint lets each cache exchange positions with each other one. A cache that starts first finds no caches on the
// others, and exchanges nothing with them before it needs to. A test that counts requests, or sets how long they
// take, must not leave the time of that to chance.
func (s *simNet) acquaint(caches map[string]*Cache[simValue]) {
	s.t.Helper()
	for name, c := range caches {
		for other := range caches {
			if other == name {
				continue
			}
			if err := exchange(c, other); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// stop closes the caches and waits for pending deliveries.
func (s *simNet) stop(caches map[string]*Cache[simValue]) {
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for k := range caches {
			if !yield(k) {
				return
			}
		}
	}) {
		if err := caches[name].Close(context.Background()); err != nil {
			s.t.Error(err)
		}
	}
	s.wg.Wait()
}

// exchange has an anti-entropy exchange with a member.
func exchange[V any](c *Cache[V], member string) error {
	return c.own.Journal.Exchange(background, c.own.Journal.Member(member))
}
