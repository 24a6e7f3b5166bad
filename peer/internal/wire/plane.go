package wire

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/loglimit"
	"github.com/weircache/weir/ring"
)

var (
	// ErrUnreachable says that a member could not be reached, or was lost before it answered. It wraps the cause.
	ErrUnreachable = errors.New("weir: peer is unreachable")
	// ErrBusy says that the queue to a member, or this node's budget of bytes in flight, is full.
	ErrBusy = errors.New("weir: too much in flight")
	// ErrClosed says that the node is closed.
	ErrClosed = errors.New("weir: node is closed")
)

const (
	// minFrameLimit is the lowest limit of a frame's length, in bytes, whatever the value limit: an invalidation carries as
	// many keys as fit.
	minFrameLimit = 1 << 20
	// maxSessions is how many connections are served at once. It allows several for each member of the largest sensible
	// cluster, and bounds what strangers can hold.
	maxSessions = 4096
	// outboxLimit is how many bytes may wait for one connection, beside one whole frame.
	outboxLimit = 4 << 20
	// servingCost is what a waiting request counts for in the budget, in bytes, beside its own size: a goroutine and what
	// belongs to it.
	servingCost = 8 << 10
)

// A Plane is the data plane of a node: it sends requests to other members and answers theirs. All methods are safe for
// concurrent use.
type Plane struct {
	cfg       Config
	self      Hello
	limit     int // longest frame, in bytes
	ctx       context.Context
	cancel    context.CancelFunc
	waiters   sync.Pool // of *waiter
	bufs      buffers
	flying    atomic.Int64 // bytes in flight
	madeRoom  atomic.Int64 // when makeRoom last looked, in ns since began
	began     time.Time    // when the Plane was made
	backlog   backlog
	noise     loglimit.Limiter // keeps one host's bad connections from filling the log
	nameBytes []byte           // cfg.Name
	counters
	wg sync.WaitGroup

	// These two are replaced, never changed, because they are read without a lock.
	registry atomic.Pointer[map[string]*registered]
	peers    atomic.Pointer[map[string]*peer]

	mu       sync.Mutex // guards the rest, and replacing registry and peers
	rand     *rand.Rand
	closed   bool
	members  map[string]uint64 // members that may be called, and the newest incarnation of each; nil: any. Replaced, never changed
	sessions map[*session]struct{}
}

// registered is one namespace's handler.
type registered struct {
	schema  uint64
	handler codec.Handler
}

// New returns a Plane that serves what Accept is given, and dials when it is called. The caller must close it.
func New(cfg Config) *Plane {
	d := &Plane{
		cfg: cfg,
		self: Hello{
			Protocol: ProtocolVersion, RingVersion: ring.Version, Incarnation: cfg.Incarnation,
			ValueLimit: uint64(cfg.ValueLimit), Placement: cfg.Placement, Cluster: cfg.Cluster, Name: cfg.Name,
		},
		limit:     max(cfg.ValueLimit, minFrameLimit) + codec.FrameOverhead,
		rand:      rand.New(rand.NewPCG(cfg.Seed, 1)),
		nameBytes: []byte(cfg.Name),
		sessions:  make(map[*session]struct{}),
		began:     time.Now(),
	}
	d.backlog = backlog{limit: cfg.Budget, full: d.relieve}
	d.waiters.New = func() any { return &waiter{done: make(chan error, 1)} }
	d.registry.Store(&map[string]*registered{})
	d.peers.Store(&map[string]*peer{})
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Register makes h answer a namespace's requests until unregister is called. It fails if the namespace is taken, or
// the Plane is closed.
func (d *Plane) Register(namespace string, schema uint64, h codec.Handler) (unregister func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	if _, taken := (*d.registry.Load())[namespace]; taken {
		return nil, fmt.Errorf("weir: namespace %q is taken on this node: give each cache its own, or close the other first", namespace)
	}
	r := &registered{schema: schema, handler: h}
	d.replace(namespace, r)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if (*d.registry.Load())[namespace] == r {
			d.replace(namespace, nil)
		}
	}, nil
}

// replace publishes a registry with one entry changed. The caller holds mu.
func (d *Plane) replace(namespace string, r *registered) {
	next := maps.Clone(*d.registry.Load())
	if r == nil {
		delete(next, namespace)
	} else {
		next[namespace] = r
	}
	d.registry.Store(&next)
}

