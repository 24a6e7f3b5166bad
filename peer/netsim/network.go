package netsim

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// PacketFaults is what may happen to a packet. The shares range from 0 to 1.
type PacketFaults struct {
	Drop      float64
	Duplicate float64
	Delay     time.Duration // at most; packets overtake one another
}

// ConnFaults is what may happen to a write on a connection. The shares range from 0 to 1.
type ConnFaults struct {
	Delay     time.Duration // at most; the order is kept
	Stall     float64       // share of writes that take longer by StallFor
	StallFor  time.Duration
	Break     float64 // share of writes that break the connection
	HalfClose float64 // share of writes after which the writer's half is closed
}

// Counts says how many faults were injected.
type Counts struct {
	Dropped, Duplicated, Delayed, Stalled, Broken, HalfClosed int64
	Clogged, Paused, Crashed                                  int64
}

// Total is the sum of all counts.
func (c Counts) Total() int64 {
	return c.Dropped + c.Duplicated + c.Delayed + c.Stalled + c.Broken + c.HalfClosed + c.Clogged + c.Paused + c.Crashed
}

// Add adds another network's counts.
func (c *Counts) Add(o Counts) {
	c.Dropped += o.Dropped
	c.Duplicated += o.Duplicated
	c.Delayed += o.Delayed
	c.Stalled += o.Stalled
	c.Broken += o.Broken
	c.HalfClosed += o.HalfClosed
	c.Clogged += o.Clogged
	c.Paused += o.Paused
	c.Crashed += o.Crashed
}

type counters struct {
	dropped, duplicated, delayed, stalled, broken, halfClosed, clogged, paused, crashed atomic.Int64
}

type link struct{ from, to netip.Addr }

// A Network connects hosts. It is safe for concurrent use. To use it in a synctest bubble, create it inside.
type Network struct {
	seed  uint64
	count counters

	mu        sync.Mutex // guards the rest
	packets   PacketFaults
	streams   ConnFaults
	cuts      map[link]int       // number of cuts on a link
	side      map[netip.Addr]int // hosts on different sides cannot reach each other
	sides     int
	paused    map[netip.Addr]int // number of pauses that hold a host
	starved   map[netip.Addr]bool
	names     map[string][]string
	services  map[string][]string
	listeners map[netip.AddrPort]*listener
	sockets   map[netip.AddrPort]*socket
	conns     map[*conn]struct{}
	sent      map[link]uint64 // packets and writes so far
	digest    uint64          // of all packets and writes
	port      uint16          // the last one assigned
	changed   chan struct{}   // closed and replaced when cuts or pauses change
}

// New returns a network without faults. seed decides the faults that are enabled later.
func New(seed uint64) *Network {
	return &Network{
		seed: seed, cuts: make(map[link]int), side: make(map[netip.Addr]int), paused: make(map[netip.Addr]int), starved: make(map[netip.Addr]bool), names: make(map[string][]string), services: make(map[string][]string),
		listeners: make(map[netip.AddrPort]*listener), sockets: make(map[netip.AddrPort]*socket), conns: make(map[*conn]struct{}),
		sent: make(map[link]uint64), port: 20000, changed: make(chan struct{}),
	}
}

// Host returns the network as the host with this IP address sees it. It panics if ip is invalid.
func (n *Network) Host(ip string) *Host { return &Host{n, netip.MustParseAddr(ip)} }

// SetService gives name SRV records with these targets, each a "host:port", on all hosts.
func (n *Network) SetService(name string, targets ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.services[name] = targets
}

// SetName makes name resolve to ips, on all hosts.
func (n *Network) SetName(name string, ips ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[name] = slices.Clone(ips)
}

// SetFaults changes the faults from now on.
func (n *Network) SetFaults(p PacketFaults, c ConnFaults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packets, n.streams = p, c
}

// Cut blocks the link from one host to another. Cuts add up.
func (n *Network) Cut(from, to string) { n.clog(+1, from, to) }

// Uncut undoes one cut.
func (n *Network) Uncut(from, to string) { n.clog(-1, from, to) }

func (n *Network) clog(by int, from, to string) {
	l := link{netip.MustParseAddr(from), netip.MustParseAddr(to)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[l] = max(n.cuts[l]+by, 0)
	n.count.clogged.Add(int64(max(by, 0)))
	n.notify()
}

// Isolate cuts the hosts off from all others, in both directions. They can still reach one another. Each call creates
// another side, so several calls leave as many parts.
func (n *Network) Isolate(ips ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sides++
	for _, ip := range ips {
		n.side[netip.MustParseAddr(ip)] = n.sides
	}
	n.count.clogged.Add(1)
	n.notify()
}

// Heal lifts all cuts and resumes all hosts. Faults that the seed decides stay enabled.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
	clear(n.side)
	clear(n.paused)
	clear(n.starved)
	n.notify()
}

