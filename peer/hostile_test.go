package peer

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// heap returns how many bytes of the heap are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// withAndWithout runs f in a bubble with two nodes without a secret, and again with two nodes that have one.
func withAndWithout(t *testing.T, f func(t *testing.T, r *rig, secret Secret, n1, n2 *Node)) {
	for name, secret := range map[string]Secret{"plain": nil, "secret": secretOf("a")} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig()
				n1, n2 := r.two(t, Config{Secret: secret})
				mustServe(t, n1, n2)
				f(t, r, secret, n1, n2)
			})
		})
	}
}

// member opens a data connection to a node as a member called "rogue", which then misbehaves.
func (r *rig) member(t *testing.T, secret Secret, to *Node) (conn, raw net.Conn) {
	t.Helper()
	raw = r.dial(t, 6, to)
	tr, err := newTrust(&Config{ClusterName: DefaultClusterName, Secret: secret}, "rogue")
	if err != nil {
		t.Fatal(err)
	}
	d := wire.New(wire.Config{
		Name: "rogue", Cluster: DefaultClusterName, ValueLimit: DefaultValueLimit, Budget: 1 << 20,
		Logger: quick("").Logger, Placement: to.id.Placement, Trust: tr, Hearing: hearing.New(time.Now()),
	})
	t.Cleanup(func() { d.Close(t.Context()) })
	conn, err = d.Handshake(t.Context(), raw, memberOf(to))
	if err != nil {
		t.Fatal(err)
	}
	return conn, raw
}

func rogueGet(id uint64, namespace string) []byte {
	return codec.AppendRequest(nil, &codec.Request{Kind: codec.KindGet, ID: id, Namespace: []byte(namespace), Schema: 7, Key: []byte("k")})
}

// TestHostileConnections checks misbehaving connections. Each ends, is logged in one line, leaves nothing behind, and
// delays no one.
func TestHostileConnections(t *testing.T) {
	trickle := func(conn net.Conn, text []byte) {
		for _, b := range text {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Second) // of the bubble's time: the peer does this
		}
	}
	request := rogueGet(1, "n")
	for _, c := range []struct {
		name   string
		member bool // it has completed the handshake
		act    func(conn, raw net.Conn)
		within time.Duration
		log    []string // in the cluster without a secret
		sealed []string // in the cluster with a secret, if different
	}{
		{"a byte every 5 s", false, func(conn, _ net.Conn) { trickle(conn, []byte("WEIR........")) }, handshakeTimeout, []string{"connection refused", "cut short"}, nil},
		{"a byte every 5 s of a hello", false, func(conn, _ net.Conn) {
			_, _ = io.WriteString(conn, wire.Magic)
			trickle(conn, []byte{0, 0, 0, 90, 1, 2, 3, 4})
		}, wire.HelloTimeout + time.Second, []string{"data connection refused", "timeout"}, nil},
		{"a byte every 5 s of a request", true, func(conn, _ net.Conn) { trickle(conn, request) }, 2 * wire.FrameTimeout, []string{"data connection closed", "no more of it arrives"}, nil},
		{"connect and stall", false, func(conn, _ net.Conn) {}, handshakeTimeout, []string{"connection refused", "it sent nothing"}, nil},
		{"magic and stall", false, func(conn, _ net.Conn) { _, _ = io.WriteString(conn, wire.Magic) }, wire.HelloTimeout, []string{"data connection refused", "timeout"}, nil},
		{"label and stall", false, func(conn, _ net.Conn) { _, _ = io.WriteString(conn, "\xf4\x09weir/weir") }, handshakeTimeout, []string{"connection refused", "nothing after its label"}, nil},
		{"gossip and stall", false, func(conn, _ net.Conn) { _, _ = io.WriteString(conn, "\xf4\x09weir/weir\x06") }, 2 * streamTimeout, []string{"from=gossip", "i/o timeout"}, []string{"connection refused", "not encrypted"}},
		{"half-close in a hello", false, func(conn, raw net.Conn) {
			_, _ = io.WriteString(conn, wire.Magic+"\x00\x00\x00\x5a")
			_ = raw.(interface{ CloseWrite() error }).CloseWrite()
		}, time.Second, []string{"data connection refused", "EOF"}, nil},
		{"half-close in a request", true, func(conn, raw net.Conn) {
			_, _ = conn.Write(request[:9])
			_ = raw.(interface{ CloseWrite() error }).CloseWrite()
		}, time.Second, []string{"data connection closed", "in the middle of a frame"}, nil},
		{"reset in a request", true, func(conn, raw net.Conn) {
			_, _ = conn.Write(request[:9])
			time.Sleep(time.Millisecond) // it has arrived
			raw.(interface{ Reset() }).Reset()
		}, time.Second, []string{"data connection closed", "in the middle of a frame"}, nil},
		{"never reads", true, func(conn, _ net.Conn) {
			for id := uint64(1); ; id++ {
				if _, err := conn.Write(rogueGet(id, "large")); err != nil {
					return
				}
			}
		}, 3 * wire.WriteTimeout, []string{"data connection closed", "timeout"}, nil},
		{"garbage", false, func(conn, _ net.Conn) { _, _ = io.WriteString(conn, wire.Magic+strings.Repeat("garbage ", 20)) }, time.Second + wire.HelloTimeout, []string{"data connection refused", "malformed"}, []string{"data connection refused", "does not speak TLS"}},
		{"HTTP", false, func(conn, _ net.Conn) { _, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n") }, time.Second, []string{"connection refused", "HTTP request"}, nil},
		{"TLS", false, func(conn, _ net.Conn) { _, _ = io.WriteString(conn, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") }, time.Second, []string{"connection refused", "TLS handshake"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			withAndWithout(t, func(t *testing.T, r *rig, secret Secret, n1, n2 *Node) {
				want := c.log
				if secret != nil && c.sealed != nil {
					want = c.sealed
				}
				large := wiretest.Value(strings.Repeat("v", 256<<10))
				if _, err := n1.Register("large", 7, large); err != nil {
					t.Fatal(err)
				}
				pause(t.Context(), time.Second)
				synctest.Wait()
				goroutines, before := runtime.NumGoroutine(), heap()
				var conn, raw net.Conn
				if c.member {
					conn, raw = r.member(t, secret, n1)
				} else {
					raw = r.dial(t, 6, n1)
					conn = raw
				}
				go func() { c.act(conn, raw) }()
				synctest.Wait()
				mustServe(t, n1, n2) // while the connection lasts
				if grown := heap() - before; grown > 48<<20 {
					t.Errorf("the heap has grown by %d bytes", grown)
				}
				pause(t.Context(), c.within)
				synctest.Wait()
				sessions := n1.data.Totals().Accepted
				n1.port.mu.Lock()
				undecided := len(n1.port.undecided)
				n1.port.mu.Unlock()
				if sessions != 1 || undecided != 0 {
					t.Errorf("after %v there are %d sessions, 1 of them n2's, and %d connections undecided", c.within, sessions, undecided)
				}
				_ = conn.Close()
				pause(t.Context(), 10*time.Second) // the peer has given up as well
				synctest.Wait()
				if n := runtime.NumGoroutine(); n > goroutines+3 {
					t.Errorf("%d goroutines, %d before", n, goroutines)
				}
				if n := n1.data.Totals().InFlight; n != 0 {
					t.Errorf("%d bytes count as in flight", n)
				}
				r.mustLog(t, "n1", append([]string{"WARN", "10.0.0.6"}, want...)...)
				mustServe(t, n1, n2)
				awaitNames(t, "n1 n2", n1, n2)
			})
		})
	}
}