// Call sends req to a member and fills resp with the answer. It ends when ctx ends, or after req.Timeout. The error
// is that of ctx, or wraps ErrUnreachable, ErrBusy or ErrClosed. resp holds a pooled buffer until resp.Release.
func (d *Plane) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := d.peer(to)
	if err != nil {
		return err
	}
	p.calls.Add(1)
	d.calls.Add(1)
	if err = p.call(ctx, req, resp); err != nil {
		p.errors.Add(1)
		d.errors.Add(1)
	}
	return err
}

// Send sends a call's request to a member without waiting for the answer: call.Done receives call when it has ended.
// Send does not block. It sets call.Withdraw, which cancels the call. It returns false if the request could not be
// sent at once, for example without a connection; then call never ends. call and what it points to are in use until
// it has ended.
func (d *Plane) Send(ctx context.Context, to ring.Member, call *codec.Call) bool {
	if ctx.Err() != nil {
		return false
	}
	p, err := d.peer(to)
	if err != nil {
		return false
	}
	timeout, ok := timeLeft(ctx, call.Req)
	l := p.slot(call.Req).link.Load()
	if !ok || l == nil || l.mute.Load() {
		return false
	}
	call.Withdraw = func() bool {
		ok := l.withdraw(call.Req.ID)
		if ok {
			p.errors.Add(1)
			d.errors.Add(1)
		}
		return ok
	}
	if l.send(&waiter{sent: call, p: p, resp: call.Resp}, timeout, call.Req) != nil {
		return false
	}
	p.calls.Add(1)
	d.calls.Add(1)
	return true
}

// reserve counts n more bytes in flight, or reports that the budget is used up. The caller holds no lock.
func (d *Plane) reserve(n int) bool {
	if d.flying.Add(int64(n)) > d.cfg.Budget {
		d.flying.Add(-int64(n))
		d.makeRoom()
		return false
	}
	return true
}

func (d *Plane) unreserve(n int) { d.flying.Add(-int64(n)) }

// start runs f in a goroutine that close joins. It returns false if d is already closed.
func (d *Plane) start(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		f()
	}()
	return true
}

// jitter returns a duration between half of the argument and all of it.
func (d *Plane) jitter(of time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return of/2 + time.Duration(d.rand.Int64N(int64(of/2)+1))
}

// peer returns the record of a member, and creates it when it is first needed.
func (d *Plane) peer(to ring.Member) (*peer, error) {
	p := (*d.peers.Load())[to.Name]
	if p == nil || p.to.Addr != to.Addr {
		return d.addPeer(to)
	}
	if to.Incarnation > p.newest.Load() {
		p.renew(to.Incarnation)
	}
	return p, nil
}

// addPeer creates the record of a member that is new, or at a new address.
func (d *Plane) addPeer(to ring.Member) (*peer, error) {
	if to.Addr == "" {
		return nil, fmt.Errorf("%w: no address of member %q is known", ErrUnreachable, to.Name)
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, ErrClosed
	}
	old := (*d.peers.Load())[to.Name]
	if old != nil && old.to.Addr == to.Addr {
		d.mu.Unlock()
		return old, nil
	}
	if err := d.checkMember(to); err != nil {
		d.mu.Unlock()
		return nil, err
	}
	// A caller with an older view does not undo what a newer one has built. An earlier incarnation that becomes the member
	// again is in members before it is in a view.
	if again := d.members != nil && d.members[to.Name] == to.Incarnation; old != nil && to.Incarnation < old.newest.Load() && !again {
		d.mu.Unlock()
		return nil, fmt.Errorf("%w: %s has moved from %s to %s", ErrUnreachable, to.Name, to.Addr, old.to.Addr)
	}
	p := newPeer(d, to)
	next := maps.Clone(*d.peers.Load())
	next[to.Name] = p
	d.peers.Store(&next)
	d.mu.Unlock()
	if old != nil {
		old.close(fmt.Errorf("%w: %s has moved to %s", ErrUnreachable, to.Name, to.Addr))
	}
	return p, nil
}

