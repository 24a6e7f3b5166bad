package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/loglimit"
	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/peer/internal/trust"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/ring"
)

const (
	// startWait is how long Start waits for the first attempt to join.
	startWait = 5 * time.Second
	// drainTime is how long a leaving node still answers after the others have heard of it. What they had sent by then
	// arrives within this time.
	drainTime = 250 * time.Millisecond
)

// A Node is this process's membership in the cluster. All methods are safe for concurrent use.
type Node struct {
	cfg     settings
	id      roster.Identity
	addr    netip.AddrPort // the address that others dial
	logger  *slog.Logger
	noise   loglimit.Limiter
	hearing *hearing.Monitor
	roster  *roster.Roster
	trust   *trust.Trust

	data    *wire.Plane
	port    *port
	spaces  *namespaces
	metrics metrics
	eyes    eyes // what the operator's endpoint needs

	withdrawn atomic.Bool // it leaves or is closed, and no longer has a share of a cap

	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // the node's own goroutines

	mu      sync.Mutex     // guards the fields below
	leaving bool           // Leave was called
	closing bool           // Close was called
	leaves  sync.WaitGroup // the announcing part of Leave; Add only under mu and before closing
	closed  chan struct{}  // closed when Close is done
}

// Start opens the port, tries the seeds once and returns the running node, which keeps trying them. It waits at most 5
// seconds for seeds; if none answers, that is not an error. The error wraps ErrConfig if cfg is wrong, is the error of ctx
// if ctx ends first, and names the port if that is taken. ctx bounds Start only.
//
// The caller must call Leave or Close.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	s, err := cfg.check()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: s, closed: make(chan struct{}), spaces: newNamespaces(),
		metrics: metrics{registry: prometheus.NewRegistry(), user: s.Registerer},
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.open(ctx); err != nil {
		n.cancel()
		return nil, err
	}
	tried := n.roster.Join()
	timer := time.NewTimer(startWait)
	defer timer.Stop()
	select {
	case <-tried:
	case <-timer.C:
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), n.Close())
	}
	// The view and the share that the caller sees first include the result of joining.
	n.roster.Refresh()
	return n, nil
}

// open opens the port and starts everything that listens. On error it leaves nothing open.
func (n *Node) open(ctx context.Context) error {
	s := &n.cfg
	n.eyes.open(s)
	ips, err := roster.Resolve(ctx, s.Network, s.Bind)
	if err == nil && len(ips) == 0 {
		err = errors.New("no addresses")
	}
	if err != nil {
		return fmt.Errorf("%w: Bind: %q cannot be resolved: %w", ErrConfig, s.Bind, err)
	}
	if _, system := s.Network.(systemNetwork); system && len(s.Secret) == 0 && !ips[0].Addr().IsLoopback() {
		return fmt.Errorf("%w: Bind: %q: %w", ErrConfig, s.Bind, errUnprotected(ips[0].Addr().String(), s.TLS != nil))
	}
	ln, pc, bound, err := openPort(ctx, s.Network, ips[0].Addr(), s.bindPort)
	if err != nil {
		return err
	}
	n.addr = bound
	if s.Advertise != "" {
		found, err := roster.Resolve(ctx, s.Network, s.Advertise)
		if err == nil && len(found) == 0 {
			err = errors.New("no addresses")
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%w: Advertise: %q cannot be resolved: %w", ErrConfig, s.Advertise, err), ln.Close(), pc.Close())
		}
		n.addr = found[0]
	}
	if s.Name == "" {
		s.Name = n.addr.String()
	}
	if n.trust, err = newTrust(&s.Config, s.Name); err != nil {
		return errors.Join(fmt.Errorf("%w: TLS: %w", ErrConfig, err), ln.Close(), pc.Close())
	}
	s.Secret, s.AcceptSecrets = nil, nil // what is not kept cannot be printed
	rnd := rand.New(rand.NewPCG(cmp.Or(s.Seed, rand.Uint64()), 0))
	n.id = roster.Identity{
		Name: s.Name, Cluster: s.ClusterName, Incarnation: roster.NewIncarnation(time.Now(), rnd),
		Protocol: wire.ProtocolVersion, RingVersion: ring.Version, Placement: s.digest, Zone: s.Zone,
	}
	n.logger = s.Logger.With("node", s.Name)
	n.eyes.book.node = s.Name
	n.hearing = hearing.New(time.Now())
	n.data = wire.New(planeConfig(n, rnd.Uint64()))
	if _, err := n.data.Register(askNamespace, StatsSchema, answers{endpoint{n}}); err != nil {
		n.data.Close(context.Background())
		return errors.Join(err, ln.Close(), pc.Close())
	}
	if n.roster, err = roster.New(rosterHost{n}.config(pc, rnd), rosterHost{n}); err != nil {
		n.data.Close(context.Background())
		return errors.Join(fmt.Errorf("%w: Ring: %w", ErrConfig, err), ln.Close(), pc.Close())
	}
	gate := portConfig{label: s.gossipLabel(), logger: n.logger, member: n.roster.HasAddr, data: n.data.Accept, gossip: n.roster.Take}
	if n.trust.SealsGossip() {
		gate.secure = n.trust.AcceptGossip
	}
	n.port = newPort(ln, gate)
	if err := n.roster.Start(n.ctx); err != nil {
		n.port.close()
		n.data.Close(context.Background())
		return fmt.Errorf("peer: cannot start gossip: %w", err)
	}
	n.wg.Go(func() { n.hearing.Watch(n.ctx) })
	node := newCollector(n)
	if err := n.metrics.register(node); err != nil {
		return errors.Join(err, n.Close())
	}
	n.metrics.node = node
	n.logger.Info("listening", "address", bound, "advertised", n.addr, "cluster", s.ClusterName, "incarnation", n.id.Incarnation,
		"trust", n.trust.Kind(), "secret id", n.trust.ID, "accepts", n.trust.Accepts)
	return nil
}

