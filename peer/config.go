package peer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weircache/weir/ring"
)

// The defaults of a Config, and its limits with their reasons.
const (
	DefaultBind           = "127.0.0.1:0"
	DefaultClusterName    = "weir"
	DefaultConnections    = 1        // one carried more than two when measured: go test ./peer -run - -bench Hop
	DefaultValueLimit     = 1 << 20  // bytes; a larger value holds up those behind it
	DefaultInFlightBytes  = 64 << 20 // bytes; what a node may hold for requests that are under way
	DefaultRejoinInterval = 10 * time.Second

	// MaxName is the longest name of a node, in bytes: it travels in every gossip
	// message about the node, and those have to fit into a packet.
	MaxName = 128
	// MaxClusterName is the longest name of a cluster, in bytes, for the same reason.
	MaxClusterName = 64
	// MaxZone is the longest name of a zone, in bytes, for the same reason.
	MaxZone = 64
	// MaxConnections is the most data connections to one member: beyond a few, each
	// one more only spreads the same bytes over more system calls.
	MaxConnections = 16
	// MaxAcceptSecrets is the most further secrets: a rotation needs one.
	MaxAcceptSecrets = 4
	// MaxValueLimit is the largest ValueLimit, in bytes: a frame is held in memory
	// whole, on both sides.
	MaxValueLimit = 64 << 20
)

// ErrConfig is wrapped by the error that Start returns for a Config it cannot use.
// The error names every field that is wrong, and what to do about it.
var ErrConfig = errors.New("peer: bad configuration")

// A Config says how a node takes part in a cluster. The zero Config is one node alone on a port of
// the loopback that the system picks. Start copies it; slices must not be changed afterwards.
type Config struct {
	// Name is the node's stable name. It places keys, so a node that restarts under its name gets
	// its keys back. It must be unique in the cluster: of two live nodes with one name only the
	// newest is in the view, because after a crash the others cannot tell the two apart for
	// seconds. The older one logs an error, is not ready, and serves its callers through the
	// newest. At most MaxName bytes, printable, without spaces. Default: the address that others
	// dial, which is unique, and as stable as the port is.
	Name string

	// Bind is the "host:port" to listen on: gossip over UDP and TCP, and data over TCP,
	// all on this one port number. It is always explicit, never every interface. Port 0
	// picks a free one. Without a Secret the host must be a loopback address, unless there
	// is a Network of your own, which then has to protect the node. Default: DefaultBind.
	Bind string

	// Advertise is the "host:port" that others dial. A name is resolved once, at Start.
	// Default: the address that Bind led to.
	Advertise string

	// Join names seeds: "host:port", where host is an address or a DNS name, which stands for all
	// its addresses; or the name of SRV records, "_service._tcp.name", which say the ports too and are tried
	// in the order of their priority, then by weight. Names are resolved anew at each attempt; while that
	// fails, which is logged, what they last stood for counts. A seed that is this node itself is skipped, so all
	// members can have the same list. Empty, and no Discover: the node waits for others to join it.
	Join []string

	// Discover, if not nil, finds further seeds, of the same forms. It is called at Start and at each
	// RejoinInterval, in a goroutine of its own, not concurrently. It must return when its context
	// ends: after ten seconds, or when the node closes. One that does not is not called again before it
	// returns, and Close waits for it for a second and leaves its goroutine behind. An attempt to join waits
	// two seconds for it. If it fails, panics or hangs, that is logged and what it found last
	// counts. Of one answer the first 1024 seeds count. The slice is copied.
	Discover func(ctx context.Context) ([]string, error)

	// ClusterName keeps clusters apart: gossip and data of another name are refused at
	// the door. At most MaxClusterName bytes. Default: DefaultClusterName.
	ClusterName string

	// Zone is what the node may be lost together with: a rack, a building, a cloud's availability zone.
	// Who succeeds a lost owner is in another zone than the owner was, if there is any. Set it on all members or
	// on none. At most MaxZone bytes, printable, without spaces. Empty: not known.
	Zone string

	// Secret is what makes a node a member: with it gossip is encrypted, and the data
	// connections are TLS 1.3 on which both sides prove that they have it and who they are. All
	// members need the same, and nobody else may have it. Nil: neither is protected, which is for
	// the loopback only.
	Secret Secret

	// AcceptSecrets are further secrets that others may use: this node believes whoever has
	// one of them, and itself uses Secret. That is how a secret is changed without a pause,
	// in three rolling restarts of all members: first all accept the new one, beside the old
	// Secret; then all have the new one as Secret and accept the old one; then the old one goes.
	AcceptSecrets []Secret

	// TLS, if not nil, takes the place of Secret on the data connections, for who has
	// certificates: the node's own for both directions, and RootCAs or ClientCAs or both. Each must
	// name its node: Name as a DNS name, or where Name is an address and a port, the
	// address. TLS 1.3, certificates on both sides, no resumption and weir's protocol name are
	// set in any case. Gossip is not TLS: beyond the loopback Secret is needed too.
	TLS *tls.Config

	// Ring says how keys are placed. It must be the same on all members: one whose
	// placement differs is kept out of the view.
	Ring ring.Config

	// Connections is how many data connections lead to each other member, at most
	// MaxConnections. Default: DefaultConnections.
	Connections int

	// ValueLimit is the largest encoded value in bytes, at most MaxValueLimit. It must be
	// the same on all members. Default: DefaultValueLimit.
	ValueLimit int

	// InFlightBytes bounds the bytes that the node holds for requests and answers under
	// way, at least twice ValueLimit. Beyond it requests fail as busy. As many bytes again may wait to be read by
	// other members; beyond that the connection whose bytes have waited longest is closed. Default:
	// DefaultInFlightBytes, or twice ValueLimit if that is more.
	InFlightBytes int64

	// MinMembers is how many members Divisor counts at the least. Set it to the size
	// that the cluster is meant to have, and a cap that is divided among the members
	// holds from the first moment of a cold start, before the members have found one
	// another. Default: 1.
	MinMembers int

	// GiveUp is for how long a member counts in Divisor that is lost and of which nothing proves that its process has ended, as on a
	// machine without power. After that the others take over its share of the caps: set it longer than any partition
	// lasts, since a member behind a longer one goes on to load with its old share. The same on every member. 0: it counts until it is back, or its
	// address refuses connections or is another member's.
	GiveUp time.Duration

	// Gossip is how fast members are probed and news spreads.
	Gossip Gossip
	// DrainTimeout bounds how long Leave lets the caches hand over what they have. It ends
	// sooner when they are done. 0: DefaultDrainTimeout. Below 0: they hand over nothing.
	DrainTimeout time.Duration

	// RejoinInterval is how often the seeds are resolved and joined again if one of
	// their addresses is no member, a fifth more or less: a cluster that was split for
	// long does not find together by itself. Default: DefaultRejoinInterval.
	RejoinInterval time.Duration

	// OperatorToken is what requests to Handler that change something, or look for a
	// key, must carry: "Authorization: Bearer <token>". At least MinOperatorToken
	// printable characters without spaces. Empty: such requests are refused.
	OperatorToken string

	// Logger gets what an operator should know. Default: slog.Default().
	Logger *slog.Logger

	// Registerer, if not nil, also gets the node's metrics and those of the registered
	// namespaces; Close takes them out again. The node's own registry, which Handler
	// serves, has them in any case. Two nodes in one process need two registerers, see
	// prometheus.WrapRegistererWith.
	Registerer prometheus.Registerer

	// Network is how the node reaches others. Default: the operating system's network.
	Network Network

	// Seed makes the node's random choices (jitter, order of seeds) repeatable.
	// Default, 0: a random one.
	Seed uint64
}