// checkMember returns an error if no record may be created for a member. The caller holds mu.
func (d *Plane) checkMember(to ring.Member) error {
	if d.members == nil {
		return nil
	}
	switch newest, ok := d.members[to.Name]; {
	case !ok:
		return fmt.Errorf("%w: %q is not a member", ErrUnreachable, to.Name)
	case to.Incarnation < newest:
		return fmt.Errorf("%w: %s has started again since", ErrUnreachable, to.Name)
	}
	return nil
}

// Allow adds to the members that may be called. After the first call, no other members may be called.
func (d *Plane) Allow(members map[string]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := maps.Clone(members)
	for name, incarnation := range d.members {
		if _, ok := next[name]; !ok {
			next[name] = incarnation
		}
	}
	d.members = next
}

// Confine closes the connections to all members except these, and to other incarnations of these, and fails the calls
// that wait on them. The set of members that may be called and the set of records change in one step, so a late call
// from a caller with an older view does not bring a record back.
func (d *Plane) Confine(members map[string]uint64) {
	d.mu.Lock()
	d.members = members
	var gone []*peer
	next := maps.Clone(*d.peers.Load())
	for name, p := range next {
		if newest, ok := members[name]; !ok || newest != p.newest.Load() {
			delete(next, name)
			gone = append(gone, p)
		}
	}
	if len(gone) > 0 {
		d.peers.Store(&next)
	}
	d.mu.Unlock()
	for _, p := range gone {
		p.close(fmt.Errorf("%w: %s is no longer a member", ErrUnreachable, p.to.Name))
	}
}

// relieve closes the session whose peer has read none of the answers that wait for it for longest, if the answers waiting
// for all members exceed the budget.
func (d *Plane) relieve() {
	if s, _ := d.slowest((*outbox).storedSince); s != nil && d.backlog.bytes.Load() > d.backlog.limit {
		s.fail(errSlow)
	}
}

const (
	// slowAfter is how long a member may read nothing while there is no room for the answers to others. What is written in
	// one step, up to 256 KiB, counts as read when it has all been accepted.
	slowAfter = time.Second
	// roomEvery is the shortest time between two searches for such a member.
	roomEvery = slowAfter / 10
)

// makeRoom is called when the budget is used up. Answers for which their connection has no room hold a part of it: makeRoom
// closes the session with such answers whose peer has read nothing for longest, if that is slowAfter or more.
func (d *Plane) makeRoom() {
	now, last := int64(time.Since(d.began)), d.madeRoom.Load()
	if now-last < int64(roomEvery) || !d.madeRoom.CompareAndSwap(last, now) {
		return
	}
	if s, since := d.slowest((*outbox).stuckSince); s != nil && time.Since(since) >= slowAfter {
		s.fail(errSlow)
	}
}

// slowest returns the session for which of returns the earliest time, and that time, or nil if of returns zero for all.
func (d *Plane) slowest(of func(*outbox) time.Time) (slowest *session, since time.Time) {
	d.mu.Lock()
	sessions := slices.Collect(maps.Keys(d.sessions))
	d.mu.Unlock()
	for _, s := range sessions {
		if at := of(s.out); !at.IsZero() && (slowest == nil || at.Before(since)) {
			slowest, since = s, at
		}
	}
	return slowest, since
}

// errSlow is why a connection is closed if its peer does not read.
var errSlow = errors.New("it does not read its answers, and the bytes in flight have reached Config.InFlightBytes")

// Bypassed reports whether a member refuses connections or is silent, so that calls to it fail at once.
func (d *Plane) Bypassed(name string) bool {
	p := (*d.peers.Load())[name]
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.breaker.open
}

// Close fails waiting calls and joins every goroutine. When ctx ends, it stops waiting for handlers that do not return.
func (d *Plane) Close(ctx context.Context) {
	d.mu.Lock()
	d.closed = true
	peers, sessions := *d.peers.Load(), make([]*session, 0, len(d.sessions))
	d.peers.Store(&map[string]*peer{})
	for s := range d.sessions {
		sessions = append(sessions, s)
	}
	d.mu.Unlock()
	for _, p := range peers {
		p.close(ErrClosed)
	}
	for _, s := range sessions {
		s.fail(ErrClosed)
	}
	d.cancel()
	done := make(chan struct{})
	go func() {
		d.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		d.cfg.Logger.Warn("data plane closed while requests are still being served", "err", ctx.Err())
	}
}
