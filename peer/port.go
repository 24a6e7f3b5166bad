package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/peer/internal/loglimit"
	"github.com/weircache/weir/peer/internal/trust"
	"github.com/weircache/weir/peer/internal/wire"
)

const (
	// gossipMagic is memberlist's message type of a label header. A gossip stream without a Secret starts with it, and the
	// label's length and the label follow. With a Secret, trust.GossipMagic and a handshake come first.
	gossipMagic = 244
	// gossipSealed is memberlist's message type of an encrypted message. At a node with a Secret it follows the label of a
	// stream.
	gossipSealed = 10

	// handshakeTimeout is how long a connection may take to identify itself and to complete its handshake. It leaves time
	// for two losses and retransmissions of a packet.
	handshakeTimeout = 3 * time.Second
	// maxUndecided is how many connections of strangers may be undecided at once, that is, not yet identified or still in
	// their handshake. Together with the timeouts it bounds what strangers can hold. Members' connections do not count.
	maxUndecided = 256
	// maxUndecidedOf is how many connections from one host may be undecided.
	maxUndecidedOf = 64
)

// portConfig is the configuration of a port. The functions are called concurrently.
type portConfig struct {
	label  string                              // of this cluster's gossip streams
	secure func(net.Conn) (net.Conn, error)    // runs the handshake of a gossip stream, trust.GossipMagic consumed; nil: gossip is plain
	member func(netip.Addr) bool               // reports whether a member has the address; nil: none has
	data   func(conn net.Conn, decided func()) // takes a data connection, wire.Magic consumed; returns at once, and calls decided after the handshake
	gossip func(conn net.Conn) error           // takes a gossip stream, starting with its label; returns at once or when the node closes
	logger *slog.Logger
}

// port accepts the connections of the one TCP listener. By its first bytes it passes each one to the data plane or to
// gossip.
//
// Until its handshake is complete, a stranger can hold only a place among the undecided. Members have places of their own,
// so strangers do not keep them out. If all places for strangers are taken, the host that holds most of them gives up its
// oldest one, so a few hosts do not keep out a node that wants to join. A host is an IPv4 address, or the /64 of an IPv6
// address, because one customer has all addresses of a /64.
type port struct {
	portConfig
	ln     net.Listener
	noise  loglimit.Limiter
	ctx    context.Context // ends when the port closes
	cancel context.CancelFunc

	refused atomic.Int64 // connections closed here

	mu        sync.Mutex // guards the rest
	undecided map[net.Conn]undecided
	hosts     map[netip.Prefix]int // how many are undecided, by host
	strangers int                  // how many of them do not belong to a member
	admitted  uint64               // number of connections admitted so far
	closed    bool

	wg sync.WaitGroup
}

// undecided describes one undecided connection.
type undecided struct {
	host   netip.Prefix
	member bool
	number uint64 // older ones have lower numbers
}

func newPort(ln net.Listener, cfg portConfig) *port {
	ctx, cancel := context.WithCancel(context.Background())
	p := &port{portConfig: cfg, ln: ln, ctx: ctx, cancel: cancel, undecided: make(map[net.Conn]undecided), hosts: make(map[netip.Prefix]int)}
	p.wg.Go(p.accept)
	return p
}

// close stops accepting, closes the undecided connections and joins all goroutines of the port. A second call waits as
// well.
func (p *port) close() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	conns := p.undecided
	p.undecided, p.hosts = nil, nil
	p.mu.Unlock()
	_ = p.ln.Close() // nothing to lose
	for conn := range conns {
		_ = conn.Close()
	}
	p.wg.Wait()
}

func (p *port) accept() {
	const least, most = 5 * time.Millisecond, time.Second
	delay := least
	for {
		conn, err := p.ln.Accept()
		if err != nil {
			if p.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			p.logger.Warn("cannot accept connections", "error", err, "retry in", delay)
			if !pause(p.ctx, delay) {
				return
			}
			delay = min(2*delay, most)
			continue
		}
		delay = least
		victim, why := p.admit(conn)
		if victim != nil {
			p.refuse(victim, "it has not shaken hands, its host has most of such connections, and there are too many")
		}
		if why != "" {
			p.refuse(conn, why)
			continue
		}
		p.wg.Go(func() { p.decide(conn) })
	}
}

