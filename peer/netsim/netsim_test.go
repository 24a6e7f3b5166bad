package netsim

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/internal/simtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs f with virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	simtime.Test(t, f)
}

// dial connects two hosts of n.
func dial(t *testing.T, n *Network) (a, b net.Conn) {
	t.Helper()
	l, err := n.Host("10.0.0.2").Listen(t.Context(), "10.0.0.2:1")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	if a, err = n.Host("10.0.0.1").Dial(t.Context(), "10.0.0.2:1"); err != nil {
		t.Fatal(err)
	}
	b = <-got
	_ = l.Close()
	return a, b
}

func read(c net.Conn) (string, error) {
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func TestCutHoldsBackOneWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := New(1)
		a, b := dial(t, n)
		n.Cut("10.0.0.1", "10.0.0.2")
		n.Cut("10.0.0.1", "10.0.0.2")
		if _, err := io.WriteString(a, "late"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(b, "back"); err != nil {
			t.Fatal(err)
		}
		if s, err := read(a); s != "back" || err != nil {
			t.Errorf("the way back: %q, %v", s, err)
		}
		_ = b.SetReadDeadline(time.Now().Add(time.Second))
		if s, err := read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("through the cut: %q, %v", s, err)
		}
		_ = b.SetReadDeadline(time.Time{})
		n.Uncut("10.0.0.1", "10.0.0.2")
		began := time.Now()
		time.AfterFunc(time.Minute, func() { n.Uncut("10.0.0.1", "10.0.0.2") })
		if s, err := read(b); s != "late" || err != nil || time.Since(began) != time.Minute {
			t.Errorf("after the cut: %q, %v, %v", s, err, time.Since(began))
		}
		_ = a.Close()
		if _, err := read(b); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		_ = b.Close()
	})
}

func TestPauseAndCrash(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := New(1)
		a, b := dial(t, n)
		n.Pause("10.0.0.2")
		n.Pause("10.0.0.2")
		n.Resume("10.0.0.2")
		if _, err := io.WriteString(a, "x"); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, func() { n.Resume("10.0.0.2") })
		began := time.Now()
		if s, err := read(b); s != "x" || err != nil || time.Since(began) != time.Minute {
			t.Errorf("%q, %v after %v", s, err, time.Since(began))
		}
		n.Crash("10.0.0.2")
		if _, err := read(a); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the crash: %v", err)
		}
		if _, err := n.Host("10.0.0.1").Dial(t.Context(), "10.0.0.2:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a dial: %v", err)
		}
	})
}

// TestWindowAndOrder checks that a connection buffers at most window bytes and keeps the order whatever the delays are.
func TestWindowAndOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := New(7)
		n.SetFaults(PacketFaults{}, ConnFaults{Delay: time.Second, Stall: 0.1, StallFor: time.Minute})
		a, b := dial(t, n)
		_ = a.SetWriteDeadline(time.Now().Add(time.Hour))
		if k, err := a.Write(make([]byte, 2*window)); k != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", k, err)
		}
		_ = a.SetWriteDeadline(time.Time{})
		if _, err := io.CopyN(io.Discard, b, window); err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat("0123456789", 100)
		go func() {
			for i := range want {
				_, _ = io.WriteString(a, want[i:i+1])
			}
			_ = a.Close()
		}()
		if got, err := io.ReadAll(b); string(got) != want || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		_ = b.Close()
	})
}

// TestFaultsFollowTheSeed checks that the same seed delays, duplicates and drops the same packets, and that another seed
// does not.
func TestFaultsFollowTheSeed(t *testing.T) {
	run := func(seed uint64) (got []byte, c Counts) {
		bubble(t, func(t *testing.T) {
			n := New(seed)
			n.SetFaults(PacketFaults{Drop: 0.2, Duplicate: 0.2, Delay: time.Second}, ConnFaults{})
			from, err := n.Host("10.0.0.1").ListenPacket(t.Context(), "10.0.0.1:1")
			if err != nil {
				t.Fatal(err)
			}
			to, err := n.Host("10.0.0.2").ListenPacket(t.Context(), "10.0.0.2:1")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 200 {
				if _, err := from.WriteTo([]byte{byte(i)}, to.LocalAddr()); err != nil {
					t.Fatal(err)
				}
			}
			time.AfterFunc(time.Minute, func() { _ = to.Close() })
			for b := make([]byte, 10); ; {
				k, _, err := to.ReadFrom(b)
				if err != nil {
					break
				}
				got = append(got, b[:k]...)
			}
			_ = from.Close()
			c = n.Faults()
		})
		return got, c
	}
	a, c := run(3)
	if b, _ := run(3); !slices.Equal(a, b) {
		t.Error("the same seed, other faults")
	}
	if b, _ := run(4); slices.Equal(a, b) {
		t.Error("another seed, the same faults")
	}
	if c.Dropped < 20 || c.Duplicated < 20 || c.Delayed < 100 || slices.IsSorted(a) || len(a) != 200-int(c.Dropped)+int(c.Duplicated) {
		t.Errorf("%+v, %d packets", c, len(a))
	}
}