// Pause holds everything that the host sends and receives until Resume; pauses add up.
func (n *Network) Pause(ip string) { n.hold(+1, ip) }

// Resume undoes one pause.
func (n *Network) Resume(ip string) { n.hold(-1, ip) }

// Starve keeps the process of a host from its sockets, or ends that. Unlike a paused host, a starved one keeps
// acknowledging what arrives on its connections.
func (n *Network) Starve(ip string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.starved[netip.MustParseAddr(ip)] = on
	n.notify()
}

// acknowledges reports whether data sent over the link is acknowledged.
func (n *Network) acknowledges(way link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut(way) && !n.cut(link{way.to, way.from}) && n.paused[way.to] == 0
}

func (n *Network) hold(by int, ip string) {
	a := netip.MustParseAddr(ip)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paused[a] = max(n.paused[a]+by, 0)
	n.count.paused.Add(int64(max(by, 0)))
	n.notify()
}

// Crash ends all sockets of the host, as the end of its process does.
func (n *Network) Crash(ip string) {
	a := netip.MustParseAddr(ip)
	n.mu.Lock()
	var end []interface{ Close() error }
	for at, l := range n.listeners {
		if at.Addr() == a {
			end = append(end, l)
		}
	}
	for at, s := range n.sockets {
		if at.Addr() == a {
			end = append(end, s)
		}
	}
	var conns []*conn
	for c := range n.conns {
		if c.way.from == a || c.way.to == a {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	n.count.crashed.Add(1)
	for _, s := range end {
		_ = s.Close()
	}
	for _, c := range conns {
		c.Reset()
	}
}

// Faults returns the faults injected so far.
func (n *Network) Faults() Counts {
	c := &n.count
	return Counts{
		Dropped: c.dropped.Load(), Duplicated: c.duplicated.Load(), Delayed: c.delayed.Load(), Stalled: c.stalled.Load(),
		Broken: c.broken.Load(), HalfClosed: c.halfClosed.Load(), Clogged: c.clogged.Load(), Paused: c.paused.Load(), Crashed: c.crashed.Load(),
	}
}

// Digest returns a number that stands for every packet and write so far: its link, time and size, and the order of all of
// them. Two runs with the same number were very likely identical.
func (n *Network) Digest() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.digest
}

// notify wakes all goroutines that wait for a link to open. The caller holds mu.
func (n *Network) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// open reports whether the link is open, and returns a channel that is closed on a change.
func (n *Network) open(way link) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut(way) && n.runs(way.from) && n.runs(way.to), n.changed
}

// cut reports whether the link is cut. The caller holds mu.
func (n *Network) cut(way link) bool { return n.cuts[way] > 0 || n.side[way.from] != n.side[way.to] }

// running reports whether the host is not paused, and returns a channel that is closed on a change.
func (n *Network) running(ip netip.Addr) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runs(ip), n.changed
}

// runs reports whether the process of a host can reach its sockets. The caller holds mu.
func (n *Network) runs(ip netip.Addr) bool { return n.paused[ip] == 0 && !n.starved[ip] }

// dice is the rng of one packet or write.
type dice struct{ state uint64 }

// roll returns the dice for the next packet or write of the given size on the link, and the faults in force.
func (n *Network) roll(way link, size int) (dice, PacketFaults, ConnFaults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent[way]++
	state := xxhash.Sum64String(fmt.Sprint(n.seed, way.from, way.to, n.sent[way]))
	var b [32]byte
	for i, x := range [...]uint64{n.digest, state, uint64(size), uint64(time.Now().UnixNano())} {
		binary.LittleEndian.PutUint64(b[8*i:], x)
	}
	n.digest = xxhash.Sum64(b[:])
	return dice{state}, n.packets, n.streams
}

// float returns the next number in [0, 1), by splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, 2014).
func (d *dice) float() float64 {
	d.state += 0x9e3779b97f4a7c15
	z := d.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return float64((z^z>>31)>>11) / (1 << 53)
}

func (d *dice) chance(share float64) bool { return d.float() < share }

func (d *dice) upTo(most time.Duration) time.Duration {
	return time.Duration(math.Round(d.float() * float64(most)))
}
