package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weircache/weir/ring"
)

// logBook is a log that a test can look into.
type logBook struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// quick is a configuration with short times for tests on real sockets.
func quick(name string, join ...string) Config {
	return Config{
		Name: name, Join: join, Seed: 1,
		Gossip:         Gossip{ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 80 * time.Millisecond, SuspicionMult: 2},
		RejoinInterval: 300 * time.Millisecond,
		Logger:         slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// await waits for a view of n that ok accepts.
func await(t *testing.T, n *Node, what string, ok func(*ring.View) bool) {
	t.Helper()
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	for {
		changed := n.ViewChanged()
		if ok(n.View()) {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			t.Fatalf("%s: %s: the view has %v; members: %+v", n.Name(), what, n.View().Members(), n.Members())
		}
	}
}

// awaitNames waits until the views of the nodes have exactly these members.
func awaitNames(t *testing.T, names string, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		await(t, n, "waiting for "+names, func(v *ring.View) bool { return viewNames(v) == names })
	}
}

func viewNames(v *ring.View) string {
	var s []string
	for _, m := range v.Members() {
		s = append(s, m.Name)
	}
	return strings.Join(s, " ")
}

// memNet is a network in memory. Its hosts are addresses; a split separates them.
type memNet struct {
	mu        sync.Mutex // guards everything below
	listeners map[netip.AddrPort]*memListener
	packets   map[netip.AddrPort]*memPackets
	names     map[string][]string
	side      map[netip.Addr]int // hosts on different sides do not reach each other
	pipes     map[*memPipe]bool
	next      uint16
}

func newMemNet() *memNet {
	return &memNet{
		listeners: make(map[netip.AddrPort]*memListener), packets: make(map[netip.AddrPort]*memPackets),
		names: make(map[string][]string), side: make(map[netip.Addr]int), pipes: make(map[*memPipe]bool), next: 20000,
	}
}

// split puts the hosts on another side than the rest and cuts their connections; no
// hosts: heals.
func (m *memNet) split(hosts ...string) {
	m.mu.Lock()
	clear(m.side)
	for _, h := range hosts {
		m.side[netip.MustParseAddr(h)] = 1
	}
	var cut []*memPipe
	for p := range m.pipes {
		if m.side[p.from] != m.side[p.to] {
			cut = append(cut, p)
			delete(m.pipes, p)
		}
	}
	m.mu.Unlock()
	for _, p := range cut {
		_ = p.a.Close()
		_ = p.b.Close()
	}
}

// host is the network as one host sees it.
func (m *memNet) host(ip string) Network { return &memHost{m, netip.MustParseAddr(ip)} }

type memHost struct {
	net *memNet
	ip  netip.Addr
}

type memPipe struct {
	from, to netip.Addr
	a, b     *pipeEnd
}

func (h *memHost) LookupHost(_ context.Context, host string) ([]string, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if ips := h.net.names[host]; len(ips) > 0 {
		return slices.Clone(ips), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (h *memHost) Listen(_ context.Context, addr string) (net.Listener, error) {
	a := netip.MustParseAddrPort(addr)
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if a.Port() == 0 {
		h.net.next++
		a = netip.AddrPortFrom(a.Addr(), h.net.next)
	}
	if h.net.listeners[a] != nil {
		return nil, fmt.Errorf("listen %s: %w", a, syscall.EADDRINUSE)
	}
	l := &memListener{net: h.net, addr: a, conns: make(chan net.Conn), done: make(chan struct{})}
	h.net.listeners[a] = l
	return l, nil
}

func (h *memHost) Dial(ctx context.Context, addr string) (net.Conn, error) {
	to := netip.MustParseAddrPort(addr)
	h.net.mu.Lock()
	l := h.net.listeners[to]
	cut := h.net.side[h.ip] != h.net.side[to.Addr()]
	h.net.mu.Unlock()
	if cut {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	a, b := bufferedPipe()
	p := &memPipe{h.ip, to.Addr(), a, b}
	select {
	case l.conns <- &memConn{b, h.net, p, netip.AddrPortFrom(h.ip, 9)}:
		h.net.mu.Lock()
		h.net.pipes[p] = true
		h.net.mu.Unlock()
		return &memConn{a, h.net, p, to}, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type memConn struct {
	*pipeEnd
	net    *memNet
	pipe   *memPipe
	remote netip.AddrPort
}

func (c *memConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }
func (c *memConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.pipes, c.pipe)
	c.net.mu.Unlock()
	return c.pipeEnd.Close()
}

type memListener struct {
	net   *memNet
	addr  netip.AddrPort
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *memListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }
func (l *memListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
		close(l.done)
	})
	return nil
}

type memPacket struct {
	b    []byte
	from net.Addr
}

type memPackets struct {
	net.PacketConn // no deadlines
	net            *memNet
	addr           netip.AddrPort
	in             chan memPacket
	done           chan struct{}
	once           sync.Once
}

func (h *memHost) ListenPacket(_ context.Context, addr string) (net.PacketConn, error) {
	a := netip.MustParseAddrPort(addr)
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.net.packets[a] != nil {
		return nil, fmt.Errorf("listen %s: %w", a, syscall.EADDRINUSE)
	}
	p := &memPackets{net: h.net, addr: a, in: make(chan memPacket, 1024), done: make(chan struct{})}
	h.net.packets[a] = p
	return p, nil
}

func (p *memPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	a := netip.MustParseAddrPort(to.String())
	p.net.mu.Lock()
	q := p.net.packets[a]
	cut := p.net.side[a.Addr()] != p.net.side[p.addr.Addr()]
	p.net.mu.Unlock()
	if q != nil && !cut {
		select {
		case q.in <- memPacket{slices.Clone(b), net.UDPAddrFromAddrPort(p.addr)}:
		default:
		}
	}
	return len(b), nil
}

func (p *memPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case m := <-p.in:
		return copy(b, m.b), m.from, nil
	case <-p.done:
		return 0, nil, net.ErrClosed
	}
}

func (p *memPackets) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(p.addr) }
func (p *memPackets) Close() error {
	p.once.Do(func() {
		p.net.mu.Lock()
		delete(p.net.packets, p.addr)
		p.net.mu.Unlock()
		close(p.done)
	})
	return nil
}

// mustEnd reads from conn until its end and returns what came.
func mustEnd(t *testing.T, conn net.Conn) string {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("the connection did not end: %v", err)
	}
	return string(b)
}
