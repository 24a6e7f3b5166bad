package roster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxStreams is how many gossip streams opened by others may be open at once. Few are needed: each member starts one
	// exchange of states every pushPullInterval. memberlist trusts a length of up to 20 MiB in a stream before the bytes
	// have arrived, so this bounds what a member can make it allocate. Strangers do not get this far.
	maxStreams = 64
	// packetSize is the largest packet that UDP can bring.
	packetSize = 64 << 10
	// packetBuffer is how much the socket is asked to buffer, in bytes, while the node is busy.
	packetBuffer = 2 << 20
)

// transport carries memberlist's packets and streams over a Network and the one port.
type transport struct {
	dial    func(ctx context.Context, addr string) (net.Conn, error) // opens a stream that the other side will accept
	pc      net.PacketConn
	self    netip.AddrPort // the address that others dial
	logger  *slog.Logger
	ctx     context.Context // ends at Shutdown
	cancel  context.CancelFunc
	packets chan *memberlist.Packet
	streams chan net.Conn

	mu       sync.Mutex // guards the rest
	open     map[*stream]struct{}
	incoming int // how many of them were opened by others
	shutDown bool

	wg sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(dial func(ctx context.Context, addr string) (net.Conn, error), pc net.PacketConn, self netip.AddrPort, logger *slog.Logger) *transport {
	ctx, cancel := context.WithCancel(context.Background())
	t := &transport{
		dial: dial, pc: pc, self: self, logger: logger, ctx: ctx, cancel: cancel,
		packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn),
		open:    make(map[*stream]struct{}),
	}
	if c, ok := pc.(interface{ SetReadBuffer(int) error }); ok {
		for size := packetBuffer; size > packetSize; size /= 2 {
			if c.SetReadBuffer(size) == nil {
				break
			}
		}
	}
	return t
}

// start begins to receive packets.
func (t *transport) start() { t.wg.Go(t.receive) }

// receive passes packets to memberlist until Shutdown.
func (t *transport) receive() {
	buf := make([]byte, packetSize)
	for {
		n, from, err := t.pc.ReadFrom(buf)
		if err != nil {
			if t.ctx.Err() != nil {
				return
			}
			// Some systems report the failed delivery of an earlier packet here.
			t.logger.Debug("cannot receive a gossip packet", "error", err)
			if !sleep(t.ctx, 5*time.Millisecond) {
				return
			}
			continue
		}
		if n == 0 {
			continue
		}
		// memberlist keeps the packet's bytes.
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packets <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

// FinalAdvertiseAddr returns the address that others dial.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.self.Addr().AsSlice(), int(t.self.Port()), nil
}

// WriteTo sends a packet.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.pc.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

// WriteToAddress sends a packet.
func (t *transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, addr.Addr)
}

// PacketCh returns the channel of received packets.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh returns the channel of streams that others opened.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout opens a stream.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	s := &stream{Conn: conn, t: t}
	if err := t.track(s); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// DialAddressTimeout opens a stream.
func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(addr.Addr, timeout)
}

// take passes a stream that another node opened to memberlist. On error the stream stays with the caller.
func (t *transport) take(conn net.Conn) error {
	s := &stream{Conn: conn, t: t, incoming: true}
	if err := t.track(s); err != nil {
		return err
	}
	select {
	case t.streams <- s:
	case <-t.ctx.Done():
		_ = s.Close()
	}
	return nil
}

// track registers an open stream so that Shutdown can end it. It fails if others have opened too many streams, or if the
// transport is shut down.
func (t *transport) track(s *stream) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.shutDown:
		return net.ErrClosed
	case s.incoming && t.incoming >= maxStreams:
		return fmt.Errorf("%d gossip streams of other nodes are open already", maxStreams)
	case s.incoming:
		t.incoming++
	}
	t.open[s] = struct{}{}
	return nil
}

// Shutdown closes the socket and all streams and joins the transport's goroutine.
func (t *transport) Shutdown() error {
	t.cancel()
	t.mu.Lock()
	t.shutDown = true
	streams := make([]*stream, 0, len(t.open))
	for s := range t.open {
		streams = append(streams, s)
	}
	t.mu.Unlock()
	err := t.pc.Close()
	for _, s := range streams {
		_ = s.Close()
	}
	t.wg.Wait()
	return err
}

// stream is a gossip stream that the transport tracks while it is open.
type stream struct {
	net.Conn
	t        *transport
	incoming bool // opened by another node
}

func (s *stream) Close() error {
	s.t.mu.Lock()
	if _, open := s.t.open[s]; open && s.incoming {
		s.t.incoming--
	}
	delete(s.t.open, s)
	s.t.mu.Unlock()
	return s.Conn.Close()
}
