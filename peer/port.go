package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// dataMagic is what a data connection starts with.
	dataMagic = "WEIR"
	// gossipMagic is what a gossip stream with a label starts with: memberlist's
	// message type of a label header. The label's length and the label follow.
	gossipMagic = 244
	// gossipSealed is memberlist's message type of an encrypted message, which follows the
	// label of a stream at a node with a Secret.
	gossipSealed = 10
	// tlsRecord is what a TLS handshake starts with.
	tlsRecord = 0x16

	// handshakeTimeout is how long a connection may take to say what it is. It covers a
	// lost packet and its repetition twice over.
	handshakeTimeout = 3 * time.Second
	// maxUndecided is how many connections may be undecided at once: saying what they are, or
	// shaking hands. With the timeouts it bounds what strangers can hold.
	maxUndecided = 256
	// maxUndecidedOf is how many of them may be from one host, so that one cannot keep out
	// the others.
	maxUndecidedOf = 64
)

// port takes the connections of the one TCP listener and hands each, by its first
// bytes, to the data plane or to gossip.
type port struct {
	ln     net.Listener
	label  string                              // of this cluster's gossip streams
	sealed bool                                // gossip is encrypted
	data   func(conn net.Conn, decided func()) // takes a data connection, dataMagic consumed; returns at once, and calls decided after the handshake
	gossip func(conn net.Conn)                 // takes a gossip stream, nothing consumed; returns at once or when the node closes
	logger *slog.Logger
	noise  sparse
	ctx    context.Context // ends when the port closes
	cancel context.CancelFunc

	refused atomic.Int64 // connections that were closed here

	mu        sync.Mutex          // guards the rest
	undecided map[net.Conn]string // and their hosts; close closes them
	hosts     map[string]int      // how many are undecided, by host
	closed    bool

	wg sync.WaitGroup
}

func newPort(ln net.Listener, label string, sealed bool, logger *slog.Logger, data func(net.Conn, func()), gossip func(net.Conn)) *port {
	ctx, cancel := context.WithCancel(context.Background())
	p := &port{
		ln: ln, label: label, sealed: sealed, data: data, gossip: gossip, logger: logger, ctx: ctx, cancel: cancel,
		undecided: make(map[net.Conn]string), hosts: make(map[string]int),
	}
	p.wg.Go(p.accept)
	return p
}

// close stops accepting, closes the connections that have not decided and joins all
// goroutines of the port. A second call waits too.
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
		if why := p.admit(conn); why != "" {
			p.refuse(conn, why)
			continue
		}
		p.wg.Go(func() { p.decide(conn) })
	}
}

// admit counts conn among the undecided, or says why not.
func (p *port) admit(conn net.Conn) string {
	host := hostOf(conn.RemoteAddr().String())
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return "the node is closing"
	case len(p.undecided) >= maxUndecided:
		return "too many connections that have not said what they are"
	case p.hosts[host] >= maxUndecidedOf:
		return "too many connections from this host that have not said what they are"
	}
	p.undecided[conn] = host
	p.hosts[host]++
	return ""
}

// release takes conn from the undecided; false if the port has closed meanwhile.
func (p *port) release(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if host, ok := p.undecided[conn]; ok {
		delete(p.undecided, conn)
		if p.hosts[host]--; p.hosts[host] == 0 {
			delete(p.hosts, host)
		}
	}
	return !p.closed
}

// decide reads conn's first bytes and passes it on.
func (p *port) decide(conn net.Conn) {
	kind, read, err := p.identify(conn)
	if err == nil && kind == dataMagic[0] {
		p.data(conn, func() { p.release(conn) })
		return
	}
	open := p.release(conn)
	switch {
	case err == nil && open:
		p.gossip(&replay{Conn: conn, front: read})
	case !open:
		_ = conn.Close()
	default:
		p.refuse(conn, err.Error())
	}
}

// identify reads what conn starts with. The bytes read are to be replayed to gossip.
func (p *port) identify(conn net.Conn) (kind byte, read []byte, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return 0, nil, err
	}
	buf := make([]byte, 2+255+1)
	if _, err := io.ReadFull(conn, buf[:1]); err != nil {
		return 0, nil, fmt.Errorf("it said nothing: %w", err)
	}
	switch buf[0] {
	case dataMagic[0]:
		if _, err := io.ReadFull(conn, buf[1:len(dataMagic)]); err != nil {
			return 0, nil, fmt.Errorf("its first bytes were cut short: %w", err)
		}
		if string(buf[:len(dataMagic)]) != dataMagic {
			return 0, nil, fmt.Errorf("it starts with %q, which is no connection of weir", buf[:len(dataMagic)])
		}
	case gossipMagic:
		if _, err := io.ReadFull(conn, buf[1:2]); err != nil {
			return 0, nil, fmt.Errorf("its label was cut short: %w", err)
		}
		end := 2 + int(buf[1])
		if _, err := io.ReadFull(conn, buf[2:end]); err != nil {
			return 0, nil, fmt.Errorf("its label was cut short: %w", err)
		}
		if label := buf[2:end]; string(label) != p.label {
			return 0, nil, fmt.Errorf("it belongs to the cluster %q, this is %q; one of the two has the other among its seeds", label, p.label)
		}
		if _, err := io.ReadFull(conn, buf[end:end+1]); err != nil {
			return 0, nil, fmt.Errorf("it said nothing after its label: %w", err)
		}
		switch sealed := buf[end] == gossipSealed; {
		case p.sealed && !sealed:
			return 0, nil, errors.New("its gossip is not encrypted, and this node's is: it has no Secret")
		case sealed && !p.sealed:
			return 0, nil, errors.New("its gossip is encrypted: it has a Secret, and this node has none")
		}
		read = buf[:end+1]
	case 'G', 'P', 'H', 'D', 'O':
		return 0, nil, fmt.Errorf("it starts with %q, as an HTTP request does; stats are where the service mounts the node's handler", buf[:1])
	case tlsRecord:
		return 0, nil, fmt.Errorf("it starts a TLS handshake, which a member does after %q; stats are where the service mounts the node's handler", dataMagic)
	default:
		return 0, nil, fmt.Errorf("it starts with %q, which is no connection of weir", buf[:1])
	}
	return buf[0], read, conn.SetReadDeadline(time.Time{})
}

// refuse closes conn and says why, not too often for one host.
func (p *port) refuse(conn net.Conn, reason string) {
	p.refused.Add(1)
	remote := conn.RemoteAddr().String()
	_ = conn.Close()
	if p.ctx.Err() == nil && p.noise.allow(hostOf(remote), time.Now()) {
		p.logger.Warn("connection refused", "remote", remote, "reason", reason)
	}
}

// replay is a connection whose first bytes have been read already and are read again.
type replay struct {
	net.Conn
	front []byte // used by the one reader only
}

func (r *replay) Read(b []byte) (int, error) {
	if len(r.front) > 0 {
		n := copy(b, r.front)
		r.front = r.front[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}

// pause waits for d; false if ctx ended first.
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
