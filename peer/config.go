package peer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/ring"
)

// The defaults and limits of a Config, with their reasons.
const (
	DefaultBind           = "127.0.0.1:0"
	DefaultClusterName    = "weir"
	DefaultConnections    = 1        // one carried more than two when measured: go test ./peer -run - -bench Hop
	DefaultValueLimit     = 1 << 20  // bytes; a larger value delays those behind it
	DefaultInFlightBytes  = 64 << 20 // bytes; what a node may hold for requests in flight
	DefaultRejoinInterval = 10 * time.Second
	DefaultDrainTimeout   = 10 * time.Second // what Leave allows the caches

	// MaxName is the longest name of a node, in bytes. The name travels in every gossip message about the node, and
	// those messages must fit into a packet.
	MaxName = 128
	// MaxClusterName is the longest name of a cluster, in bytes, for the same reason.
	MaxClusterName = 64
	// MaxZone is the longest name of a zone, in bytes, for the same reason.
	MaxZone = 64
	// MaxMembers is the largest number of members in a view. Larger views were never measured, and building one of
	// this size from nothing takes half a second. If Config.Ring.Partitions is lower, that is the limit.
	MaxMembers = 1024
	// DefaultHoldDown is the value of Gossip.HoldDown when it is 0.
	DefaultHoldDown = time.Minute
	// MaxConnections is the largest number of data connections to one member. Beyond a few, each additional connection only
	// spreads the same bytes over more system calls.
	MaxConnections = 16
	// MaxAcceptSecrets is the largest number of additional secrets. A rotation needs one.
	MaxAcceptSecrets = 4
	// MaxValueLimit is the largest ValueLimit, in bytes. Both sides hold a whole frame in memory.
	MaxValueLimit = 64 << 20
)

// The member list has the same limits. Those that differ do not compile.
var (
	_ [0]struct{} = [MaxName - roster.MaxName]struct{}{}
	_ [0]struct{} = [MaxClusterName - roster.MaxClusterName]struct{}{}
	_ [0]struct{} = [MaxZone - roster.MaxZone]struct{}{}
	_ [0]struct{} = [MaxMembers - roster.MaxMembers]struct{}{}
	_ [0]struct{} = [DefaultHoldDown - roster.DefaultHoldDown]struct{}{}
)

// ErrConfig is wrapped by the error that Start returns for a Config it cannot use. The error names every wrong field and
// says how to fix it.
var ErrConfig = errors.New("peer: bad configuration")

