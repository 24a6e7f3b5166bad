package roster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/peer/netsim"
)

const rejoinEvery = 10 * time.Second // between the attempts to join of the nodes in a world

// in starts a roster that gossips over a simulated network, at the IP address 10.0.0.host.
func in(t *testing.T, world *netsim.Network, name string, host byte, changes ...func(*roster.Config)) *node {
	t.Helper()
	here := world.Host(fmt.Sprint("10.0.0.", host))
	addr := fmt.Sprintf("10.0.0.%d:7946", host)
	packets, err := here.ListenPacket(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := here.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, append([]func(*roster.Config){named(name, host), func(c *roster.Config) {
		c.Gossip.Packets, c.Gossip.Dial = packets, here.Dial
		c.Seeds.Network, c.Seeds.Interval = here, rejoinEvery
	}}, changes...)...)
	go func() {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return
			}
			if n.Take(conn) != nil {
				_ = conn.Close()
			}
		}
	}()
	t.Cleanup(func() { _ = streams.Close() })
	return n
}

// seeds sets the seeds that a node joins.
func seeds(fixed ...string) func(*roster.Config) {
	return func(c *roster.Config) { c.Seeds.Fixed = fixed }
}

// join begins to join the seeds, and waits for the first attempt.
func (n *node) join() { <-n.Join() }

// A dialed is an attempt to open a stream.
type dialed struct {
	at time.Time
	to string
}

// refusals is a network on which all addresses refuse. It records who was dialed.
type refusals struct {
	mu  sync.Mutex // guards all
	all []dialed
}

func (r *refusals) dial(_ context.Context, addr string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, dialed{time.Now(), addr})
	return nil, syscall.ECONNREFUSED
}

// take returns what was dialed since the last call.
func (r *refusals) take() []dialed {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// times returns the moments at which anything was dialed, each once.
func times(all []dialed) (out []time.Time) {
	for _, d := range all {
		out = append(out, d.at)
	}
	return slices.CompactFunc(out, time.Time.Equal)
}

// to makes a node dial on r, and not on any network.
func (r *refusals) to(c *roster.Config) { c.Gossip.Dial = r.dial }

// unresolved is a resolver that fails while it is down, and finds nothing otherwise.
type unresolved struct {
	roster.Resolver
	mu   sync.Mutex // guards down
	down string     // why it fails; "": it works
}

func (u *unresolved) fails(why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down = why
}

func (u *unresolved) LookupHost(ctx context.Context, host string) ([]string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != "" {
		return nil, errors.New(u.down)
	}
	return u.Resolver.LookupHost(ctx, host)
}