// hostPrefix returns the host that a connection is from, as the bounds count hosts, and its address.
func hostPrefix(addr net.Addr) (netip.Prefix, netip.Addr) {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{}, netip.Addr{} // a network with other kinds of addresses: all count as one host
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	host, _ := a.Prefix(bits) // the bits are in range
	return host, a
}

// admit counts conn among the undecided, or returns why it does not. The victim must make room for conn.
func (p *port) admit(conn net.Conn) (victim net.Conn, why string) {
	host, addr := hostPrefix(conn.RemoteAddr())
	member := p.member != nil && p.member(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, "the node is closing"
	case p.hosts[host] >= maxUndecidedOf:
		return nil, "too many connections from this host that have not said what they are"
	case !member && p.strangers >= maxUndecided:
		if victim = p.oldestOfMost(); victim == nil || p.hosts[p.undecided[victim].host] <= p.hosts[host] {
			return nil, "too many connections that have not said what they are"
		}
		p.drop(victim)
	}
	p.admitted++
	p.undecided[conn] = undecided{host, member, p.admitted}
	p.hosts[host]++
	if !member {
		p.strangers++
	}
	return victim, ""
}

// oldestOfMost returns the oldest undecided connection of the host that has the most undecided connections of strangers.
// The caller holds mu.
func (p *port) oldestOfMost() (oldest net.Conn) {
	var of undecided
	for conn, u := range p.undecided {
		if u.member {
			continue
		}
		switch more := p.hosts[u.host] - p.hosts[of.host]; {
		case oldest == nil, more > 0, more == 0 && u.number < of.number:
			oldest, of = conn, u
		}
	}
	return oldest
}

// drop removes conn from the undecided. It returns false if conn is not among them. The caller holds mu.
func (p *port) drop(conn net.Conn) bool {
	u, ok := p.undecided[conn]
	if !ok {
		return false
	}
	delete(p.undecided, conn)
	if p.hosts[u.host]--; p.hosts[u.host] == 0 {
		delete(p.hosts, u.host)
	}
	if !u.member {
		p.strangers--
	}
	return true
}

// release removes conn from the undecided. It returns false if conn had to make room for another, or the port has closed.
func (p *port) release(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drop(conn) && !p.closed
}

// decide reads conn's first bytes, runs the handshake of a gossip stream, and passes conn on.
func (p *port) decide(conn net.Conn) {
	stream := conn
	magic, front, err := p.identify(conn)
	switch {
	case err != nil:
	case magic == wire.Magic:
		if err = conn.SetReadDeadline(time.Time{}); err == nil {
			p.data(conn, func() { p.release(conn) })
			return
		}
	case magic == trust.GossipMagic:
		stream, front, err = p.unseal(conn)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	open := p.release(conn)
	if err == nil && open {
		err = p.gossip(&replay{Conn: stream, front: front})
	}
	switch {
	case !open:
		_ = conn.Close()
	case err != nil:
		p.refuse(conn, err.Error())
	}
}

// unseal runs the handshake of a gossip stream and reads its label, which must be read again.
func (p *port) unseal(conn net.Conn) (stream net.Conn, front []byte, err error) {
	if p.secure == nil {
		return nil, nil, errors.New("its gossip is encrypted: it has a Secret, and this node has none")
	}
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, nil, err
	}
	if stream, err = p.secure(conn); err != nil {
		return nil, nil, err
	}
	var first [1]byte
	if _, err := io.ReadFull(stream, first[:]); err != nil {
		return nil, nil, fmt.Errorf("it said nothing after the handshake: %w", err)
	}
	if first[0] != gossipMagic {
		return nil, nil, errors.New("its gossip has no label")
	}
	front, next, err := p.readLabel(stream)
	if err == nil && next != gossipSealed {
		err = errors.New("its gossip is not encrypted, and this node's is")
	}
	return stream, front, err
}