// A Config says how a node takes part in a cluster. The zero Config is a single node on a loopback port that the system
// picks. Start copies it; slices must not be changed afterwards.
type Config struct {
	// Name is the node's stable name. It places keys, so a node that restarts under its name gets its keys back. It must be
	// unique in the cluster. If two live nodes have one name, only the newest is in the view: for some seconds after a
	// crash the others cannot tell the two cases apart. The older node logs an error, is not ready, and serves its callers
	// through the newest. At most MaxName bytes, printable, without spaces. Default: the address that others dial, which is
	// unique, and as stable as the port is.
	Name string

	// Bind is the "host:port" to listen on: gossip over UDP and TCP, and data over TCP, all on this one port number. It is
	// always explicit, never every interface. Port 0 picks a free one. Without a Secret the host must be a loopback
	// address, unless you set a Network of your own, which then has to protect the node. Default: DefaultBind.
	Bind string

	// Advertise is the "host:port" that others dial. A name is resolved once, at Start. Default: the address that Bind
	// resolved to.
	Advertise string

	// Join lists seeds. A seed is a "host:port", where host is an address or a DNS name that stands for all its addresses,
	// or the name of SRV records, "_service._tcp.name". SRV records state the ports too and are tried in the order of their
	// priority, then by weight. Names are resolved again at each attempt. While resolution fails, which is logged, the last
	// known addresses are used. A seed that is this node itself is skipped, so all members can have the same list. If Join
	// is empty and there is no Discover, the node waits for others to join it.
	Join []string

	// Discover, if not nil, finds additional seeds, in the same forms. It is called at Start and at each RejoinInterval, in
	// a goroutine of its own, never concurrently. It must return when its context ends: after ten seconds, or when the node
	// closes. If it does not return, it is not called again until it does; Close waits one second for it and then leaves
	// its goroutine behind. An attempt to join waits two seconds for it. If it fails, panics or hangs, that is logged and
	// its last result is used. At most the first 1024 seeds of an answer count. The slice is copied.
	Discover func(ctx context.Context) ([]string, error)

	// ClusterName keeps clusters apart: gossip and data of a cluster with another name are rejected. At most MaxClusterName
	// bytes. Default: DefaultClusterName.
	ClusterName string

	// Zone is the failure domain of the node: a rack, a building, a cloud's availability zone. The successor of a lost
	// owner is in another zone than the owner was, if there is any. Set it on all members or on none. At most MaxZone
	// bytes, printable, without spaces. Empty: not known.
	Zone string

	// Secret makes a node a member. With it gossip is encrypted, and the data connections are TLS 1.3, on which both sides
	// prove that they hold it, and prove their identity. All members need the same secret, and nobody else may have it.
	// Nil: neither gossip nor data is protected, which is for the loopback only.
	Secret Secret

	// AcceptSecrets are additional secrets that others may use: this node trusts any peer that holds one of them, and
	// itself uses Secret. They allow changing a secret without downtime, in three rolling restarts of all members. First
	// all accept the new secret beside the old Secret. Then all have the new one as Secret and accept the old one. Then the
	// old one is removed.
	AcceptSecrets []Secret

	// TLS, if not nil, replaces Secret on the data connections, for services that have certificates. It holds the node's
	// own certificate for both directions, and RootCAs or ClientCAs or both. Each certificate must name its node: Name as a
	// DNS name, or the address if Name is an address and a port. TLS 1.3, certificates on both sides, no resumption and
	// weir's protocol name are set in any case. Gossip is not TLS: beyond the loopback, Secret is also needed.
	TLS *tls.Config

	// Ring says how keys are placed. It must be the same on all members; a member whose placement differs is kept out of
	// the view.
	Ring ring.Config

	// Connections is how many data connections lead to each other member, at most
	// MaxConnections. Default: DefaultConnections.
	Connections int

	// ValueLimit is the largest encoded value in bytes, at most MaxValueLimit. It must be
	// the same on all members. Default: DefaultValueLimit.
	ValueLimit int

	// InFlightBytes bounds the bytes that the node holds for requests and answers in flight, at least twice ValueLimit.
	// Beyond it, requests fail as busy. The same number of bytes again may wait to be read by other members; beyond that,
	// the connection whose bytes have waited longest is closed. Default: DefaultInFlightBytes, or twice ValueLimit if that
	// is more.
	InFlightBytes int64

	// MinMembers is the least number of members that Divisor counts. Set it to the size that the cluster is meant to have.
	// Then a cap that is divided among the members holds from the first moment of a cold start, before the members have
	// found one another. Default: 1.
	MinMembers int

	// GiveUp is how long Divisor counts a lost member if nothing proves that its process has ended, as with a machine that
	// lost power. After that the others take over its share of the caps. Set it longer than any partition lasts, since a
	// member behind a longer partition continues to load with its old share. It must be the same on every member. 0: the
	// member counts until it is back, or until its address refuses connections or belongs to another member.
	GiveUp time.Duration

	// Gossip sets how fast members are probed and news spreads.
	Gossip Gossip
	// DrainTimeout bounds how long Leave lets the caches hand off their entries. Leave goes on sooner if they are done. 0:
	// DefaultDrainTimeout. Below 0: they hand off nothing.
	DrainTimeout time.Duration

	// RejoinInterval is the pause, give or take a fifth, between two attempts to join the seeds. An attempt resolves the
	// seeds and tries the addresses that are not members until one answers. Without it, a cluster that was split for a long
	// time would stay split. Default: DefaultRejoinInterval.
	RejoinInterval time.Duration

	// OperatorToken is the token that a request to Handler must carry if it changes something or looks up a key:
	// "Authorization: Bearer <token>". At least MinOperatorToken printable characters without spaces. Empty: such requests
	// are rejected.
	OperatorToken string

	// Logger receives what an operator should know. Default: slog.Default().
	Logger *slog.Logger

	// Registerer, if not nil, also gets the node's metrics and those of the registered namespaces; Close unregisters them.
	// The node's own registry, which Handler serves, has them in any case. Two nodes in one process need two registerers,
	// see prometheus.WrapRegistererWith.
	Registerer prometheus.Registerer

	// Network is how the node reaches others. Default: the operating system's network.
	Network Network

	// Seed makes the node's random choices (jitter, order of seeds) repeatable. Default, 0: a random seed.
	Seed uint64
}