// TestFloodOfHandshakes checks that a flood of connections that begin a handshake and stop holds a bounded number of
// goroutines and bytes, does not keep out other hosts, and does not fill a log.
func TestFloodOfHandshakes(t *testing.T) {
	for _, front := range []string{"", wire.Magic, wire.Magic + "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\xf4\x09weir/weir"} {
		t.Run(fmt.Sprintf("%q", front), func(t *testing.T) {
			withAndWithout(t, func(t *testing.T, r *rig, secret Secret, n1, n2 *Node) {
				if secret == nil && strings.HasPrefix(front, wire.Magic+"\x16") {
					return // rejected at the first byte
				}
				synctest.Wait()
				goroutines, before := runtime.NumGoroutine(), heap()
				const flood = 2000
				for range flood {
					conn := r.dial(t, 6, n1)
					go func() { _, _ = io.WriteString(conn, front) }()
				}
				synctest.Wait()
				if n := runtime.NumGoroutine() - goroutines; n > 4*maxUndecidedOf {
					t.Errorf("%d goroutines more", n)
				}
				if grown := heap() - before; grown > 48<<20 { // includes the flood's own ends
					t.Errorf("the heap has grown by %d bytes", grown)
				}
				if n := n1.port.refused.Load(); n < flood-2*maxUndecidedOf {
					t.Errorf("%d of %d were refused at once", n, flood)
				}
				n3 := r.add(t, 3, Config{Secret: secret, Join: []string{n1.Addr()}})
				awaitNames(t, "n1 n2 n3", n1, n2, n3)
				mustServe(t, n1, n2, n3)
				pause(t.Context(), 20*time.Second)
				synctest.Wait()
				if n := runtime.NumGoroutine(); n > goroutines+40 { // n3 and its connections
					t.Errorf("%d goroutines, %d before the flood", n, goroutines)
				}
				r.mustLog(t, "n1", "connection refused", "too many connections from this host")
				if lines := r.lines("n1", "refused", "10.0.0.6"); len(lines) > 2 {
					t.Errorf("%d lines in the log tell of it", len(lines))
				}
			})
		})
	}
}

