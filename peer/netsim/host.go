package netsim

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A Host is the network as one address sees it. It satisfies peer.Network. Its connections also have the methods
// CloseWrite, like TCP connections, and Reset.
type Host struct {
	net *Network
	ip  netip.Addr
}

// LookupHost returns the addresses that SetName has set.
func (h *Host) LookupHost(_ context.Context, host string) ([]string, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if ips := h.net.names[host]; len(ips) > 0 {
		return slices.Clone(ips), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// LookupSRV returns the records that SetService has set.
func (h *Host) LookupSRV(_ context.Context, name string) ([]string, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if targets := h.net.services[name]; len(targets) > 0 {
		return slices.Clone(targets), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// claim returns the address for a new socket. The caller holds the network's mu.
func (h *Host) claim(addr string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return a, err
	}
	if a.Addr() != h.ip {
		return a, fmt.Errorf("listen %s: %w", a, syscall.EADDRNOTAVAIL)
	}
	if a.Port() == 0 {
		h.net.port++
		a = netip.AddrPortFrom(a.Addr(), h.net.port)
	}
	return a, nil
}

// Listen opens a listener on the host's address.
func (h *Host) Listen(_ context.Context, addr string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	a, err := h.claim(addr)
	if err != nil {
		return nil, err
	}
	if h.net.listeners[a] != nil {
		return nil, fmt.Errorf("listen %s: %w", a, syscall.EADDRINUSE)
	}
	l := &listener{net: h.net, addr: a, conns: make(chan net.Conn), done: make(chan struct{})}
	h.net.listeners[a] = l
	return l, nil
}

// Dial connects to a listener. It waits while the link is blocked in either direction.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	fail := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	there, back := link{h.ip, to.Addr()}, link{to.Addr(), h.ip}
	for _, way := range []link{there, back} {
		for open, changed := h.net.open(way); !open; open, changed = h.net.open(way) {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, fail(ctx.Err())
			}
		}
	}
	h.net.mu.Lock()
	l := h.net.listeners[to]
	h.net.port++
	from := netip.AddrPortFrom(h.ip, h.net.port)
	h.net.mu.Unlock()
	if l == nil {
		return nil, fail(syscall.ECONNREFUSED)
	}
	a, b := newPair(h.net, from, to)
	select {
	case l.conns <- b:
		return a, nil
	case <-l.done:
		err = syscall.ECONNREFUSED
	case <-ctx.Done():
		err = ctx.Err()
	}
	a.Reset()
	return nil, fail(err)
}

type listener struct {
	net   *Network
	addr  netip.AddrPort
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
		close(l.done)
	})
	return nil
}

// socketBuffer is how many packets a socket queues for its reader. Further packets are lost.
const socketBuffer = 1024

type packet struct {
	b    []byte
	from netip.AddrPort
}

// socket is a packet socket.
type socket struct {
	net  *Network
	addr netip.AddrPort
	in   chan packet
	done chan struct{}
	once sync.Once
}

// ListenPacket opens a packet socket on the host's address. The socket has no deadlines.
func (h *Host) ListenPacket(_ context.Context, addr string) (net.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	a, err := h.claim(addr)
	if err != nil {
		return nil, err
	}
	if h.net.sockets[a] != nil {
		return nil, fmt.Errorf("listen %s: %w", a, syscall.EADDRINUSE)
	}
	s := &socket{net: h.net, addr: a, in: make(chan packet, socketBuffer), done: make(chan struct{})}
	h.net.sockets[a] = s
	return s, nil
}

// awaitRunning waits until the host is not paused. It returns false if the socket was closed meanwhile.
func (s *socket) awaitRunning() bool {
	for ok, changed := s.net.running(s.addr.Addr()); !ok; ok, changed = s.net.running(s.addr.Addr()) {
		select {
		case <-changed:
		case <-s.done:
			return false
		}
	}
	return true
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	dst, err := netip.ParseAddrPort(to.String())
	if err != nil {
		return 0, err
	}
	d, faults, _ := s.net.roll(link{s.addr.Addr(), dst.Addr()}, len(b))
	copies := 1
	switch {
	case d.chance(faults.Drop):
		s.net.count.dropped.Add(1)
		return len(b), nil
	case d.chance(faults.Duplicate):
		s.net.count.duplicated.Add(1)
		copies = 2
	}
	p := packet{slices.Clone(b), s.addr}
	for range copies {
		if delay := d.upTo(faults.Delay); delay > 0 {
			s.net.count.delayed.Add(1)
			time.AfterFunc(delay, func() { s.deliver(p, dst) })
		} else {
			s.deliver(p, dst)
		}
	}
	return len(b), nil
}

// deliver sends a packet. It never blocks, because a sender may hold locks. What a paused host has sent leaves once the
// host resumes.
func (s *socket) deliver(p packet, to netip.AddrPort) {
	if running, _ := s.net.running(s.addr.Addr()); running {
		s.net.deliver(p, to)
		return
	}
	go func() {
		if s.awaitRunning() {
			s.net.deliver(p, to)
		}
	}()
}

// deliver hands a packet over, unless a cut blocks the link or no socket receives it.
func (n *Network) deliver(p packet, to netip.AddrPort) {
	n.mu.Lock()
	s, cut := n.sockets[to], n.cut(link{p.from.Addr(), to.Addr()})
	n.mu.Unlock()
	if s == nil || cut {
		return
	}
	select {
	case s.in <- p:
	default:
	}
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-s.in:
		if !s.awaitRunning() {
			return 0, nil, net.ErrClosed
		}
		return copy(b, p.b), net.UDPAddrFromAddrPort(p.from), nil
	case <-s.done:
		return 0, nil, net.ErrClosed
	}
}

func (s *socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.addr) }

func (s *socket) Close() error {
	s.once.Do(func() {
		s.net.mu.Lock()
		delete(s.net.sockets, s.addr)
		s.net.mu.Unlock()
		close(s.done)
	})
	return nil
}

// A packet socket here has no deadlines.
func (s *socket) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (s *socket) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (s *socket) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