// Gossip sets the pace of failure detection. The defaults notice a silent death in 2
// to 3 seconds.
type Gossip struct {
	ProbeInterval time.Duration // between two probes of this node; default 500 ms
	ProbeTimeout  time.Duration // for the answer to a probe; default 200 ms; below ProbeInterval
	// HoldDown is the half-life of what the others remember of a member that was lost and came
	// back: after two such returns within it a member rests, and owns nothing, for one to three
	// half-lives. The same on every member. 0: DefaultHoldDown; below 0: no member rests.
	HoldDown      time.Duration
	SuspicionMult int // how long a silent member may still speak up, in probe intervals, times log10 of the members; default 3
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
	host, port, err := splitAddress(c.Bind)
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
		if err := checkSeed(seed); err != nil {
			wrong("Join[%d]: %w", i, err)
		}
	}
	if c.Name != "" {
		if err := checkName(c.Name, MaxName); err != nil {
			wrong("Name: %w", err)
		}
	}
	if err := checkName(c.ClusterName, MaxClusterName); err != nil {
		wrong("ClusterName: %w", err)
	}
	if c.Zone != "" {
		if err := checkName(c.Zone, MaxZone); err != nil {
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

// checkAdvertise says why no other member could dial an advertised address, if that is so. Only what
// holds on every network is wrong; an address behind a translation need not be known here.
func checkAdvertise(advertise, bindHost string) error {
	host, port, err := splitAddress(advertise)
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

// errUnprotected says what to do about an address that others reach.
func errUnprotected(addr string, tls bool) error {
	if tls {
		return fmt.Errorf("%q is not on the loopback, and TLS does not cover gossip: anybody could announce members; set Secret too: %s", addr, howToSecret)
	}
	return fmt.Errorf("%q is not on the loopback, and there is no Secret: anybody could read and change what is cached; set Secret: %s; or bind to 127.0.0.1", addr, howToSecret)
}

// splitAddress takes a "host:port" apart.
func splitAddress(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no \"host:port\": %w", addr, err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q: the port must be a number from 0 to 65535", addr)
	}
	if host == "" {
		return "", 0, fmt.Errorf("%q names no host", addr)
	}
	return host, uint16(n), nil
}

// checkName says what is wrong with a name, if anything.
func checkName(name string, limit int) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > limit:
		return fmt.Errorf("%d bytes, the limit is %d", len(name), limit)
	case !utf8.ValidString(name):
		return fmt.Errorf("%q is not valid UTF-8", name)
	}
	for _, r := range name {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return fmt.Errorf("%q has the character %q; only printable ones other than spaces are allowed", name, r)
		}
	}
	return nil
}

// placement is a fingerprint of how keys are placed: the ring's version and
// configuration. Members whose placement differs would send requests in circles.
func placement(cfg ring.Config) (uint64, error) {
	v, err := ring.New([]ring.Member{{Name: "placement"}}, cfg)
	if err != nil {
		return 0, err
	}
	return v.Fingerprint(), nil
}