// TestFloodOfSessions checks that a member that opens connection after connection is limited, and that others are not.
func TestFloodOfSessions(t *testing.T) {
	withAndWithout(t, func(t *testing.T, r *rig, secret Secret, n1, n2 *Node) {
		for range 2 * MaxConnections {
			r.member(t, secret, n1)
		}
		synctest.Wait() // a node answers a hello before it counts the connection
		conn, _ := r.member(t, secret, n1)
		kind, _, reason := wiretest.ReadFrame(t, conn)
		if kind != codec.KindGoodbye || !strings.Contains(reason, "too many connections") {
			t.Errorf("kind %d, %q", kind, reason)
		}
		mustServe(t, n1, n2)
		r.mustLog(t, "n1", "data connection refused", "too many connections", "rogue")
	})
}

// manyMembers checks how a node handles 10,000 members that are claimed in gossip.
func manyMembers(t *testing.T, claim func(t *testing.T, r *rig, n1 *Node)) {
	const limit = 64 // of partitions, and therefore of members
	bubble(t, func(t *testing.T) {
		r := newRig()
		cfg := Config{Ring: ring.Config{Partitions: limit}}
		n1, n2 := r.two(t, cfg)
		before, goroutines := heap(), runtime.NumGoroutine()
		claim(t, r, n1)
		pause(t.Context(), time.Second)
		synctest.Wait()
		if grown := heap() - before; grown > 32<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
		if n := runtime.NumGoroutine() - goroutines; n > 100 {
			t.Errorf("%d goroutines more", n)
		}
		if known := len(n1.Members()); known > tableFactor*limit {
			t.Errorf("%d members are known", known)
		}
		if n := n1.View().Len(); n > limit {
			t.Errorf("the view has %d members", n)
		}
		if err := ask(t.Context(), n2, memberOf(n1)); err != nil {
			t.Error(err)
		}
		pause(t.Context(), 5*time.Minute) // the claimed members do not answer probes
		awaitNames(t, "n1 n2", n1, n2)
		mustServe(t, n1, n2)
	})
}

// TestTwoNodesWithOneName checks two nodes that have one name by mistake. Both logs say so, the newest is in the view, and
// the one that was there first goes on calling and answering, although it owns nothing.
func TestTwoNodesWithOneName(t *testing.T) {
	withAndWithout(t, func(t *testing.T, r *rig, secret Secret, n1, n2 *Node) {
		established, asked := n1, r.books["n1"]
		pause(t.Context(), time.Second) // nodes started in the same instant have no order
		second := r.add(t, 3, Config{Name: "n1", Secret: secret, Join: []string{n2.Addr()}})
		for _, n := range []*Node{established, n2, second} {
			await(t, n, "waiting for the newest n1", func(v *ring.View) bool {
				m, _ := v.Member("n1")
				return v.Len() == 2 && m.Addr == second.Addr()
			})
		}
		synctest.Wait()
		mustServe(t, second, n2)
		if err := ask(t.Context(), established, memberOf(n2)); err != nil {
			t.Errorf("the established node asks: %v", err)
		}
		if err := ask(t.Context(), established, memberOf(second)); err != nil {
			t.Errorf("the established node asks its double: %v", err)
		}
		conn, _ := r.member(t, secret, established)
		go func() { _, _ = conn.Write(rogueGet(1, "n")) }()
		if kind, _, body := wiretest.ReadFrame(t, conn); kind != codec.KindAnswer || !strings.HasSuffix(body, "v") {
			t.Errorf("the established node answers with kind %d, %q", kind, body)
		}
		if established.unready() == "" || second.unready() != "" {
			t.Errorf("readiness: %q and %q", established.unready(), second.unready())
		}
		if n := strings.Count(asked.String(), "another node has taken this node's name"); n != 1 {
			t.Errorf("%d lines in the log of the established node", n)
		}
		r.mustLog(t, "n1", "WARN", "two live members have one name", established.Addr(), second.Addr()) // logged by the second
		r.mustLog(t, "n2", "WARN", "two live members have one name")

		// Without its double it owns keys again.
		_ = second.Close()
		await(t, established, "waiting for the established n1", func(v *ring.View) bool {
			m, _ := v.Member("n1")
			return m.Addr == established.Addr()
		})
		await(t, n2, "waiting for the established n1", func(v *ring.View) bool {
			m, _ := v.Member("n1")
			return m.Addr == established.Addr()
		})
		mustServe(t, established, n2)
	})
}
