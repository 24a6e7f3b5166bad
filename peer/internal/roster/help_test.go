package roster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// The times and limits that the tests expect.
const (
	settleTime   = 2 * time.Second  // so long a higher share must have been due
	refuteWithin = time.Second      // a living member contradicts within this
	doubtMost    = 10 * time.Second // so long a member stays in the view that gossip says is dead
	endedGrace   = 10 * time.Second // so much longer than its longest load an ended member counts
	listedFor    = 2 * time.Minute  // so long a member counts of which only the name is known and that no member lists
	tellEndedFor = 5 * time.Minute  // so long others are told of an ended start
	expectTime   = 10 * time.Second // so long an announced member counts
	maxEnded     = 512              // ended starts that are remembered
	maxTold      = 64               // ended starts that others are told of
	maxFlaps     = 256              // members whose penalties are remembered
	maxDeparted  = 512              // starts that are remembered because they have left
)

// host is a node without calls.
type host struct {
	mu        sync.Mutex // guards the rest
	longest   time.Duration
	ended     func(start ring.Member) bool // nil: nothing is known of any end
	reachable map[string]uint64
}

func (h *host) Allow(map[string]uint64) {}
func (h *host) Confine(members map[string]uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reachable = members
}
func (h *host) LongestLoad() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.longest
}
func (h *host) HasEnded(_ context.Context, start ring.Member) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended != nil && h.ended(start)
}

// loads sets how long a load of the node may take.
func (h *host) loads(longest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.longest = longest
}

// proves sets what the node can prove of a lost start.
func (h *host) proves(ended func(start ring.Member) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = ended
}

// noPackets is a socket that receives nothing.
type noPackets struct {
	net.PacketConn // nil: nothing else is called
	closed         chan struct{}
}

func (p *noPackets) ReadFrom([]byte) (int, net.Addr, error) {
	<-p.closed
	return 0, nil, net.ErrClosed
}
func (p *noPackets) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }
func (p *noPackets) Close() error                              { close(p.closed); return nil }

// node is a roster whose test reports what memberlist would. Its own gossip reaches no member.
type node struct {
	*roster.Roster
	roster.Reports
	host *host
	log  *testlog.Log

	mu      sync.Mutex // guards streams
	streams [][]byte   // what was sent on each stream to another member
}

// start starts a roster in a bubble. The changes are made to its configuration first.
func start(t *testing.T, changes ...func(*roster.Config)) *node {
	t.Helper()
	n := prepare(t, changes...)
	n.begin(t)
	return n
}

// prepare creates a roster that does not look at what is reported until begin.
func prepare(t *testing.T, changes ...func(*roster.Config)) *node {
	t.Helper()
	n := &node{host: new(host), log: new(testlog.Log)}
	cfg := roster.Config{
		Self: sample(), Addr: netip.MustParseAddrPort("10.0.0.1:7946"), MinMembers: 1,
		Gossip: roster.Gossip{
			Label: "c", ProbeInterval: time.Second, ProbeTimeout: time.Second / 2, SuspicionMult: 4,
			Packets: &noPackets{closed: make(chan struct{})}, Dial: n.record,
		},
		Logger: n.log.Logger(), Rand: rand.New(rand.NewPCG(1, 0)),
	}
	for _, change := range changes {
		change(&cfg)
	}
	var err error
	if n.Roster, err = roster.New(cfg, n.host); err != nil {
		t.Fatal(err)
	}
	n.Reports = n.Roster.Reports()
	return n
}

func (n *node) begin(t *testing.T) {
	t.Helper()
	if err := n.Start(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Shutdown()
		n.Wait()
		pause(5 * time.Second) // memberlist's goroutines end
	})
}

// named makes the node another member than sample, at another address.
func named(name string, host byte) func(*roster.Config) {
	return func(c *roster.Config) {
		c.Self.Name, c.Addr = name, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 7946)
	}
}

// flaps lets members rest, with a half-life of a minute.
func flaps(c *roster.Config) { c.HoldDown = time.Minute }

// record takes a stream to another member and keeps what is sent on it.
func (n *node) record(context.Context, string) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		b, err := io.ReadAll(far)
		if err == nil || errors.Is(err, io.ErrClosedPipe) {
			n.mu.Lock()
			n.streams = append(n.streams, b)
			n.mu.Unlock()
		}
	}()
	return near, nil
}

// sent returns the last message to other members that contains the text, from there on, or nil. It forgets what was sent.
func (n *node) sent(text string) (msg []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range n.streams {
		if i := bytes.Index(b, []byte(text)); i >= 0 {
			msg = b[i:]
		}
	}
	n.streams = nil
	return msg
}

// divisor returns by how many the node divides, once that has settled.
func (n *node) divisor() int {
	n.Refresh()
	pause(settleTime)
	n.Refresh()
	return n.Share().Members
}

// view returns the members of the view as text.
func (n *node) view() string {
	n.Refresh()
	var out []string
	for _, m := range n.View().Members() {
		out = append(out, fmt.Sprintf("%s@%s", m.Name, strings.TrimSuffix(m.Addr, ":7946")))
	}
	return strings.Join(out, " ")
}

// resting returns the names of the members that rest.
func (n *node) resting() (out string) {
	n.Refresh()
	for _, m := range n.View().Members() {
		if m.Resting {
			out += m.Name
		}
	}
	return out
}

// lost lists the lost members.
func (n *node) lost() (out []roster.Info) {
	n.Refresh()
	for _, m := range n.Members() {
		if m.State == roster.Lost {
			out = append(out, m)
		}
	}
	return out
}

// unproven returns the names of the lost members that may be alive.
func (n *node) unproven() (out string) {
	for _, m := range n.lost() {
		if m.Reason == "" && m.Addr != "" {
			out += m.Name
		}
	}
	return out
}

// reachable returns the incarnation of a member that may be called, or 0.
func (n *node) reachable(name string) uint64 {
	n.Refresh()
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	return n.host.reachable[name]
}

// lines returns how many lines of the log contain a text.
func (n *node) lines(text string) int {
	n.Refresh()
	return strings.Count(n.log.String(), text)
}

func sample() roster.Identity {
	return roster.Identity{Name: "catalog-1", Cluster: "weir", Incarnation: 0x1234, Protocol: 1, RingVersion: 1, Placement: 99}
}

// gossiped returns a member as memberlist reports it.
func gossiped(name string, incarnation uint64, host byte, change func(*roster.Identity)) *memberlist.Node {
	id := sample()
	id.Name, id.Incarnation = name, incarnation
	if change != nil {
		change(&id)
	}
	return &memberlist.Node{Name: id.GossipName(), Addr: net.IPv4(10, 0, 0, host), Port: 7946, Meta: id.Append(nil)}
}

// leaving returns the member as memberlist reports it after it has said that it leaves.
func leaving(n *memberlist.Node) *memberlist.Node {
	said := *n
	said.Meta = bytes.Clone(n.Meta)
	said.Meta[1] |= 1
	return &said
}

// at returns the start that a member is.
func at(n *memberlist.Node) ring.Member {
	id, err := roster.DecodeIdentity(n.Meta)
	if err != nil {
		panic(err)
	}
	return ring.Member{Name: id.Name, Addr: n.Address(), Incarnation: id.Incarnation}
}

func pause(d time.Duration) { wiretest.Pause(context.Background(), d) }
