package roster_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
)

// A socket is a packet socket that yields what the test puts in.
type socket struct {
	noPackets
	in      chan []byte // nil: an error
	refuses int         // buffer sizes above this one

	mu    sync.Mutex // guards the rest
	asked []int      // the buffer sizes
	reads int
}

func newSocket() *socket {
	return &socket{noPackets: noPackets{closed: make(chan struct{})}, in: make(chan []byte, 10), refuses: 1 << 30}
}

func (s *socket) SetReadBuffer(size int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked = append(s.asked, size); size > s.refuses {
		return errors.New("too much")
	}
	return nil
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	s.mu.Lock()
	s.reads++
	s.mu.Unlock()
	from := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 7946}
	select {
	case p, ok := <-s.in:
		if !ok || p == nil {
			return 0, from, errors.New("port unreachable")
		}
		return copy(b, p), from, nil
	case <-s.closed:
		return 0, nil, net.ErrClosed
	}
}

func (s *socket) has() (asked []int, reads int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked, s.reads
}

// over makes a node receive packets from s.
func over(s net.PacketConn) func(*roster.Config) {
	return func(c *roster.Config) { c.Gossip.Packets, c.Gossip.Label = s, "" }
}

// TestPackets checks that packets reach memberlist whatever the socket reports between them, and that a socket that fails
// all the time is not read without a pause.
func TestPackets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSocket()
		r := start(t, over(s))
		s.in <- nil
		s.in <- []byte{}
		s.in <- []byte{77} // no message has this type
		pause(time.Second)
		if r.lines("cannot receive a gossip packet") != 1 || r.lines("msg type (77) not supported") != 1 || r.lines("too short") != 0 {
			t.Errorf("the log has %s", r.log)
		}
		_, before := s.has()
		close(s.in)
		pause(time.Second)
		if _, reads := s.has(); reads-before < 100 || reads-before > 300 {
			t.Errorf("%d reads in a second although each fails", reads-before)
		}
	})
}

// TestPacketBuffer checks that the socket is asked for the largest buffer that it allows.
func TestPacketBuffer(t *testing.T) {
	for refuses, want := range map[int][]int{
		1 << 30:   {2 << 20},
		600 << 10: {2 << 20, 1 << 20, 512 << 10},
		0:         {2 << 20, 1 << 20, 512 << 10, 256 << 10, 128 << 10}, // a smaller one holds no packet beside the first
	} {
		bubble(t, func(t *testing.T) {
			s := newSocket()
			s.refuses = refuses
			start(t, over(s))
			if asked, _ := s.has(); !slices.Equal(asked, want) {
				t.Errorf("up to %d: asked for %v, want %v", refuses, asked, want)
			}
		})
	}
}

// A failing socket cannot be closed.
type failing struct{ *socket }

func (f failing) Close() error {
	_ = f.socket.Close()
	return errors.New("the socket stays open")
}

// TestSocketStaysOpen checks that an operator learns of a socket that cannot be closed.
func TestSocketStaysOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, over(failing{newSocket()}))
		if r.Shutdown(); r.lines("the socket stays open") != 1 {
			t.Errorf("the log has %s", r.log)
		}
	})
}

// TestStreamsAreBounded checks that only so many streams of other nodes are open at once, that a silent one is closed soon,
// that this node may open streams meanwhile, and that all of them end with Shutdown, also those that come later.
func TestStreamsAreBounded(t *testing.T) {
	const maxStreams, streamTimeout = 64, 3 * time.Second
	bubble(t, func(t *testing.T) {
		r := with(t, 1)
		fill := func() (ends []net.Conn) {
			t.Helper()
			for i := range maxStreams {
				near, far := net.Pipe()
				if err := r.Take(near); err != nil {
					t.Fatalf("stream %d: %v", i, err)
				}
				ends = append(ends, far)
			}
			return ends
		}
		closed := func(ends []net.Conn) (n int) {
			for _, end := range ends {
				_ = end.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := end.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
					n++
				}
			}
			return n
		}
		for round := range 2 {
			ends := fill()
			near, far := net.Pipe()
			if err := r.Take(near); err == nil || err.Error() != fmt.Sprintf("%d gossip streams of other nodes are open already", maxStreams) {
				t.Errorf("round %d: one too many: %v", round, err)
			}
			go func() { _, _ = far.Write([]byte("still open")) }()
			if b := make([]byte, 10); func() error { _, err := near.Read(b); return err }() != nil {
				t.Error("the caller's stream is closed")
			}
			_, _ = near.Close(), far.Close()
			r.NotifyMsg(leaving(gossiped("catalog-1", 1<<40, 9, nil)).Meta)
			r.Refresh()
			pause(time.Millisecond)
			if told := r.sent("\tcatalog-1"); told == nil {
				t.Errorf("round %d: this node cannot contradict", round)
			}
			if n := closed(ends); n != 0 {
				t.Errorf("round %d: %d are closed at once", round, n)
			}
			pause(streamTimeout)
			if n := closed(ends); n != maxStreams {
				t.Errorf("round %d: %d are closed in time", round, n)
			}
		}
		ends := fill()
		r.Shutdown()
		if n := closed(ends); n != maxStreams {
			t.Errorf("%d are closed by Shutdown", n)
		}
		near, far := net.Pipe()
		if err := r.Take(near); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Shutdown: %v", err)
		}
		_, _ = near.Close(), far.Close()
	})
}