// ValueLimit returns the longest encoded value, in bytes, that the node carries: Config.ValueLimit.
func (n *Node) ValueLimit() int { return n.cfg.ValueLimit }

// Name returns the node's stable name.
func (n *Node) Name() string { return n.id.Name }

// Addr returns the "ip:port" that others dial.
func (n *Node) Addr() string { return n.addr.String() }

// View returns the current view with one atomic load. It is never nil. It contains this node unless the node is leaving or
// a later incarnation of its name has replaced it; then it contains that one.
func (n *Node) View() *ring.View { return n.roster.View() }

// Lost reports whether a member is gone that did not leave gracefully, and may come back.
func (n *Node) Lost(name string) bool { return n.roster.Lost(name) }

// ViewChanged returns a channel that closes at the next change of the view. Take the channel before the View whose end it
// is to signal.
func (n *Node) ViewChanged() <-chan struct{} { return n.roster.ViewChanged() }

// Divisor returns how a cap for the whole cluster is divided: by how many members, and this node's rank among them, from 0,
// in the order in which they started.
//
// A member that vanished without leaving counts until it comes back or leaves, since it may be alive on the other side of a
// split. It stops counting earlier once its process is known to have ended and its loads must have ended, or after
// Config.GiveUp. Leaving members count until they are gone. Members that have announced themselves count, and
// Config.MinMembers is the minimum. A lower share takes effect at once, a higher one only after it has been due for two
// seconds. A node that has left or is closed has no share. The call costs two atomic loads.
func (n *Node) Divisor() (members, rank int) {
	if n.withdrawn.Load() {
		return math.MaxInt32, math.MaxInt32 - 1 // the last part of any cap is nothing
	}
	s := n.roster.Share()
	return s.Members, s.Rank
}

// SharesMove reports that caches divide a cap by Divisor as members come and go. A new cache takes its share when the
// others' loads fit theirs.
func (n *Node) SharesMove() bool { return true }

// EarlierStart reports whether another process with this node's name that started earlier may be alive. It is in no view,
// but counts in Divisor. Names must be unique, so either that is a mistake, or that process crashed a moment ago.
func (n *Node) EarlierStart() bool { return n.roster.EarlierStart() }

// Members returns what this node knows of each member, itself included, sorted by name. The slice belongs to the caller.
func (n *Node) Members() []MemberInfo { return infos(n.roster.Members(), n.View()) }

// Register makes h answer the requests for a namespace. The name has at most codec.MaxNamespace bytes; requests of others
// must carry the same schema. If h is a prometheus.Collector, its metrics are registered as well. Register fails if the
// node is closed or the namespace is taken on this node. unregister undoes the registration; a second call does nothing.
func (n *Node) Register(namespace string, schema uint64, h codec.Handler) (unregister func(), err error) {
	if namespace == "" || len(namespace) > codec.MaxNamespace {
		return nil, fmt.Errorf("peer: namespace %q: its name must have 1 to %d bytes", namespace, codec.MaxNamespace)
	}
	if h == nil {
		return nil, fmt.Errorf("peer: namespace %q: the handler is nil", namespace)
	}
	undo, err := n.data.Register(namespace, schema, h)
	if err != nil {
		return nil, err
	}
	metrics, _ := h.(prometheus.Collector)
	if metrics != nil {
		if err := n.metrics.register(metrics); err != nil {
			undo()
			return nil, err
		}
	}
	remove := n.spaces.add(namespace, h)
	return sync.OnceFunc(func() {
		remove()
		if metrics != nil {
			n.metrics.unregister(metrics)
		}
		undo()
	}), nil
}

