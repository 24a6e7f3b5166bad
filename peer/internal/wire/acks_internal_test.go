package wire

import (
	"net"
	"runtime"
	"testing"
	"time"
)

// TestSystemTellsOfAcknowledgements checks that the operating system reports acknowledgements, even below TLS.
func TestSystemTellsOfAcknowledgements(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	there, err := l.Accept() // and never reads
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{conn, &secured{raw: conn}} {
		a := ackerOf(c)
		if a == nil {
			t.Fatalf("%T: nothing tells", c)
		}
		for linux := runtime.GOOS == "linux"; ; time.Sleep(time.Millisecond) {
			if ago, ok := a.LastAck(); ok != linux || ago < 0 || ago > time.Minute {
				t.Fatalf("%T: %v, %v", c, ago, ok)
			} else if !linux || ago == 0 { // everything sent has been acknowledged
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
		if ago, _ := a.LastAck(); ago != 0 {
			t.Errorf("%T: with everything acknowledged, %v ago", c, ago)
		}
	}
	if a := ackerOf(struct{ net.Conn }{}); a != nil {
		t.Errorf("%T tells of nothing", a)
	}
}

// lastAck is a connection whose last acknowledgement was some time ago; below zero, it does not know when.
type lastAck time.Duration

func (a lastAck) LastAck() (time.Duration, bool) { return time.Duration(a), a >= 0 }

// TestRecentAcknowledgement checks how recent an acknowledgement must be, and that none is known counts as none.
func TestRecentAcknowledgement(t *testing.T) {
	for ago, want := range map[lastAck]bool{0: true, lastAck(ackedWithin): true, lastAck(ackedWithin) + 1: false, -1: false} {
		if got := (&link{acks: ago}).acknowledged(); got != want {
			t.Errorf("%v ago: %v", time.Duration(ago), got)
		}
	}
	if new(link).acknowledged() {
		t.Error("acknowledged without a source")
	}
}
