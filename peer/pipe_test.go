package peer

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is how many bytes a half of a buffered pipe holds, as a socket does.
const pipeBuffer = 64 << 10

// bufferedPipe is two ends of a connection in memory that hold some bytes under way, as sockets do:
// two sides that write at the same time do not wait for each other.
func bufferedPipe() (*pipeEnd, *pipeEnd) {
	a, b := newHalf(), newHalf()
	return &pipeEnd{in: a, out: b}, &pipeEnd{in: b, out: a}
}

// half is one direction of a pipe.
type half struct {
	mu     sync.Mutex // guards the rest
	buf    []byte
	end    error         // what the reader gets after buf; nil: more may come
	broken error         // what both get at once
	wake   chan struct{} // closed and replaced at each change
}

func newHalf() *half { return &half{wake: make(chan struct{})} }

// change runs f and wakes who waits.
func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.wake)
	h.wake = make(chan struct{})
}

// limit is a deadline that wakes who waits for it.
type limit struct {
	mu      sync.Mutex // guards the rest
	timer   *time.Timer
	expired chan struct{}
}

func (l *limit) set(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		if !l.timer.Stop() {
			<-l.expired // its function is about to close it, or has
		}
		l.timer = nil
	}
	select {
	case <-l.done():
		l.expired = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	expired := l.done()
	if d := time.Until(t); d > 0 {
		l.timer = time.AfterFunc(d, func() { close(expired) })
	} else {
		close(expired)
	}
}

// done is closed when the deadline has passed. The caller holds mu.
func (l *limit) done() chan struct{} {
	if l.expired == nil {
		l.expired = make(chan struct{})
	}
	return l.expired
}

func (l *limit) wait() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done()
}

type pipeEnd struct {
	in, out     *half
	read, write limit
}

func passed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (p *pipeEnd) Read(b []byte) (int, error) {
	for {
		late := p.read.wait()
		if passed(late) {
			return 0, os.ErrDeadlineExceeded
		}
		h := p.in
		h.mu.Lock()
		wake := h.wake
		switch {
		case h.broken != nil:
			h.mu.Unlock()
			return 0, h.broken
		case len(h.buf) > 0:
			n := copy(b, h.buf)
			h.buf = h.buf[n:]
			close(h.wake)
			h.wake = make(chan struct{})
			h.mu.Unlock()
			return n, nil
		case h.end != nil:
			h.mu.Unlock()
			return 0, h.end
		}
		h.mu.Unlock()
		select {
		case <-wake:
		case <-late:
		}
	}
}

func (p *pipeEnd) Write(b []byte) (n int, err error) {
	for {
		late := p.write.wait()
		if passed(late) {
			return n, os.ErrDeadlineExceeded
		}
		h := p.out
		h.mu.Lock()
		wake := h.wake
		if h.broken != nil || h.end != nil {
			h.mu.Unlock()
			return n, io.ErrClosedPipe
		}
		if k := min(len(b), pipeBuffer-len(h.buf)); k > 0 || len(b) == 0 {
			h.buf = append(h.buf, b[:k]...)
			n, b = n+k, b[k:]
			close(h.wake)
			h.wake = make(chan struct{})
		}
		h.mu.Unlock()
		if len(b) == 0 {
			return n, nil
		}
		select {
		case <-wake:
		case <-late:
		}
	}
}

// CloseWrite ends what the other side reads; it may go on writing.
func (p *pipeEnd) CloseWrite() error {
	p.out.change(func() {
		if p.out.end == nil {
			p.out.end = io.EOF
		}
	})
	return nil
}

func (p *pipeEnd) Close() error {
	_ = p.CloseWrite()
	p.in.change(func() {
		if p.in.broken == nil {
			p.in.broken = io.ErrClosedPipe
		}
	})
	return nil
}

// reset breaks the connection as a RST does: what is under way is lost.
func (p *pipeEnd) reset() {
	for _, h := range []*half{p.in, p.out} {
		h.change(func() { h.broken = syscall.ECONNRESET })
	}
}

func (p *pipeEnd) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (p *pipeEnd) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (p *pipeEnd) SetReadDeadline(t time.Time) error  { p.read.set(t); return nil }
func (p *pipeEnd) SetWriteDeadline(t time.Time) error { p.write.set(t); return nil }
func (p *pipeEnd) SetDeadline(t time.Time) error {
	p.read.set(t)
	p.write.set(t)
	return nil
}
