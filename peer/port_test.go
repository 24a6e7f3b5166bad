package peer

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// portFixture is a port on a network in memory, together with what it passes on.
type portFixture struct {
	port         *port
	host         Network
	addr         string
	data, gossip chan net.Conn
	book         *testlog.Log
	world        memNet
	hold         bool // data connections do not finish their handshake

	mu   sync.Mutex // guards held
	held []func()   // ends the handshakes
}

func newPortFixture(t *testing.T) *portFixture {
	t.Helper()
	world := newMemNet()
	f := &portFixture{world: world, host: world.host("10.0.0.1"), addr: "10.0.0.1:7946", book: &testlog.Log{},
		data: make(chan net.Conn, 1), gossip: make(chan net.Conn, 1)}
	ln, err := f.host.Listen(t.Context(), f.addr)
	if err != nil {
		t.Fatal(err)
	}
	f.port = newPort(ln, portConfig{label: "weir/x", logger: f.book.Logger(), data: f.take, gossip: func(c net.Conn) error { f.gossip <- c; return nil }})
	t.Cleanup(f.port.close)
	return f
}

func (f *portFixture) take(conn net.Conn, decided func()) {
	if f.hold {
		f.mu.Lock()
		f.held = append(f.held, decided)
		f.mu.Unlock()
		return
	}
	decided()
	f.data <- conn
}

func (f *portFixture) dial(t *testing.T) net.Conn { return f.dialFrom(t, 1) }

func (f *portFixture) dialFrom(t *testing.T, host int) net.Conn {
	t.Helper()
	conn, err := f.world.host(fmt.Sprintf("10.0.0.%d", host)).Dial(t.Context(), f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestPortHandsOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newPortFixture(t)
		for _, c := range []struct {
			send, rest string
			to         chan net.Conn
		}{
			{"WEIRhello", "hello", f.data},
			{"\xf4\x06weir/xstate", "\xf4\x06weir/xstate", f.gossip},
		} {
			conn := f.dial(t)
			go func() {
				for _, b := range []byte(c.send) { // byte by byte, as a network may
					_, _ = conn.Write([]byte{b})
				}
				_ = conn.Close()
			}()
			got := <-c.to
			pause(t.Context(), 2*handshakeTimeout) // the handshake's deadline is cleared
			if b, err := io.ReadAll(got); err != nil || string(b) != c.rest {
				t.Errorf("%q: %q, %v is left", c.send, b, err)
			}
			_ = got.Close()
		}
	})
}

func TestPortRefuses(t *testing.T) {
	for _, c := range []struct{ name, send, reason string }{
		{"http", "GET / HTTP/1.1\r\n\r\n", "HTTP request"},
		{"tls", "\x16\x03\x01", "TLS"},
		{"garbage", "\x00\x01\x02\x03", "not a weir connection"},
		{"almost", "WEIRD"[:3] + "X", "not a weir connection"},
		{"another cluster", "\xf4\x06weir/y", "belongs to the cluster"},
		{"stalled", "WE", "cut short"},
		{"stalled label", "\xf4\xffabc", "cut short"},
		{"silent", "", "sent nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newPortFixture(t)
				conn := f.dial(t)
				go func() { _, _ = io.WriteString(conn, c.send) }()
				begin := time.Now()
				wiretest.MustEnd(t, conn)
				if took := time.Since(begin); took > handshakeTimeout {
					t.Errorf("it took %v", took)
				}
				synctest.Wait()
				if got := f.book.String(); !strings.Contains(got, c.reason) {
					t.Errorf("the log has no %q:\n%s", c.reason, got)
				}
			})
		})
	}
}

func TestPortBoundsTheUndecidedOfOneHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newPortFixture(t)
		for range maxUndecidedOf {
			f.dialFrom(t, 1)
		}
		synctest.Wait()
		if n := f.port.refused.Load(); n != 0 {
			t.Errorf("%d refused where there is room", n)
		}
		wiretest.MustEnd(t, f.dialFrom(t, 1))
		f.dialFrom(t, 2)
		synctest.Wait()
		if n := f.port.refused.Load(); n != 1 || f.port.strangers != maxUndecidedOf+1 {
			t.Errorf("%d refused, %d strangers", n, f.port.strangers)
		}
		f.port.close()
	})
}

