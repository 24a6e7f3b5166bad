package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/loglimit"
	"github.com/weircache/weir/peer/internal/trust"
	"github.com/weircache/weir/ring"
)

var (
	// ErrUnreachable says that a member could not be reached, or was lost before it answered. It wraps the cause.
	ErrUnreachable = errors.New("weir: peer is unreachable")
	// ErrBusy says that the queue to a member, or this node's budget of bytes in
	// flight, is full.
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

// dataConfig configures a data plane. Nothing in it is optional unless it says so.
type dataConfig struct {
	name        string
	incarnation uint64
	clusterName string
	connections int   // to each peer
	accepts     int   // connections from each peer
	valueLimit  int   // bytes
	budget      int64 // bytes in flight on this node
	dial        func(ctx context.Context, addr string) (net.Conn, error)
	logger      *slog.Logger
	seed        uint64
	placement   uint64              // see hello
	trust       *trust.Trust        // nil, or one without TLS: plaintext
	hearing     *hearing.Monitor    // whether this node is able to listen
	returned    func(member string) // called when a member that alone was silent answers again; may be nil
	ended       func(ring.Member)   // called when a member's address proves that its process has ended; may be nil
}

// data is the data plane: it sends requests to other members and answers theirs.
type data struct {
	cfg       dataConfig
	self      hello
	limit     int // longest frame, in bytes
	ctx       context.Context
	cancel    context.CancelFunc
	waiters   sync.Pool // of *waiter
	bufs      buffers
	flying    atomic.Int64 // bytes in flight
	backlog   backlog
	noise     loglimit.Limiter // keeps one host's bad connections from filling the log
	nameBytes []byte           // cfg.name
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

// counters count since the start, over all peers.
type counters struct {
	calls, errors, dials, served, refused, bytesIn, bytesOut atomic.Int64
	opened, shut                                             atomic.Int64 // breakers
}

// registered is one namespace's handler.
type registered struct {
	schema  uint64
	handler codec.Handler
}

func newData(cfg dataConfig) *data {
	d := &data{
		cfg: cfg,
		self: hello{
			protocol: protocolVersion, ringVersion: ring.Version, incarnation: cfg.incarnation,
			valueLimit: uint64(cfg.valueLimit), placement: cfg.placement, cluster: cfg.clusterName, name: cfg.name,
		},
		limit:     max(cfg.valueLimit, minFrameLimit) + codec.FrameOverhead,
		rand:      rand.New(rand.NewPCG(cfg.seed, 1)),
		nameBytes: []byte(cfg.name),
		sessions:  make(map[*session]struct{}),
	}
	d.backlog = backlog{limit: cfg.budget, full: d.relieve}
	d.waiters.New = func() any { return &waiter{done: make(chan error, 1)} }
	d.registry.Store(&map[string]*registered{})
	d.peers.Store(&map[string]*peer{})
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// register makes h answer a namespace's requests until unregister is called.
func (d *data) register(namespace string, schema uint64, h codec.Handler) (unregister func(), err error) {
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
func (d *data) replace(namespace string, r *registered) {
	next := maps.Clone(*d.registry.Load())
	if r == nil {
		delete(next, namespace)
	} else {
		next[namespace] = r
	}
	d.registry.Store(&next)
}

// reserve counts n more bytes in flight, or reports that the budget is used up.
func (d *data) reserve(n int) bool {
	if d.flying.Add(int64(n)) > d.cfg.budget {
		d.flying.Add(-int64(n))
		return false
	}
	return true
}

func (d *data) unreserve(n int) { d.flying.Add(-int64(n)) }

// start runs f in a goroutine that close joins. It returns false if d is already closed.
func (d *data) start(f func()) bool {
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
func (d *data) jitter(of time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return of/2 + time.Duration(d.rand.Int64N(int64(of/2)+1))
}

// peer returns the record of a member, and creates it when it is first needed.
func (d *data) peer(to ring.Member) (*peer, error) {
	p := (*d.peers.Load())[to.Name]
	if p == nil || p.to.Addr != to.Addr {
		return d.meet(to)
	}
	if to.Incarnation > p.newest.Load() {
		p.renew(to.Incarnation)
	}
	return p, nil
}

// meet creates the record of a member that is new, or at a new address.
func (d *data) meet(to ring.Member) (*peer, error) {
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
	if err := d.absent(to); err != nil {
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

// absent returns an error if no record may be created for a member. The caller holds mu.
func (d *data) absent(to ring.Member) error {
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

// allow adds to the members that may be called. After the first call, no other members may be called.
func (d *data) allow(members map[string]uint64) {
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

// confine closes the connections to all members except these, and to other incarnations of these, and fails the calls that
// wait on them. The set of members that may be called and the set of records change in one step, so a late call from a
// caller with an older view does not bring a record back.
func (d *data) confine(members map[string]uint64) {
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

// PeerStats is what the data plane reports about one peer.
type PeerStats struct {
	Name      string `json:"name"`
	Addr      string `json:"addr"`
	Connected int    `json:"connected"`      // connections that are up
	InFlight  int    `json:"in_flight"`      // calls that wait for an answer
	Queued    int    `json:"queued_bytes"`   // bytes that wait to be sent
	Calls     int64  `json:"calls"`          // since this node first called the peer
	Errors    int64  `json:"errors"`         // calls that were not answered
	BytesIn   int64  `json:"bytes_received"` // on connections that this node opened
	BytesOut  int64  `json:"bytes_sent"`     // likewise
	Dials     int64  `json:"dials"`          // connection attempts
	// Breaker is "closed", "open" while the peer refuses or is silent and is not called, or "half_open" while such a peer
	// is being probed.
	Breaker  string `json:"breaker"`
	Openings int64  `json:"breaker_openings"` // how often it has opened
}

// totals is what a data plane has counted since the start, over all peers, and what it holds now.
type totals struct {
	calls, errors, dials int64 // to other members: calls, those without an answer, connection attempts
	served               int64 // requests from other members
	refused              int64 // connections from others, closed before they were used
	bytesIn, bytesOut    int64
	opened, shut         int64 // changes of breakers
	accepted             int   // connections from others that are open
	inFlight             int64 // bytes that count toward the budget
}

// totals returns the totals as of now.
func (d *data) totals() totals {
	d.mu.Lock()
	accepted := len(d.sessions)
	d.mu.Unlock()
	return totals{
		calls: d.calls.Load(), errors: d.errors.Load(), dials: d.dials.Load(), served: d.served.Load(), refused: d.refused.Load(),
		bytesIn: d.bytesIn.Load(), bytesOut: d.bytesOut.Load(), opened: d.opened.Load(), shut: d.shut.Load(),
		accepted: accepted, inFlight: d.flying.Load(),
	}
}

// stats returns the statistics of each peer, by name.
func (d *data) stats() []PeerStats {
	var out []PeerStats
	for _, p := range *d.peers.Load() {
		out = append(out, p.stats())
	}
	slices.SortFunc(out, func(a, b PeerStats) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// relieve closes the session whose answers have waited longest to be read, if the answers waiting for all members exceed
// the budget.
func (d *data) relieve() {
	d.mu.Lock()
	sessions := slices.Collect(maps.Keys(d.sessions))
	d.mu.Unlock()
	var slowest *session
	var since time.Time
	for _, s := range sessions {
		if at := s.out.storedSince(); !at.IsZero() && (slowest == nil || at.Before(since)) {
			slowest, since = s, at
		}
	}
	if slowest != nil && d.backlog.bytes.Load() > d.backlog.limit {
		slowest.fail(errSlow)
	}
}

// errSlow is why a connection is closed if its peer does not read.
var errSlow = errors.New("it does not read its answers, and the answers that wait take more than Config.InFlightBytes")

// bypassed reports whether a member refuses connections or is silent, so that calls to it fail at once.
func (d *data) bypassed(name string) bool {
	p := (*d.peers.Load())[name]
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.breaker.open
}

// close fails waiting calls and joins every goroutine. When ctx ends, it stops waiting for handlers that do not return.
func (d *data) close(ctx context.Context) {
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
		d.cfg.logger.Warn("data plane closed while requests are still being served", "err", ctx.Err())
	}
}
