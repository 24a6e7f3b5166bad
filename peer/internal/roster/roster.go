package roster

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

// A Host is what a roster needs of the node that it works for. Its methods are safe for concurrent use and return at once,
// except HasEnded.
type Host interface {
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

// Gossip configures gossip.
type Gossip struct {
	Label                       string // keeps clusters apart
	ProbeInterval, ProbeTimeout time.Duration
	SuspicionMult               int
	Keyring                     *memberlist.Keyring // nil: gossip is plain
	Packets                     net.PacketConn
	Dial                        func(ctx context.Context, addr string) (net.Conn, error) // opens a stream to another member's gossip
}

// Seeds says how the members to join are found.
type Seeds struct {
	Fixed    []string
	Discover func(context.Context) ([]string, error) // nil: only the fixed ones
	Interval time.Duration                           // between attempts to join
	Network  Resolver
}

// Config is the configuration of a roster.
type Config struct {
	Self       Identity
	Addr       netip.AddrPort // that others dial
	Ring       ring.Config
	MinMembers int           // the least number that the share counts
	GiveUp     time.Duration // how long a lost member counts without evidence of its end; 0: until there is some
	HoldDown   time.Duration // half-life of the penalty for a member's returns; at most 0: no member rests
	Gossip     Gossip
	Hearing    *hearing.Monitor // of this node; nil: it always hears
	Seeds      Seeds
	Logger     *slog.Logger
	Rand       *rand.Rand // the roster's from now on
}

// A Roster knows who the members are. It gossips, joins seeds and publishes views. It is safe for concurrent use.
type Roster struct {
	cfg       Config
	host      Host
	table     *table
	transport *transport
	gossip    *memberlist.Memberlist // set by Start
	logger    *slog.Logger
	noise     loglimit.Limiter
	finder    finder // the rejoining goroutine's
	rng       rng

	published    atomic.Pointer[published]
	addrs        atomic.Pointer[map[netip.Addr]bool] // of the members; replaced, never changed
	share        atomic.Pointer[Share]
	changes      atomic.Int64 // of the view
	superseded   atomic.Bool
	earlierStart atomic.Bool      // an earlier incarnation of this node's name may be alive
	proving      atomic.Bool      // addresses of lost members are being dialled
	joined       atomic.Bool      // a seed has answered, or there was none to ask
	exchanges    chan ring.Member // members that have another view
	differ       differences      // members that have had another view for long
	refreshes    chan chan struct{}

	ctx    context.Context // ends at Shutdown; set by Start
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New creates a roster whose view contains this node alone. It fails if the ring's configuration is wrong.
func New(cfg Config, h Host) (*Roster, error) {
	r := &Roster{
		cfg: cfg, host: h, logger: cfg.Logger, rng: rng{rnd: cfg.Rand},
		exchanges: make(chan ring.Member, 1), refreshes: make(chan chan struct{}),
	}
	r.finder = finder{network: cfg.Seeds.Network, fixed: cfg.Seeds.Fixed, discover: discovery{call: cfg.Seeds.Discover}, shuffle: r.rng.shuffle}
	r.table = newTable(cfg.Self, cfg.Addr.String(), cfg.MinMembers, memberLimit(cfg.Ring))
	r.table.flaps.half, r.table.losses.giveUp = max(cfg.HoldDown, 0), cfg.GiveUp
	first := r.table.look(time.Now())
	view, err := ring.New(first.members, cfg.Ring)
	if err != nil {
		return nil, err
	}
	r.published.Store(&published{view: view, at: time.Now(), changed: make(chan struct{})})
	r.share.Store(&first.share)
	r.table.longest = h.LongestLoad
	if cfg.Hearing != nil {
		r.table.hearing = cfg.Hearing
	}
	h.Allow(first.reachable)
	r.transport = newTransport(cfg.Gossip.Dial, cfg.Gossip.Packets, cfg.Addr, cfg.Logger)
	return r, nil
}

// Start begins to gossip. The caller must call Shutdown and Wait, unless Start fails. The end of ctx ends what the roster
// does beside gossip.
func (r *Roster) Start(ctx context.Context) error {
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
	r.wg.Go(r.exchangeStates)
	return nil
}

// Join begins to join the seeds, again and again. The channel closes after the first attempt, or at once if there are no
// seeds.
func (r *Roster) Join() <-chan struct{} {
	tried := make(chan struct{})
	if len(r.cfg.Seeds.Fixed) == 0 && r.cfg.Seeds.Discover == nil {
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
func (r *Roster) memberlistConfig() *memberlist.Config {
	g := &r.cfg.Gossip
	c := memberlist.DefaultLANConfig()
	c.Name = r.cfg.Self.GossipName()
	c.Label = g.Label
	c.Transport = r.transport
	c.BindPort = int(r.cfg.Addr.Port())
	c.ProtocolVersion = memberlist.ProtocolVersionMax
	c.ProbeInterval = g.ProbeInterval
	c.ProbeTimeout = g.ProbeTimeout
	c.SuspicionMult = g.SuspicionMult
	c.AwarenessMaxMultiplier = healthLevels
	c.GossipInterval = gossipInterval
	c.PushPullInterval = pushPullInterval
	c.TCPTimeout = streamTimeout
	c.EnableCompression = false // packets are small, and data that is never decompressed cannot explode
	c.Keyring = g.Keyring       // beyond the label, everything is encrypted
	c.Delegate = r.table
	c.Alive = r.table
	c.Merge = r.table
	c.Events = r.table
	c.Ping = r.table
	c.Logger = gossipLogger(r.logger)
	return c
}

// Take takes over a gossip stream that another node opened. On error the stream stays with the caller.
func (r *Roster) Take(conn net.Conn) error { return r.transport.take(conn) }

// AnnounceLeave takes this node out of its own view and tells the others that it leaves. It returns false if there is
// nobody to tell, or the roster is shut down.
func (r *Roster) AnnounceLeave() bool {
	r.table.leave()
	r.Refresh()
	others := r.table.others()
	if len(others) == 0 || r.ctx.Err() != nil {
		return false
	}
	var gossiped sync.WaitGroup
	gossiped.Go(func() {
		if err := r.gossip.UpdateNode(leaveWait); err != nil {
			r.logger.Debug("gossip of the leave was not confirmed", "error", err)
		}
	})
	r.announce(r.ctx, others)
	gossiped.Wait()
	return true
}

// Leave leaves gossip, so that the others forget this node. It must not be called after Shutdown.
func (r *Roster) Leave() {
	if err := r.gossip.Leave(leaveWait); err != nil {
		r.logger.Debug("gossip of the leave was not confirmed", "error", err)
	}
}

// Shutdown stops gossip at once, without telling the others. memberlist offers no way to join its goroutines; they end on
// their own within four probe intervals.
func (r *Roster) Shutdown() {
	r.cancel()
	if err := r.gossip.Shutdown(); err != nil {
		r.logger.Warn("gossip did not shut down cleanly", "error", err)
	}
}

// Wait waits for the roster's goroutines after Shutdown.
func (r *Roster) Wait() { r.wg.Wait() }

// View returns the current view with one atomic load. It is never nil.
func (r *Roster) View() *ring.View { return r.published.Load().view }

// ViewChanged returns a channel that closes at the next change of the view.
func (r *Roster) ViewChanged() <-chan struct{} { return r.published.Load().changed }

// Share returns this node's part of what the members divide, with one atomic load.
func (r *Roster) Share() Share { return *r.share.Load() }

// Members lists what is known of all members, sorted by name and incarnation.
func (r *Roster) Members() []Info { return r.table.list() }

// Lost reports whether a member vanished without leaving.
func (r *Roster) Lost(name string) bool { return r.table.lost(name) }

// Changes returns how many views have been published since the first.
func (r *Roster) Changes() int64 { return r.changes.Load() }

// Superseded reports whether a later start of this node's name is in the view.
func (r *Roster) Superseded() bool { return r.superseded.Load() }

// EarlierStart reports whether an earlier start of this node's name may be alive.
func (r *Roster) EarlierStart() bool { return r.earlierStart.Load() }

// Joined reports whether a seed has answered, or there was none to ask.
func (r *Roster) Joined() bool { return r.joined.Load() }

// Differing returns the members that have had another view for long.
func (r *Roster) Differing() []string { return r.differ.listed() }

// MostlyDiffering returns the members that have had another view for long if they are most of the others, or else nil.
func (r *Roster) MostlyDiffering() []string { return r.differ.mostly() }

// Answered records that a member answers again that only this node, or this node first, had found silent.
func (r *Roster) Answered(name string) { r.table.answered(name) }

// Proven records evidence that a start ended no later than now.
func (r *Roster) Proven(start ring.Member) { r.table.proven(start, time.Now()) }

// HasAddr reports whether a member has the address.
func (r *Roster) HasAddr(a netip.Addr) bool {
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

// sleep waits for d. It returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
