package peer

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/ring"
)

// quick returns a configuration with short times for tests on real sockets.
func quick(name string, join ...string) Config {
	return Config{
		Name: name, Join: join, Seed: 1,
		Gossip:         Gossip{ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 80 * time.Millisecond, SuspicionMult: 2},
		RejoinInterval: 300 * time.Millisecond,
		Logger:         slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// await waits for a view of n that ok accepts.
func await(t *testing.T, n *Node, what string, ok func(*ring.View) bool) {
	t.Helper()
	timer := time.NewTimer(2 * time.Minute)
	defer timer.Stop()
	for {
		changed := n.ViewChanged()
		if ok(n.View()) {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			t.Fatalf("%s: %s: the view has %v; members: %+v", n.Name(), what, n.View().Members(), n.Members())
		}
	}
}

// awaitNames waits until the views of the nodes have exactly these members.
func awaitNames(t *testing.T, names string, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		await(t, n, "waiting for "+names, func(v *ring.View) bool { return viewNames(v) == names })
	}
}

func viewNames(v *ring.View) string {
	var s []string
	for _, m := range v.Members() {
		s = append(s, m.Name)
	}
	return strings.Join(s, " ")
}

// memNet is a network in memory.
type memNet struct{ *netsim.Network }

func newMemNet() memNet { return memNet{netsim.New(1)} }

// host is the network as one host sees it.
func (m memNet) host(ip string) Network { return m.Host(ip) }

// split cuts the hosts off from the rest. Without hosts it heals the network.
func (m memNet) split(hosts ...string) {
	m.Heal()
	if len(hosts) > 0 {
		m.Isolate(hosts...)
	}
}
