package peer

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/loglimit"
	"github.com/weircache/weir/ring"
)

const (
	pushPullInterval = 15 * time.Second // between exchanges of the whole state with one member
	gossipInterval   = 100 * time.Millisecond
	streamTimeout    = 3 * time.Second // for a gossip stream to open, and for each of its reads and writes
	// healthLevels bounds how far a node that suspects itself slows down its probes, and thereby how long a probe may
	// outlast Shutdown.
	healthLevels = 4
	// leaveWait bounds each of the two steps of leaving that wait for gossip.
	leaveWait = time.Second
)

// A host is what a roster needs of the node that it works for. Its methods are safe for concurrent use and return at once,
// except HasEnded.
type host interface {
	// Allow adds to the members that may be called: live names and their incarnations. A roster calls it before callers can
	// see the members in a view.
	Allow(members map[string]uint64)
	// Confine ends the calls to all other members and to other incarnations. A roster calls it after callers can see the
	// view without them.
	Confine(members map[string]uint64)
	// LongestLoad returns how long a load of the node's caches may take.
	LongestLoad() time.Duration
	// HasEnded dials a lost start of a member and reports whether the answer proves that its process has ended.
	HasEnded(ctx context.Context, start ring.Member) bool
}

// gossipConfig configures gossip.
type gossipConfig struct {
	label                       string // keeps clusters apart
	probeInterval, probeTimeout time.Duration
	suspicionMult               int
	keyring                     *memberlist.Keyring // nil: gossip is plain
	packets                     net.PacketConn
	dial                        func(ctx context.Context, addr string) (net.Conn, error) // opens a stream to another member's gossip
}

// seedConfig says how the members to join are found.
type seedConfig struct {
	fixed    []string
	discover func(context.Context) ([]string, error) // nil: only the fixed ones
	interval time.Duration                           // between attempts to join
	network  resolver
}

// rosterConfig is the configuration of a roster.
type rosterConfig struct {
	self       identity
	addr       netip.AddrPort // that others dial
	ring       ring.Config
	minMembers int           // the least number that the share counts
	giveUp     time.Duration // how long a lost member counts without evidence of its end; 0: until there is some
	holdDown   time.Duration // half-life of the penalty for a member's returns; at most 0: no member rests
	gossip     gossipConfig
	hearing    *hearing.Monitor // of this node; nil: it always hears
	seeds      seedConfig
	logger     *slog.Logger
	rnd        *rand.Rand // the roster's from now on
}

