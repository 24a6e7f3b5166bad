package peer

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/weircache/weir/internal/testlog"
)

// TestService checks that a service's SRV records give the members' addresses, each with its own port, even after they
// change.
func TestService(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		const name = "_weir._tcp.catalog.test"
		world.SetName("a.catalog.test", "10.0.0.1")
		world.SetName("b.catalog.test", "10.0.0.2")
		world.SetService(name, "a.catalog.test:7946", "b.catalog.test:7947", "gone.catalog.test:7946")
		n1 := simulated(t, world, 1, Config{Bind: "10.0.0.1:7946", Join: []string{name}})
		n2 := simulated(t, world, 2, Config{Bind: "10.0.0.2:7947", Join: []string{name}})
		awaitNames(t, "n1 n2", n1, n2)

		// A third node starts, which only the records name.
		n3 := simulated(t, world, 3, Config{Bind: "10.0.0.3:7950"})
		world.SetService(name, "10.0.0.3:7950")
		awaitNames(t, "n1 n2 n3", n1, n2, n3)
	})
}

func TestDiscover(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, logs := newMemNet(), new(testlog.Log)
		var down atomic.Bool
		var calls atomic.Int64
		n1 := simulated(t, world, 1, Config{Bind: "10.0.0.1:7946"})
		n2 := simulated(t, world, 2, Config{Bind: "10.0.0.2:7946", Logger: logs.Logger(), Discover: func(ctx context.Context) ([]string, error) {
			calls.Add(1)
			if down.Load() {
				<-ctx.Done() // as long as it may take
				return nil, errors.New("the registry is down")
			}
			return []string{"10.0.0.1:7946", "nonsense", "10.0.0.9:0"}, nil
		}})
		awaitNames(t, "n1 n2", n1, n2)
		for _, want := range []string{"nonsense", "10.0.0.9:0", "port 0"} {
			if !strings.Contains(logs.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, logs)
			}
		}

		// While the function fails, its last answer is used.
		down.Store(true)
		world.split("10.0.0.2")
		awaitNames(t, "n2", n2)
		pause(t.Context(), 2*time.Minute)
		world.split()
		awaitNames(t, "n1 n2", n1, n2)
		if calls.Load() < 8 || !strings.Contains(logs.String(), "the registry is down") {
			t.Errorf("%d calls; the log:\n%s", calls.Load(), logs)
		}

		// Close waits no longer than until the context ends.
		began := time.Now()
		if err := n2.Close(); err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("Close took %v: %v", time.Since(began), err)
		}
	})
}

// TestDiscoverFails checks that a node that has no seed to ask, because the function fails from the start, is not ready.
func TestDiscoverFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := simulated(t, newMemNet(), 1, Config{Discover: func(context.Context) ([]string, error) { return nil, errors.New("down") }})
		pause(t.Context(), time.Minute)
		if err := n.Ready(); err == nil {
			t.Error("ready, although it cannot know whether there are others")
		}
	})
}

// TestLookupSRV checks that the operating system's network queries a real server.
func TestLookupSRV(t *testing.T) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		var m dns.Msg
		m.SetReply(q)
		if name := q.Question[0].Name; name == "_weir._tcp.catalog.test." && q.Question[0].Qtype == dns.TypeSRV {
			for i, target := range []string{"late.catalog.test.", "early.catalog.test."} {
				m.Answer = append(m.Answer, &dns.SRV{
					Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: 1}, Priority: uint16(9 - i), Port: uint16(7946 + i), Target: target,
				})
			}
		} else {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(&m) // the client retries
	})}
	started, done := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	go func() { done <- server.ActivateAndServe() }()
	<-started
	defer func() {
		if err := errors.Join(server.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	}()
	network := systemNetwork{&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", packets.LocalAddr().String())
	}}}
	got, err := network.LookupSRV(t.Context(), "_weir._tcp.catalog.test")
	if want := []string{"early.catalog.test:7947", "late.catalog.test:7946"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	var missing *net.DNSError
	if got, err := network.LookupSRV(t.Context(), "_weir._tcp.other.test"); !errors.As(err, &missing) || !missing.IsNotFound || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
}