// Gossip sets the pace of failure detection. With the defaults, a silent death is noticed in 2 to 3 seconds.
type Gossip struct {
	ProbeInterval time.Duration // between two probes of this node; default 500 ms
	ProbeTimeout  time.Duration // for the answer to a probe; default 200 ms; below ProbeInterval
	// HoldDown is the half-life of the penalty for a member that was lost and came back. After two such returns within one
	// half-life a member rests, and owns nothing, for one to three half-lives. It must be the same on every member. 0:
	// DefaultHoldDown; below 0: no member rests.
	HoldDown      time.Duration
	SuspicionMult int // how long a silent member may still respond, in probe intervals, times log10 of the members; default 3
}

// settings is a Config with its defaults filled in and its addresses parsed.
type settings struct {
	Config
	bindHost string
	bindPort uint16
	digest   uint64 // of the placement, see placement
}

// check fills in the defaults and finds everything that is wrong with c.
func (c Config) check() (settings, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	custom := c.Network != nil
	if !custom {
		c.Network = systemNetwork{}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Bind = cmp.Or(c.Bind, DefaultBind)
	c.ClusterName = cmp.Or(c.ClusterName, DefaultClusterName)
	c.Connections = cmp.Or(c.Connections, DefaultConnections)
	c.ValueLimit = cmp.Or(c.ValueLimit, DefaultValueLimit)
	c.MinMembers = cmp.Or(c.MinMembers, 1)
	c.RejoinInterval = cmp.Or(c.RejoinInterval, DefaultRejoinInterval)
	c.Gossip.ProbeInterval = cmp.Or(c.Gossip.ProbeInterval, 500*time.Millisecond)
	c.Gossip.ProbeTimeout = cmp.Or(c.Gossip.ProbeTimeout, 200*time.Millisecond)
	c.Gossip.HoldDown = cmp.Or(c.Gossip.HoldDown, DefaultHoldDown)
	c.Gossip.SuspicionMult = cmp.Or(c.Gossip.SuspicionMult, 3)

	s := settings{}
	host, port, err := roster.SplitAddress(c.Bind)
	if err != nil {
		wrong("Bind: %w", err)
	} else {
		s.bindHost, s.bindPort = host, port
		ip, notIP := netip.ParseAddr(host)
		switch {
		case notIP == nil && ip.IsUnspecified():
			wrong("Bind: %q is every interface of the machine; name the one that the other members reach", c.Bind)
		case custom || len(c.Secret) > 0 || notIP == nil && ip.IsLoopback() || host == "localhost":
		default:
			wrong("Bind: %w", errUnprotected(c.Bind, c.TLS != nil))
		}
	}
	if c.Advertise != "" {
		if err := checkAdvertise(c.Advertise, s.bindHost); err != nil {
			wrong("Advertise: %w", err)
		}
	}
	for i, seed := range c.Join {
		if err := roster.CheckSeed(seed); err != nil {
			wrong("Join[%d]: %w", i, err)
		}
	}
	if c.Name != "" {
		if err := roster.CheckName(c.Name, MaxName); err != nil {
			wrong("Name: %w", err)
		}
	}
	if err := roster.CheckName(c.ClusterName, MaxClusterName); err != nil {
		wrong("ClusterName: %w", err)
	}
	if c.Zone != "" {
		if err := roster.CheckName(c.Zone, MaxZone); err != nil {
			wrong("Zone: %w", err)
		}
	}
	if len(c.Secret) > 0 || c.Secret != nil {
		if err := c.Secret.check(); err != nil {
			wrong("Secret: %w", err)
		}
	} else if len(c.AcceptSecrets) > 0 {
		wrong("AcceptSecrets: there is no Secret; %s", howToSecret)
	}
	if len(c.AcceptSecrets) > MaxAcceptSecrets {
		wrong("AcceptSecrets: %d of them, at most %d: each is tried for each message", len(c.AcceptSecrets), MaxAcceptSecrets)
	}
	for i, s := range c.AcceptSecrets {
		if err := s.check(); err != nil {
			wrong("AcceptSecrets[%d]: %w", i, err)
		} else if s.equal(c.Secret) {
			wrong("AcceptSecrets[%d]: it is the Secret itself; leave it out", i)
		}
	}
	if c.Connections < 1 || c.Connections > MaxConnections {
		wrong("Connections: %d is not between 1 and %d", c.Connections, MaxConnections)
	}
	if c.ValueLimit < 1 || c.ValueLimit > MaxValueLimit {
		wrong("ValueLimit: %d bytes is not between 1 and %d", c.ValueLimit, MaxValueLimit)
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.InFlightBytes == 0 {
		c.InFlightBytes = max(DefaultInFlightBytes, 2*int64(c.ValueLimit))
	} else if c.InFlightBytes < 2*int64(c.ValueLimit) {
		wrong("InFlightBytes: %d bytes cannot hold two values of ValueLimit, %d", c.InFlightBytes, c.ValueLimit)
	}
	if err := checkToken(c.OperatorToken); err != nil {
		wrong("OperatorToken: %w", err)
	}
	if c.MinMembers < 1 {
		wrong("MinMembers: %d is below 1", c.MinMembers)
	}
	if c.GiveUp < 0 {
		wrong("GiveUp: %v is below 0", c.GiveUp)
	}
	if c.RejoinInterval < time.Millisecond {
		wrong("RejoinInterval: %v is below 1ms", c.RejoinInterval)
	}
	if g := c.Gossip; g.ProbeTimeout < time.Millisecond || g.ProbeTimeout >= g.ProbeInterval {
		wrong("Gossip: ProbeTimeout, %v, must be at least 1ms and below ProbeInterval, %v", g.ProbeTimeout, g.ProbeInterval)
	}
	if c.Gossip.SuspicionMult < 1 {
		wrong("Gossip: SuspicionMult: %d is below 1", c.Gossip.SuspicionMult)
	}
	if s.digest, err = placement(c.Ring); err != nil {
		wrong("Ring: %w", err)
	}
	if len(errs) > 0 {
		return settings{}, fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
	}
	s.Config = c
	return s, nil
}

// checkAdvertise returns an error if no other member could dial an advertised address. It rejects only what is wrong on
// every network; an address behind a NAT need not be known here.
func checkAdvertise(advertise, bindHost string) error {
	host, port, err := roster.SplitAddress(advertise)
	if err != nil {
		return err
	}
	loopback := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.IsLoopback() || host == "localhost"
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	switch broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255}); {
	case port == 0, err == nil && (ip.IsUnspecified() || ip.IsMulticast() || ip == broadcast):
		return fmt.Errorf("others cannot dial %q; name the address and port that they reach", advertise)
	case loopback(host) && bindHost != "" && !loopback(bindHost):
		return fmt.Errorf("%q is the loopback, where others reach only themselves, and Bind is not; name the address that they reach", advertise)
	case err == nil && ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "":
		return fmt.Errorf("%q is a link-local address without a zone; name an address that others reach", advertise)
	}
	return nil
}

// errUnprotected says what to do about an address that others can reach.
func errUnprotected(addr string, tls bool) error {
	if tls {
		return fmt.Errorf("%q is not on the loopback, and TLS does not cover gossip: anyone could announce members; set Secret too: %s", addr, howToSecret)
	}
	return fmt.Errorf("%q is not on the loopback, and there is no Secret: anyone could read and change what is cached; set Secret: %s; or bind to 127.0.0.1", addr, howToSecret)
}

// placement returns a fingerprint of how keys are placed: the ring's version and configuration. Members whose placement
// differs would send requests in circles.
func placement(cfg ring.Config) (uint64, error) {
	v, err := ring.New([]ring.Member{{Name: "placement"}}, cfg)
	if err != nil {
		return 0, err
	}
	return v.Fingerprint(), nil
}