// A roster knows who the members are. It gossips, joins seeds and publishes views. It is safe for concurrent use.
type roster struct {
	cfg       rosterConfig
	host      host
	table     *table
	transport *transport
	gossip    *memberlist.Memberlist // set by start
	logger    *slog.Logger
	noise     loglimit.Limiter
	finder    finder // the rejoining goroutine's
	rng       rng

	published  atomic.Pointer[published]
	addrs      atomic.Pointer[map[netip.Addr]bool] // of the members; replaced, never changed
	share      atomic.Pointer[share]
	changes    atomic.Int64 // of the view
	superseded atomic.Bool
	doubled    atomic.Bool      // an earlier incarnation of this node's name may be alive
	proving    atomic.Bool      // addresses of lost members are being dialled
	joined     atomic.Bool      // a seed has answered, or there was none to ask
	doubts     chan ring.Member // members that have another view
	differ     differences      // members that have had another view for long
	refreshes  chan chan struct{}

	ctx    context.Context // ends at shutdown; set by start
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// newRoster creates a roster whose view contains this node alone. It fails if the ring's configuration is wrong.
func newRoster(cfg rosterConfig, h host) (*roster, error) {
	r := &roster{
		cfg: cfg, host: h, logger: cfg.logger, rng: rng{rnd: cfg.rnd},
		doubts: make(chan ring.Member, 1), refreshes: make(chan chan struct{}),
	}
	r.finder = finder{network: cfg.seeds.network, fixed: cfg.seeds.fixed, discover: discovery{call: cfg.seeds.discover}, shuffle: r.rng.shuffle}
	r.table = newTable(cfg.self, cfg.addr.String(), cfg.minMembers, memberLimit(cfg.ring))
	r.table.hold, r.table.giveUp = max(cfg.holdDown, 0), cfg.giveUp
	first := r.table.look(time.Now())
	view, err := ring.New(first.members, cfg.ring)
	if err != nil {
		return nil, err
	}
	r.published.Store(&published{view: view, at: time.Now(), changed: make(chan struct{})})
	r.share.Store(&first.share)
	r.table.longest, r.table.hearing = h.LongestLoad, cfg.hearing
	h.Allow(first.reachable)
	r.transport = newTransport(cfg.gossip.dial, cfg.gossip.packets, cfg.addr, cfg.logger)
	return r, nil
}

// start begins to gossip. The caller must call shutdown and wait, unless start fails. The end of ctx ends what the roster
// does beside gossip.
func (r *roster) start(ctx context.Context) error {
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.transport.start()
	var err error
	if r.gossip, err = memberlist.Create(r.memberlistConfig()); err != nil {
		r.cancel()
		_ = r.transport.Shutdown()
		return err
	}
	first := *r.share.Load()
	w := watcher{settling: settling{applied: first, target: first}}
	r.wg.Go(func() { r.watch(w) })
	r.wg.Go(r.settleDoubts)
	return nil
}

// join begins to join the seeds, again and again. The channel closes after the first attempt, or at once if there are no
// seeds.
func (r *roster) join() <-chan struct{} {
	tried := make(chan struct{})
	if len(r.cfg.seeds.fixed) == 0 && r.cfg.seeds.discover == nil {
		r.joined.Store(true)
		close(tried)
	} else {
		r.wg.Go(func() { r.rejoin(tried) })
	}
	return tried
}

// memberlistConfig configures memberlist. The label keeps clusters apart: traffic with another label is dropped before it
// is inspected. The alive and merge delegates alone would reject every member of another cluster again and again, each time
// with a line in the log.
func (r *roster) memberlistConfig() *memberlist.Config {
	g := &r.cfg.gossip
	c := memberlist.DefaultLANConfig()
	c.Name = r.cfg.self.gossipName()
	c.Label = g.label
	c.Transport = r.transport
	c.BindPort = int(r.cfg.addr.Port())
	c.ProtocolVersion = memberlist.ProtocolVersionMax
	c.ProbeInterval = g.probeInterval
	c.ProbeTimeout = g.probeTimeout
	c.SuspicionMult = g.suspicionMult
	c.AwarenessMaxMultiplier = healthLevels
	c.GossipInterval = gossipInterval
	c.PushPullInterval = pushPullInterval
	c.TCPTimeout = streamTimeout
	c.EnableCompression = false // packets are small, and data that is never decompressed cannot explode
	c.Keyring = g.keyring       // beyond the label, everything is encrypted
	c.Delegate = r.table
	c.Alive = r.table
	c.Merge = r.table
	c.Events = r.table
	c.Ping = r.table
	c.Logger = gossipLogger(r.logger)
	return c
}

// take takes over a gossip stream that another node opened. On error the stream stays with the caller.
func (r *roster) take(conn net.Conn) error { return r.transport.take(conn) }

// announceLeave takes this node out of its own view and tells the others that it leaves. It returns false if there is
// nobody to tell, or the roster is shut down.
func (r *roster) announceLeave() bool {
	r.table.leave()
	r.refresh()
	others := r.table.others()
	if len(others) == 0 || r.ctx.Err() != nil {
		return false
	}
	var told sync.WaitGroup
	told.Go(func() {
		if err := r.gossip.UpdateNode(leaveWait); err != nil {
			r.logger.Debug("gossip of the leave was not confirmed", "error", err)
		}
	})
	r.announce(r.ctx, others)
	told.Wait()
	return true
}

// leave leaves gossip, so that the others forget this node. It must not be called after shutdown.
func (r *roster) leave() {
	if err := r.gossip.Leave(leaveWait); err != nil {
		r.logger.Debug("gossip of the leave was not confirmed", "error", err)
	}
}

// shutdown stops gossip at once, without telling the others. memberlist offers no way to join its goroutines; they end on
// their own within four probe intervals.
func (r *roster) shutdown() {
	r.cancel()
	if err := r.gossip.Shutdown(); err != nil {
		r.logger.Warn("gossip did not shut down cleanly", "error", err)
	}
}

// wait waits for the roster's goroutines after shutdown.
func (r *roster) wait() { r.wg.Wait() }

// view returns the current view with one atomic load. It is never nil.
func (r *roster) view() *ring.View { return r.published.Load().view }

// viewChanged returns a channel that closes at the next change of the view.
func (r *roster) viewChanged() <-chan struct{} { return r.published.Load().changed }

// answered records that a member answers again that only this node, or this node first, had found silent.
func (r *roster) answered(name string) { r.table.answered(name) }

// proven records evidence that a start ended no later than now.
func (r *roster) proven(start ring.Member) { r.table.proven(start, time.Now()) }

// isMemberAddr reports whether a member has the address.
func (r *roster) isMemberAddr(a netip.Addr) bool {
	addrs := r.addrs.Load()
	return addrs != nil && (*addrs)[a]
}

// rng is a source of random numbers for several goroutines.
type rng struct {
	mu  sync.Mutex // guards rnd
	rnd *rand.Rand
}

func (r *rng) shuffle(count int, swap func(i, j int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rnd.Shuffle(count, swap)
}

// jitter returns a random part of d.
func (r *rng) jitter(d time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Duration(r.rnd.Float64() * float64(d))
}