// Call sends req to a member and fills resp with the answer. It ends when ctx ends, or after req.Timeout. The error is that
// of ctx, or wraps ErrUnreachable, ErrBusy or ErrClosed. resp holds a pooled buffer until resp.Release.
func (n *Node) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	err := n.data.Call(ctx, to, req, resp)
	if err == nil {
		if same, known := viewOf(req, resp); known {
			n.roster.Compare(to, req.View, same)
		}
	}
	return err
}

// viewOf returns whether an answer was given in the view that the request names, and whether the answer tells.
func viewOf(req *codec.Request, resp *codec.Response) (same, known bool) {
	if req.Kind != codec.KindGet && req.Kind != codec.KindSync {
		return false, false
	}
	if resp.Flags&codec.FlagSameView != 0 {
		return true, true
	}
	switch resp.Status {
	case codec.StatusValue, codec.StatusNotFound, codec.StatusSame, codec.StatusMoved, codec.StatusSynced:
		return false, true
	}
	return false, false
}

// Send sends a multi-get without waiting for its answer: call.Done receives call when it has ended. Send does not block. A
// caller that does not need the answer any more must cancel call with call.Withdraw. Send returns false if the request
// could not be sent at once, for example without a connection; then call never ends, and Call would report more. call and
// what it points to are in use until it has ended.
func (n *Node) Send(ctx context.Context, to ring.Member, call *codec.Call) bool {
	return n.data.Send(ctx, to, call)
}

// Bypassed reports whether a member refuses connections or is silent, so that calls to it fail at once.
func (n *Node) Bypassed(name string) bool {
	return n.data.Bypassed(name)
}

// Leave takes the node out of the cluster gracefully and closes it. It announces the leave and waits until the others have
// heard it, so that they drop the node from their views. It lets the caches that use the node hand off their entries, for
// at most Config.DrainTimeout. It goes on answering for a moment the requests already sent to it, and waits for running
// loads as long as they may take. Then it closes the node.
//
// Close the caches after Leave: closed caches hand off nothing, and the log says so. If ctx ends first, Leave closes the
// node and returns the error of ctx. A second call, or a call after Close, waits until the node is closed.
func (n *Node) Leave(ctx context.Context) error {
	n.mu.Lock()
	if !n.leaving && !n.closing {
		n.leaving = true
		n.leaves.Add(1)
		go n.goodbye() // joined through leaves by Close, which it also calls
	}
	n.mu.Unlock()
	select {
	case <-n.closed:
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), n.Close())
	}
}

// goodbye does the work of Leave.
func (n *Node) goodbye() {
	func() {
		defer n.leaves.Done()
		if !n.roster.AnnounceLeave() {
			return
		}
		n.spaces.drain(n.ctx, n.cfg.DrainTimeout, n.logger)
		if !pause(n.ctx, drainTime) {
			return
		}
		// It gives up its share of the caps before the others may take it over: no new load starts.
		n.withdrawn.Store(true)
		n.spaces.awaitLoads(n.ctx, n.logger)
		n.roster.Leave()
	}()
	_ = n.Close()
}

// Close stops the node at once without telling the others, which find out within seconds. Waiting calls fail, and the
// caches no longer have a share of the origin's cap. It joins all goroutines of the node. memberlist offers no way to join
// its goroutines; they end on their own within four probe intervals. A Leave in progress is cut short within a second. A
// second call waits for the first. The error is always nil.
func (n *Node) Close() error {
	n.mu.Lock()
	first := !n.closing
	n.closing = true
	n.mu.Unlock()
	if !first {
		<-n.closed
		return nil
	}
	n.withdrawn.Store(true) // before the port refuses connections, which proves to the others that the loads have ended
	n.cancel()
	n.leaves.Wait() // memberlist panics if it is asked to leave after shutdown
	n.roster.Shutdown()
	n.port.close()
	n.data.Close(context.Background())
	n.roster.Wait()
	n.wg.Wait()
	if node := n.metrics.node; node != nil { // otherwise this would unregister another node's collector
		n.metrics.unregister(node)
	}
	n.logger.Info("closed")
	close(n.closed)
	return nil
}