func TestPortBoundsTheUndecided(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newPortFixture(t)
		f.port.member = func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.9") }
		var conns []net.Conn
		for i := range maxUndecided - 1 {
			conns = append(conns, f.dialFrom(t, i/maxUndecidedOf+1))
		}
		f.dialFrom(t, 8)
		refused := func(want int64, what string) {
			t.Helper()
			synctest.Wait() // the log line is written after the connection ends
			if got := f.port.refused.Load(); got != want {
				t.Errorf("%s: %d refused, want %d", what, got, want)
			}
		}
		refused(0, "there is room")
		f.dialFrom(t, 9)
		refused(0, "a member")
		for i := range 3 { // the host with the most connections gives up its oldest one for another host
			f.dialFrom(t, 20+i)
			wiretest.MustEnd(t, conns[i*maxUndecidedOf])
			refused(int64(i+1), "another host")
		}
		wiretest.MustEnd(t, f.dialFrom(t, 4)) // a host with the most connections gets no more
		refused(4, "a host that has most of them")
		if f.port.strangers != maxUndecided || len(f.port.undecided) != maxUndecided+1 {
			t.Errorf("%d strangers of %d undecided", f.port.strangers, len(f.port.undecided))
		}
		f.port.close() // ends the others although they stall
		if n := strings.Count(f.book.String(), "refused"); n != 4 {
			t.Errorf("%d lines in the log, want one for each host", n)
		}
		if len(f.port.hosts) != 0 || len(f.port.undecided) != 0 {
			t.Errorf("%d hosts and %d connections are still counted", len(f.port.hosts), len(f.port.undecided))
		}
	})
}

// TestHostPrefix checks that all addresses of an IPv6 network of the smallest size are one host, and that an IPv4 address
// is one host however it is written.
func TestHostPrefix(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.1:7": "10.0.0.1/32", "[::ffff:10.0.0.1]:7": "10.0.0.1/32", "[2001:db8:1:2:3:4:5:6]:7": "2001:db8:1:2::/64",
		"[2001:db8:1:2::1]:9": "2001:db8:1:2::/64", "[fe80::1%eth0]:9": "fe80::/64",
	} {
		if host, _ := hostPrefix(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))); host.String() != want {
			t.Errorf("%s is of %s, want %s", addr, host, want)
		}
	}
	if host, _ := hostPrefix(&net.UnixAddr{Name: "/tmp/socket"}); host.IsValid() {
		t.Errorf("a socket's name is of %s", host)
	}
}

// TestPortBoundsOneHost checks that a host that floods the port does not keep out another, and that connections count while
// they are in their handshake.
func TestPortBoundsOneHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newPortFixture(t)
		f.hold = true
		for range maxUndecidedOf {
			_, _ = io.WriteString(f.dialFrom(t, 2), wire.Magic)
		}
		wiretest.MustEnd(t, f.dialFrom(t, 2))
		synctest.Wait()
		wiretest.WantLog(t, f.book, "too many connections from this host")
		if n := len(f.port.undecided); n != maxUndecidedOf {
			t.Errorf("%d are undecided", n)
		}
		conn := f.dialFrom(t, 3)
		_, _ = io.WriteString(conn, wire.Magic)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := len(f.held); n != maxUndecidedOf+1 {
			t.Errorf("%d connections got through", n)
		}
		for _, decided := range f.held {
			decided()
		}
	})
}

// TestNodeSurvivesStrangers checks that a port scanner's connections on a real socket do not harm the node.
func TestNodeSurvivesStrangers(t *testing.T) {
	n := start(t, quick("a"))
	for _, send := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00", "\xf4\x09weir/weir\x06\xff\xff\xff\xff", "\xf4\x09weir/weir"} {
		conn, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, send); err != nil {
			t.Fatal(err)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		wiretest.MustEnd(t, conn)
		_ = conn.Close()
	}
	b := start(t, quick("b", n.Addr()))
	awaitNames(t, "a b", n, b)
}