// readLabel reads the rest of the label of a gossip stream, whose first byte has been read, and one byte more.
func (p *port) readLabel(conn net.Conn) (front []byte, next byte, err error) {
	buf := make([]byte, 2+255+1)
	buf[0] = gossipMagic
	if _, err := io.ReadFull(conn, buf[1:2]); err != nil {
		return nil, 0, fmt.Errorf("its label was cut short: %w", err)
	}
	end := 2 + int(buf[1])
	if _, err := io.ReadFull(conn, buf[2:end]); err != nil {
		return nil, 0, fmt.Errorf("its label was cut short: %w", err)
	}
	if label := buf[2:end]; string(label) != p.label {
		return nil, 0, fmt.Errorf("it belongs to the cluster %q, this is %q; one of the two has the other among its seeds", label, p.label)
	}
	if _, err := io.ReadFull(conn, buf[end:end+1]); err != nil {
		return nil, 0, fmt.Errorf("it said nothing after its label: %w", err)
	}
	return buf[:end+1], buf[end], nil
}

// identify reads what conn starts with. magic is wire.Magic, trust.GossipMagic, or "" for a plain gossip stream, whose front must
// be read again. The read deadline stays set.
func (p *port) identify(conn net.Conn) (magic string, front []byte, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return "", nil, err
	}
	var first [len(wire.Magic)]byte
	if _, err := io.ReadFull(conn, first[:1]); err != nil {
		return "", nil, fmt.Errorf("it sent nothing: %w", err)
	}
	switch first[0] {
	case wire.Magic[0]:
		if _, err := io.ReadFull(conn, first[1:]); err != nil {
			return "", nil, fmt.Errorf("its first bytes were cut short: %w", err)
		}
		if magic = string(first[:]); magic != wire.Magic && magic != trust.GossipMagic {
			return "", nil, fmt.Errorf("it starts with %q, which is not a weir connection", magic)
		}
		return magic, nil, nil
	case gossipMagic:
		front, next, err := p.readLabel(conn)
		switch sealed := next == gossipSealed; {
		case err != nil:
			return "", nil, err
		case p.secure != nil && !sealed:
			return "", nil, errors.New("its gossip is not encrypted, and this node's is: it has no Secret")
		case p.secure != nil:
			return "", nil, errors.New("its gossip stream comes without a handshake: it runs an earlier version of weir, see Rolling upgrades in peer/OPERATING.md")
		case sealed:
			return "", nil, errors.New("its gossip is encrypted: it has a Secret, and this node has none")
		}
		return "", front, nil
	case 'G', 'P', 'H', 'D', 'O':
		return "", nil, fmt.Errorf("it starts with %q, as an HTTP request does; stats are where the service mounts the node's handler", first[:1])
	case trust.TLSRecord:
		return "", nil, fmt.Errorf("it starts a TLS handshake, which a member does after %q or %q; stats are where the service mounts the node's handler", wire.Magic, trust.GossipMagic)
	}
	return "", nil, fmt.Errorf("it starts with %q, which is not a weir connection", first[:1])
}

// refuse closes conn and logs the reason, but not too often for one host.
func (p *port) refuse(conn net.Conn, reason string) {
	p.refused.Add(1)
	remote := conn.RemoteAddr()
	_ = conn.Close()
	host, _ := hostPrefix(remote)
	if p.ctx.Err() == nil && p.noise.Allow(host.String(), time.Now()) {
		p.logger.Warn("connection refused", "remote", remote, "reason", reason)
	}
}

// replay is a connection whose first bytes have already been read and are read again.
type replay struct {
	net.Conn
	front []byte // used by the only reader
}

func (r *replay) Read(b []byte) (int, error) {
	if len(r.front) > 0 {
		n := copy(b, r.front)
		r.front = r.front[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}

// pause waits for d. It returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
