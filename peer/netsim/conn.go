package netsim

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes one direction of a connection buffers. A writer blocks until there is room.
const window = 256 << 10

type chunk struct {
	b  []byte
	at time.Time // earliest time of reading
}

// half is one direction of a connection.
type half struct {
	mu       sync.Mutex // guards the rest
	queue    []chunk
	size     int
	last     time.Time // when the newest chunk may be read
	finished bool      // the writer has closed
	deaf     bool      // the reader has closed
	broken   bool
	readBy   time.Time // the reader's deadline
	writeBy  time.Time // the writer's
	changed  chan struct{}
}

func newHalf() *half { return &half{changed: make(chan struct{})} }

// update changes the half and wakes the goroutines that wait on it.
func (h *half) update(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

// conn is one end of a connection.
type conn struct {
	net     *Network
	way     link // the direction of its writes
	local   netip.AddrPort
	remote  netip.AddrPort
	in, out *half
	peer    *conn
}

// newPair returns the two ends of a connection.
func newPair(n *Network, from, to netip.AddrPort) (*conn, *conn) {
	x, y := newHalf(), newHalf()
	a := &conn{net: n, way: link{from.Addr(), to.Addr()}, local: from, remote: to, in: y, out: x}
	b := &conn{net: n, way: link{to.Addr(), from.Addr()}, local: to, remote: from, in: x, out: y, peer: a}
	a.peer = b
	n.mu.Lock()
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	n.mu.Unlock()
	return a, b
}

// await waits until one of the channels is closed, or until at.
func await(changed, gate <-chan struct{}, at time.Time) {
	var due <-chan time.Time
	if !at.IsZero() {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-changed:
	case <-gate:
	case <-due:
	}
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	for {
		open, gate := c.net.open(c.peer.way)
		n, wake, changed, err := c.in.read(b, open)
		if n > 0 || err != nil {
			if n > 0 {
				c.in.update(func() {}) // wake the writer: there is room
			}
			return n, err
		}
		await(changed, gate, wake)
	}
}

// read returns the readable bytes. If it returns neither bytes nor an error, the reader must wait for changed, or until
// wake.
func (h *half) read(b []byte, open bool) (n int, wake time.Time, changed <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case h.deaf:
		return 0, wake, nil, net.ErrClosed
	case h.broken:
		return 0, wake, nil, syscall.ECONNRESET
	case !h.readBy.IsZero() && !now.Before(h.readBy):
		return 0, wake, nil, os.ErrDeadlineExceeded
	case !open:
		return 0, h.readBy, h.changed, nil
	case len(h.queue) == 0 && h.finished:
		return 0, wake, nil, io.EOF
	case len(h.queue) == 0:
		return 0, h.readBy, h.changed, nil
	case now.Before(h.queue[0].at):
		return 0, sooner(h.readBy, h.queue[0].at), h.changed, nil
	case len(b) == 0:
		return 0, wake, nil, nil
	}
	for n < len(b) && len(h.queue) > 0 && !now.Before(h.queue[0].at) {
		k := copy(b[n:], h.queue[0].b)
		if n += k; k == len(h.queue[0].b) {
			h.queue = h.queue[1:]
		} else {
			h.queue[0].b = h.queue[0].b[k:]
		}
		h.size -= k
	}
	return n, wake, nil, nil
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (written int, err error) {
	d, _, faults := c.net.roll(c.way, len(b))
	delay := d.upTo(faults.Delay)
	if d.chance(faults.Stall) {
		c.net.count.stalled.Add(1)
		delay += faults.StallFor
	}
	if d.chance(faults.Break) {
		c.net.count.broken.Add(1)
		c.Reset()
	}
	for written < len(b) {
		n, wake, changed, err := c.out.write(b[written:], delay)
		written += n
		if err != nil {
			return written, err
		}
		if n == 0 {
			await(changed, nil, wake)
		}
	}
	if d.chance(faults.HalfClose) {
		c.net.count.halfClosed.Add(1)
		_ = c.CloseWrite()
	}
	return written, nil
}

func (h *half) write(b []byte, delay time.Duration) (n int, wake time.Time, changed <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case h.broken:
		return 0, wake, nil, syscall.ECONNRESET
	case h.finished, h.deaf:
		return 0, wake, nil, syscall.EPIPE
	case !h.writeBy.IsZero() && !now.Before(h.writeBy):
		return 0, wake, nil, os.ErrDeadlineExceeded
	case h.size >= window:
		return 0, h.writeBy, h.changed, nil
	}
	n = min(len(b), window-h.size)
	if at := now.Add(delay); at.After(h.last) {
		h.last = at
	}
	h.queue = append(h.queue, chunk{append([]byte(nil), b[:n]...), h.last})
	h.size += n
	close(h.changed)
	h.changed = make(chan struct{})
	return n, wake, nil, nil
}

// LastAck returns how long ago the other end's host last acknowledged something: zero, unless that host is unreachable or
// paused, or has not yet received what was sent. In these cases it returns an hour.
func (c *conn) LastAck() (ago time.Duration, ok bool) {
	c.out.mu.Lock()
	due := c.out.last
	c.out.mu.Unlock()
	if time.Now().Before(due) || !c.net.acknowledges(c.way) {
		return time.Hour, true
	}
	return 0, true
}

// CloseWrite closes this end's direction.
func (c *conn) CloseWrite() error {
	c.out.update(func() { c.out.finished = true })
	return nil
}

// Close implements net.Conn. The other end reads what is in transit, and then EOF.
func (c *conn) Close() error {
	c.out.update(func() { c.out.finished = true })
	c.in.update(func() { c.in.deaf = true })
	c.forget()
	return nil
}

// Reset breaks both directions at once.
func (c *conn) Reset() {
	c.out.update(func() { c.out.broken = true })
	c.in.update(func() { c.in.broken = true })
	c.forget()
	c.peer.forget()
}

func (c *conn) forget() {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	delete(c.net.conns, c)
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.update(func() { c.in.readBy = t })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.update(func() { c.out.writeBy = t })
	return nil
}
