package harness

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/weircache/weir/peer"
)

// wires are the networks of the nodes in one process, with a switch: while they are cut, nothing passes between the
// two sides. Data in a TCP connection arrives when the cut heals, as on a real network that was down for a while.
// Datagrams are lost.
//
// The side that dialled holds a connection back, in both directions, so that the side that accepted keeps the plain
// socket.
type wires struct {
	mu    sync.Mutex // guards the rest
	owner map[string]int
	side  []int // one side of the cut; nil: none
	whole chan struct{}
	conns map[*wire]struct{}
}

func newWires() *wires {
	w := &wires{owner: make(map[string]int), whole: make(chan struct{}), conns: make(map[*wire]struct{})}
	close(w.whole)
	return w
}

// cut separates the nodes in side from the others.
func (w *wires) cut(side []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.side == nil {
		w.whole = make(chan struct{})
	}
	w.side = slices.Clone(side)
}

// heal ends the cut.
func (w *wires) heal() {
	w.mu.Lock()
	if w.side == nil {
		w.mu.Unlock()
		return
	}
	w.side = nil
	close(w.whole)
	var conns []*wire
	for c := range w.conns {
		conns = append(conns, c)
	}
	w.mu.Unlock()
	for _, c := range conns {
		_, _ = c.Write(nil) // sends what waits; its writer learns of an error by reading
	}
}

// parted reports whether a cut separates a node from an address, and returns a channel that is closed when the cut
// may have ended.
func (w *wires) parted(node int, addr string) (bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	other, ok := w.owner[addr]
	if w.side == nil || !ok {
		return false, w.whole
	}
	return slices.Contains(w.side, node) != slices.Contains(w.side, other), w.whole
}

func (w *wires) owns(node int, addr net.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owner[addr.String()] = node
}

// network returns the network as one node sees it.
func (w *wires) network(node int) peer.Network { return &view{w, node} }

type view struct {
	w    *wires
	node int
}

func (v *view) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	var lc net.ListenConfig
	p, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	v.w.owns(v.node, p.LocalAddr())
	return &packets{p, v}, nil
}

func (v *view) Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		v.w.owns(v.node, l.Addr())
	}
	return l, err
}

func (v *view) Dial(ctx context.Context, addr string) (net.Conn, error) {
	parted, whole := v.w.parted(v.node, addr)
	if parted {
		select {
		case <-whole:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	o := &wire{Conn: c, v: v, addr: addr, closed: make(chan struct{})}
	v.w.mu.Lock()
	v.w.conns[o] = struct{}{}
	v.w.mu.Unlock()
	return o, nil
}

func (v *view) LookupHost(ctx context.Context, host string) ([]string, error) {
	return net.DefaultResolver.LookupHost(ctx, host)
}

func (v *view) LookupSRV(context.Context, string) ([]string, error) {
	return nil, errors.New("the harness knows its nodes by their addresses")
}

// packets drops the datagrams that a cut blocks.
type packets struct {
	net.PacketConn
	v *view
}

func (p *packets) WriteTo(b []byte, to net.Addr) (int, error) {
	if parted, _ := p.v.w.parted(p.v.node, to.String()); parted {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}

// maxHeld is how much a connection that is cut accepts before it appears full, like a socket's buffer.
const maxHeld = 4 << 20

// wire is a connection that this node dialled.
type wire struct {
	net.Conn
	v      *view
	addr   string
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex // guards held and the order of the bytes that are written
	held []byte
}

// Read returns what has arrived, once the cut, if any, is over.
func (c *wire) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for {
		parted, whole := c.v.w.parted(c.v.node, c.addr)
		if !parted {
			return n, err
		}
		select {
		case <-whole:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
}

// Write sends, or keeps the data until the cut is over.
func (c *wire) Write(b []byte) (int, error) {
	parted, _ := c.v.w.parted(c.v.node, c.addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if parted {
		if len(c.held)+len(b) > maxHeld {
			return 0, errFull
		}
		c.held = append(c.held, b...)
		return len(b), nil
	}
	if len(c.held) > 0 {
		held := c.held
		c.held = nil
		if _, err := c.Conn.Write(held); err != nil {
			return 0, err
		}
	}
	if len(b) == 0 {
		return 0, nil
	}
	return c.Conn.Write(b)
}

// errFull is the error of a socket whose peer has not read for too long.
var errFull = &net.OpError{Op: "write", Net: "tcp", Err: errTimeout{}}

type errTimeout struct{}

func (errTimeout) Error() string   { return "i/o timeout: the network is cut" }
func (errTimeout) Timeout() bool   { return true }
func (errTimeout) Temporary() bool { return true }

// Close closes the connection and wakes its readers.
func (c *wire) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.v.w.mu.Lock()
	delete(c.v.w.conns, c)
	c.v.w.mu.Unlock()
	return c.Conn.Close()
}
