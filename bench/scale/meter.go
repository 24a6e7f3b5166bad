package main

import (
	"context"
	"net"
	"sync/atomic"

	"github.com/weircache/weir/peer"
)

// A meter counts what one node sends and receives. It does not count headers below UDP and TCP.
type meter struct {
	udpOut, udpIn, tcpOut, tcpIn atomic.Int64
}

// reading is the state of a meter at one moment.
type reading struct{ udpOut, udpIn, tcpOut, tcpIn int64 }

func (m *meter) read() reading {
	return reading{m.udpOut.Load(), m.udpIn.Load(), m.tcpOut.Load(), m.tcpIn.Load()}
}

func (r reading) minus(o reading) reading {
	return reading{r.udpOut - o.udpOut, r.udpIn - o.udpIn, r.tcpOut - o.tcpOut, r.tcpIn - o.tcpIn}
}

func (r reading) plus(o reading) reading {
	return reading{r.udpOut + o.udpOut, r.udpIn + o.udpIn, r.tcpOut + o.tcpOut, r.tcpIn + o.tcpIn}
}

func (r reading) out() int64 { return r.udpOut + r.tcpOut }
func (r reading) in() int64  { return r.udpIn + r.tcpIn }

// metered is a network whose bytes a meter counts. Safe for concurrent use.
type metered struct {
	peer.Network
	m *meter
}

func (n metered) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	pc, err := n.Network.ListenPacket(ctx, addr)
	if err != nil {
		return nil, err
	}
	return packets{pc, n.m}, nil
}

func (n metered) Listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := n.Network.Listen(ctx, addr)
	if err != nil {
		return nil, err
	}
	return listener{l, n.m}, nil
}

func (n metered) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return stream{c, n.m}, nil
}

type packets struct {
	net.PacketConn
	m *meter
}

func (p packets) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := p.PacketConn.ReadFrom(b)
	p.m.udpIn.Add(int64(n))
	return n, from, err
}

func (p packets) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := p.PacketConn.WriteTo(b, to)
	p.m.udpOut.Add(int64(n))
	return n, err
}

type listener struct {
	net.Listener
	m *meter
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return stream{c, l.m}, nil
}

type stream struct {
	net.Conn
	m *meter
}

func (s stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.m.tcpIn.Add(int64(n))
	return n, err
}

func (s stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.m.tcpOut.Add(int64(n))
	return n, err
}
